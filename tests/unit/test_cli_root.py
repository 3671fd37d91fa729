from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tests.cli_fakes import environment

from aiplayground import __version__
from aiplayground.cli import exits, main
from aiplayground.cli._app import App
from aiplayground.cli._errors import ending
from aiplayground.cli._group import COMMANDS
from aiplayground.cli.root import root
from aiplayground.errors import ModelNotFound
from aiplayground.paths import Paths

HEAVY = ("pydantic", "httpx", "rich", "prompt_toolkit", "aiplayground.kernel", "asyncio")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPG_HOME", str(tmp_path))
    monkeypatch.setenv("AIPG_PLUGINS__ALLOW", "[]")


def _imported(home: Path, *args: str) -> set[str]:
    program = (
        "import sys; from aiplayground.cli import main; main(sys.argv[1:]); "
        "print('|'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=60,
        check=True,
    )
    return set(done.stderr.strip().split("|"))


def test_version_is_the_same_with_and_without_click(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == exits.OK
    quick = capsys.readouterr().out
    assert main(["--home", "x", "--version"]) == exits.OK
    assert capsys.readouterr().out == quick == f"aipg {__version__}\n"


def test_version_imports_nothing_that_costs(tmp_path: Path) -> None:
    imported = _imported(tmp_path, "--version")
    assert not imported & {*HEAVY, "click", "pluggy", "importlib.metadata"}


def test_help_imports_no_command_and_nothing_heavy(tmp_path: Path) -> None:
    imported = _imported(tmp_path, "--help")
    assert not imported & {*HEAVY, "pluggy"}
    assert not {f"aiplayground.cli.{name}" for name in COMMANDS} & imported


def test_plugins_needs_neither_kernel_nor_settings_models(tmp_path: Path) -> None:
    assert not _imported(tmp_path, "plugins", "--json") & set(HEAVY)
    file = Paths.resolve(tmp_path).config_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("[plugins]\nallow = []\n[models]\ndefault = 'x'\n")
    assert not _imported(tmp_path, "plugins", "--json") & set(HEAVY)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command_and_the_exit_codes(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([flag]) == exits.OK
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert all(f"{code} " in text for code in (0, 1, 2, 3, 130, 143))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_says_the_same_as_the_table(name: str) -> None:
    command = root.get_command(click.Context(root, obj=App()), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name].help


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["chta"], "'chat'"), (["--hom", "x"], "'--home'"), (["chat", "--temp", "1"], None)],
)
def test_wrong_words_get_a_suggestion_and_exit_code_2(
    typed: list[str], meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == exits.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Error: " in printed.err
    assert meant is None or f"Did you mean {meant}?" in printed.err


def test_commands_of_later_versions_are_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate"]) == exits.USAGE
    assert "There is no command 'generate'." in capsys.readouterr().err


def test_completion_of_command_names_imports_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "aiplayground.cli"],
        capture_output=True,
        text=True,
        env=environment(
            tmp_path, _AIPG_COMPLETE="bash_complete", COMP_WORDS="aipg s", COMP_CWORD="1"
        ),
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [f"plain,{name}" for name in COMMANDS if name.startswith("s")]
    assert "aiplayground.cli.services" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    # click asks the installed bash for its version and says so when it is too old.
    result = CliRunner().invoke(root, ["completion", shell], obj=App())
    assert result.exit_code == 0
    assert f"_AIPG_COMPLETE={shell}_complete" in result.stdout


def test_an_error_is_a_message_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ModelNotFound("There is no model 'x'.", details={"model": "x"})

    assert ending(App(), fail) == exits.ERROR
    assert capsys.readouterr() == ("", "Error: There is no model 'x'.\n")
    assert ending(App(json=True), fail) == exits.ERROR
    out, err = capsys.readouterr()
    body = {"code": -2, "message": "There is no model 'x'.", "details": {"model": "x"}}
    assert (json.loads(out), err) == (body, "")


def test_an_unexpected_error_says_how_to_see_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.delenv("AIPG_TRACEBACK", raising=False)
    assert ending(App(), fail) == exits.ERROR
    message = capsys.readouterr().err
    assert "ZeroDivisionError: oh" in message
    assert "AIPG_TRACEBACK=1" in message
    assert len(message.splitlines()) == 1
    monkeypatch.setenv("AIPG_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        ending(App(), fail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), exits.INTERRUPTED),
        (click.Abort(), exits.INTERRUPTED),
        (exits.Interrupted(2), exits.INTERRUPTED),
        (exits.Interrupted(15), exits.TERMINATED),
    ],
)
def test_interruptions_end_silently_with_the_shells_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert ending(App(), fail) == code
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_while_the_program_is_being_read_is_quiet(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from aiplayground.cli import main\n"
        "sys.exit(main(['models']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert (done.returncode, done.stdout, done.stderr) == (exits.INTERRUPTED, "", "")
