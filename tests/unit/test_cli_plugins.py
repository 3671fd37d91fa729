"""`aipg plugins`: what is shown, and turning a plugin off and on."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.cli_fakes import Cli

from aiplayground.paths import Paths


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def config(cli: Cli) -> Path:
    return Paths.resolve(cli.home).config_file


def plain(cli: Cli, *args: str, **more: str) -> Any:
    """Run without `plugins.allow` in the environment: it would be above the file."""
    return cli.run(*args, AIPG_PLUGINS__ALLOW="", **more)


def test_the_list_has_everything_about_a_plugin(cli: Cli) -> None:
    listed = cli.json("plugins")
    (plugin,) = listed["plugins"]
    assert listed["hookApi"] == 1
    assert plugin["hookApi"] == [1]
    assert plugin["notes"] == []
    assert plugin["loadMilliseconds"] > 0
    assert {"backend", "chat", "setup"} <= set(plugin["hooks"])
    head, row = cli.run("plugins").stdout.splitlines()[:2]
    assert head.split() == [
        "PLUGIN", "PACKAGE", "VERSION", "API", "SERVICES", "COMMANDS", "HOOKS", "LOAD"
    ]  # fmt: skip
    assert row.split()[:4] == ["fake-backend", "fakeplug", "0.1", "1"]


def test_a_failure_has_its_number_and_its_cause(cli: Cli) -> None:
    source = (cli.plugins / "fakeplug.py").read_text()
    (cli.plugins / "fakeplug.py").write_text("AIPG_HOOK_API = 7\n" + source)
    (failure,) = cli.json("plugins")["failures"]
    assert (failure["hookApi"], failure["stage"], failure["cause"]) == (
        [7],
        "validate",
        "PluginError",
    )
    assert "built for hook API 7" in cli.run("plugins").stdout


def test_a_name_that_the_kernel_no_longer_has_says_which_kernel_it_wants(cli: Cli) -> None:
    (cli.plugins / "fakeplug.py").write_text("from aiplayground.hookspecs import gone\n")
    with (cli.plugins / "fakeplug-0.1.dist-info" / "METADATA").open("a") as metadata:
        metadata.write("Requires-Dist: aiplayground<0.9,>=0.8\n")
    (failure,) = cli.json("plugins")["failures"]
    assert failure["cause"] == "ImportError"
    assert "It asks for aiplayground<0.9,>=0.8. This is aiplayground" in failure["message"]


def test_disable_and_enable(cli: Cli) -> None:
    done = plain(cli, "plugins", "disable", "fake-backend")
    assert done.returncode == 0, done.stderr
    assert "will not load" in done.stdout
    assert "there is no fake-backend, absent-backend" in done.stdout
    assert str(config(cli)) in done.stdout
    assert tomllib.loads(config(cli).read_text()) == {"plugins": {"deny": ["fake-backend"]}}
    listed = json.loads(plain(cli, "plugins", "--json").stdout)
    assert "fake-backend" in listed["disabled"]
    assert "turned off already" in plain(cli, "plugins", "disable", "fake-backend").stdout
    assert "will load" in plain(cli, "plugins", "enable", "fake-backend").stdout
    assert tomllib.loads(config(cli).read_text()) == {"plugins": {"deny": []}}
    assert "is not turned off" in plain(cli, "plugins", "enable", "fake-backend").stdout
    listed = json.loads(plain(cli, "plugins", "--json").stdout)
    assert listed["disabled"] == []


def test_one_that_fails_can_be_turned_off(cli: Cli) -> None:
    (cli.plugins / "fakeplug.py").write_text("raise ImportError('no engine here')")
    assert plain(cli, "plugins", "disable", "fake-backend").returncode == 0
    listed = json.loads(plain(cli, "plugins", "--json").stdout)
    assert (listed["failures"], listed["disabled"]) == ([], ["fake-backend"])


def test_enable_also_adds_to_a_list_of_those_allowed(cli: Cli) -> None:
    config(cli).parent.mkdir(parents=True, exist_ok=True)
    config(cli).write_text('[plugins]\nallow = []  # mine\ndeny = ["fake-backend", "gone"]\n')
    written = json.loads(plain(cli, "plugins", "enable", "--json", "fake-backend").stdout)
    assert written["enabled"] is True
    assert written["settings"] == {"plugins.deny": ["gone"], "plugins.allow": ["fake-backend"]}
    assert "# mine" in config(cli).read_text()
    assert plain(cli, "plugins", "enable", "gone").returncode == 0, "it need not be installed"


def test_an_unknown_name_is_refused_with_a_suggestion(cli: Cli) -> None:
    done = plain(cli, "plugins", "disable", "fake-backen")
    assert done.returncode == 1
    assert "Did you mean 'fake-backend'?" in done.stderr
    refused = plain(cli, "plugins", "enable", "zzz").stderr
    assert "fake-backend" in refused.partition("There is: ")[2]
    assert not config(cli).exists()
    error = json.loads(plain(cli, "plugins", "disable", "zzz", "--json").stdout)
    assert error["code"] == -4


def test_what_is_above_the_file_is_told(cli: Cli) -> None:
    done = plain(cli, "plugins", "disable", "fake-backend", AIPG_PLUGINS__DENY="other")
    assert "AIPG_PLUGINS__DENY" in done.stderr
    assert "that is what counts" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("[models]\ndefault = 'x'", {}),
        ("\ufeff[plugins]\ndeny = ['a']", {"deny": ["a"]}),
        ("[plugins]\nallow = []\ndeny = ['a']", {"allow": [], "deny": ["a"]}),
        ("[plugins]\ndeny = 'a'", None),
        ("[plugins]\ndeny = [1]", None),
        ("[plugins]\nbanana = ['a']", None),
        ("plugins = 3", None),
        ("[attach]\nx = 'http://127.0.0.1:1'\n[plugins]\ndeny = []", None),
        ("not TOML", None),
    ],
)
def test_plain_limits_are_read_without_validating_all(
    tmp_path: Path, text: str, expected: object
) -> None:
    from aiplayground.cli._discovery import _plain_limits

    paths = Paths.resolve(tmp_path)
    paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text(text, encoding="utf-8")
    assert _plain_limits(paths, {}) == expected
    assert _plain_limits(paths, {"AIPG_PLUGINS__DENY": "a"}) is None
