from __future__ import annotations

import stat
import threading
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import filelock
import pytest
from pydantic import BaseModel, Field

from aiplayground.errors import ErrorCode, FileOperationError, InvalidSettings, PluginError
from aiplayground.paths import Paths
from aiplayground.settings import (
    KernelSettings,
    Layers,
    OwnSettings,
    ServiceSettings,
    _file,
    load_layers,
    parse_value,
    rows,
    service_settings,
    set_value,
    split_key,
    unknown_services,
    unset_value,
    variable_of,
)
from aiplayground.specs import BackendSpec


class Engine(OwnSettings):
    context_size: int = Field(default=4096, ge=1, description="Tokens of context.")
    flash: Literal["on", "off", "auto"] = "auto"
    extra_args: list[str] = Field(default_factory=list)
    device: str | None = None


class Loose(BaseModel):
    port: int = 1
    threads: int = 4


SPEC = BackendSpec(
    name="llamacpp-backend", title="llama.cpp", settings=f"{Engine.__module__}:Engine"
)
SERVICES: dict[str, type[BaseModel]] = {"llamacpp-backend": Engine}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.resolve(tmp_path)
    paths.config.mkdir(parents=True)
    paths.system_config.parent.mkdir(parents=True)
    return paths


@pytest.fixture
def load(paths: Paths) -> Callable[..., Layers]:
    def load(
        user: str = "",
        system: str = "",
        environ: Mapping[str, str] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Layers:
        if user:
            paths.config_file.write_text(user, encoding="utf-8")
        if system:
            paths.system_config.write_text(system, encoding="utf-8")
        return load_layers(paths, environ or {}, arguments or {})

    return load


def refusal(layers: Layers) -> str:
    with pytest.raises(InvalidSettings) as caught:
        layers.kernel()
    assert caught.value.code is ErrorCode.INVALID_PARAMETERS
    return caught.value.message


def own_refusal(layers: Layers, spec: BackendSpec = SPEC) -> str:
    with pytest.raises(InvalidSettings) as caught:
        service_settings(layers, spec)
    return caught.value.message


def test_without_any_source_the_defaults_hold(load: Callable[..., Layers]) -> None:
    layers = load()
    assert layers.kernel() == KernelSettings()
    assert layers.merged() == {}
    assert layers.origin("residency.idle_timeout") == "default"


def test_each_layer_wins_over_those_below(load: Callable[..., Layers], paths: Paths) -> None:
    table = "[residency]\nidle_timeout = {}\n"
    environ = {"AIPG_RESIDENCY__IDLE_TIMEOUT": "3"}
    key = "residency.idle_timeout"
    layers = load(system=table.format(1))
    assert layers.kernel().residency.idle_timeout == 1
    assert layers.origin(key) == f"{paths.system_config}, line 2"
    layers = load(user="# mine\n" + table.format(2))
    assert layers.kernel().residency.idle_timeout == 2
    assert layers.origin(key) == f"{paths.config_file}, line 3"
    layers = load(environ=environ)
    assert layers.kernel().residency.idle_timeout == 3
    assert layers.origin(key) == "environment variable AIPG_RESIDENCY__IDLE_TIMEOUT"
    layers = load(environ=environ, arguments={key: 4})
    assert layers.kernel().residency.idle_timeout == 4
    assert layers.origin(key) == f"argument '{key}'"


def test_tables_merge_and_lists_replace(load: Callable[..., Layers]) -> None:
    layers = load(
        system='[residency]\nmax_models = 7\npinned = ["a", "b"]',
        user='[residency]\npinned = ["c"]',
    )
    assert layers.kernel().residency.max_models == 7
    assert layers.kernel().residency.pinned == ("c",)


def test_arguments_may_be_nested_and_none_is_not_given(load: Callable[..., Layers]) -> None:
    layers = load(arguments={"residency": {"max_models": 5}, "models.default": None})
    assert layers.kernel().residency.max_models == 5
    assert layers.origin("models.default") == "default"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (
            "[residency]\nmax_models = 1\nidle_timout = 3",
            "line 3: there is no setting 'residency.idle_timout'. "
            "Did you mean 'residency.idle_timeout'?",
        ),
        (
            '[models]\nexternal = ["ollma"]',
            "'models.external[0]' is not accepted: must be one of huggingface, lm-studio, ollama, "
            "or an absolute path",
        ),
        (
            '[hub]\nproxy = "clerk:word@proxy:8080"',
            "line 2: 'hub.proxy' is not accepted: must be an address such as http://proxy:8080.",
        ),
        ("[residancy]\n", "line 1: there is no setting 'residancy'. Did you mean 'residency'?"),
        ("residency.idle_timout = 3", "line 1: there is no setting 'residency.idle_timout'."),
        ("\n[logs]\nzzz = 1", "line 3: there is no setting 'logs.zzz'. There is: backups, level,"),
        (
            '[residency]\nidle_timeout = "soon"',
            "line 2: 'residency.idle_timeout' must be a number, not \"soon\".",
        ),
        (
            "[residency]\nmax_models = true",
            "'residency.max_models' must be a whole number, not true.",
        ),
        ("[residency]\nmax_models = 0", "'residency.max_models' must be at least 1, not 0."),
        ("[residency]\nmax_models = 1.5", "must be a whole number, not 1.5."),
        ("[residency]\nidle_timeout = nan", "must be a finite number"),
        ("[residency]\nidle_timeout = -1", "must be at least 0, not -1."),
        ("[liveness]\ninterval = 0", "must be more than 0"),
        ('[plugins]\ndeny = "x"', '\'plugins.deny\' must be a list such as ["a", "b"]'),
        ('[plugins]\ndeny = ["x", 3]', "line 2: 'plugins.deny[1]' must be text in quotes, not 3."),
        ("residency = 3", "line 1: 'residency' must be a table, not 3."),
        ('[logs]\nlevel = "loud"', "must be 'debug', 'info', 'warning' or 'error', not \"loud\"."),
        ("[services.x]\nport = 70000", "line 2: 'services.x.port' must be at most 65535"),
        ("[services]\nx = 3", "'services.x' must be a table, not 3."),
        ("services = 3", "'services' must be a table, not 3."),
        ("[models]\nfolders = [3]", "'models.folders[0]' must be a path in quotes, not 3"),
    ],
)
def test_wrong_settings_are_explained_with_their_place(
    load: Callable[..., Layers], paths: Paths, user: str, expected: str
) -> None:
    message = refusal(load(user))
    assert message.startswith(f"{paths.config_file}, line ")
    assert expected in message


def test_all_problems_are_told_at_once(load: Callable[..., Layers]) -> None:
    layers = load("[residency]\nmax_models = 0\nx = 1", environ={"AIPG_LOGS__BACKUPS": "-1"})
    with pytest.raises(InvalidSettings) as caught:
        layers.kernel()
    assert len(caught.value.message.splitlines()) == 3
    assert {one["key"] for one in caught.value.details["problems"]} == {
        "residency.max_models",
        "residency.x",
        "logs.backups",
    }


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("[logs]\nlevel = \n", 2, 9),
        ("a = 1\na = 2", 2, 6),
        ("[logs]\nlevel", 2, 6),
        ("x = [1,", 1, 8),
    ],
)
def test_a_broken_file_is_named_with_line_and_column(
    load: Callable[..., Layers], paths: Paths, text: str, line: int, column: int
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(text)
    place = f"{paths.config_file}, line {line}, column {column}: this is not TOML"
    assert caught.value.message.startswith(place)
    assert caught.value.details["line"] == line


def test_a_file_with_a_byte_order_mark_reads(load: Callable[..., Layers], paths: Paths) -> None:
    paths.config_file.write_bytes(b"\xef\xbb\xbf[logs]\nbackups = 1\n")
    assert load().kernel().logs.backups == 1


def test_a_file_that_is_no_text_or_cannot_be_read(
    load: Callable[..., Layers], paths: Paths
) -> None:
    paths.config_file.write_bytes(b"\xff\xfe[")
    with pytest.raises(InvalidSettings, match="not UTF-8"):
        load()
    paths.config_file.unlink()
    paths.config_file.mkdir()
    with pytest.raises(FileOperationError, match="directory"):
        load()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30", 30),
        ("1.5", 1.5),
        ("true", True),
        ('["a"]', ["a"]),
        ('"30"', "30"),
        ("'x'", "x"),
        ("llama", "llama"),
        ("2024-01-01", "2024-01-01"),
        ("1\nw = 2", "1\nw = 2"),
        ("", ""),
        ("C:\\models", "C:\\models"),
    ],
)
def test_typed_values_are_toml_where_they_read_as_it(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_variables_are_settings_only_with_a_section(load: Callable[..., Layers]) -> None:
    environ = {
        "AIPG_HOME": "/x",
        "AIPG_PARENT_FD": "3",
        "AIPG_WORKER_TOKEN": "secret",
        "AIPG_TEST_A__B": "1",
        "AIPG__": "1",
        "AIPG_LOGS__LEVEL": "",
        "OTHER__X": "1",
    }
    assert load(environ=environ).merged() == {}


def test_a_variable_that_reads_as_a_number_may_be_text(load: Callable[..., Layers]) -> None:
    kernel = load(environ={"AIPG_MODELS__DEFAULT": "1.10"}).kernel()
    assert kernel.models.default == "1.10"


def test_a_list_in_a_variable_may_be_written_with_commas(load: Callable[..., Layers]) -> None:
    environ = {"AIPG_PLUGINS__DENY": "a, b", "AIPG_PLUGINS__ALLOW": '["c"]'}
    kernel = load(environ=environ).kernel()
    assert kernel.plugins.deny == ("a", "b")
    assert kernel.plugins.allow == ("c",)


def test_problems_in_variables_name_the_variable(load: Callable[..., Layers]) -> None:
    message = refusal(load(environ={"AIPG_RESIDENCY__IDLE_TIMOUT": "3"}))
    assert message == (
        "environment variable AIPG_RESIDENCY__IDLE_TIMOUT: there is no setting "
        "'residency.idle_timout'. Did you mean AIPG_RESIDENCY__IDLE_TIMEOUT?"
    )
    message = refusal(load(environ={"aipg_residency__max_models": "many"}))
    assert message.startswith("environment variable aipg_residency__max_models: ")
    message = refusal(load(environ={"AIPG_LOGS__LEVEL__X": "1"}))
    assert message.startswith("environment variable AIPG_LOGS__LEVEL__X: 'logs.level' must be")


def test_problems_in_arguments_say_so(load: Callable[..., Layers]) -> None:
    message = refusal(load(arguments={"residency.max_model": 3}))
    assert message.startswith("argument 'residency.max_model': there is no setting")
    with pytest.raises(InvalidSettings, match="is no key"):
        load(arguments={"residency..x": 3})
    with pytest.raises(InvalidSettings, match="below a key that already has a value"):
        load(arguments={"logs.level": "info", "logs.level.x": 3})


def test_a_backend_has_its_own_keys_beside_the_kernels(load: Callable[..., Layers]) -> None:
    layers = load(
        "[services.llamacpp-backend]\nport = 9000\ncontext_size = 512",
        environ={"AIPG_SERVICES__LLAMACPP_BACKEND__FLASH": "on"},
    )
    assert layers.kernel().service("llamacpp-backend") == ServiceSettings(port=9000)
    assert layers.kernel().service("other") == ServiceSettings()
    assert service_settings(layers, SPEC) == Engine(context_size=512, flash="on")


def test_a_backends_text_setting_takes_a_number_from_a_variable(
    load: Callable[..., Layers],
) -> None:
    environ = {
        "AIPG_SERVICES__LLAMACPP_BACKEND__DEVICE": "0",
        "AIPG_SERVICES__LLAMACPP_BACKEND__EXTRA_ARGS": "--a,--b",
    }
    settings = service_settings(load(environ=environ), SPEC)
    assert settings == Engine(device="0", extra_args=["--a", "--b"])


def test_service_names_match_in_any_spelling(load: Callable[..., Layers]) -> None:
    layers = load("[services.LlamaCpp_Backend]\ncontext_size = 512")
    assert service_settings(layers, SPEC) == Engine(context_size=512)
    assert "line 2" in layers.origin("services.llamacpp_backend.context_size")
    with pytest.raises(InvalidSettings, match="two tables mean the service 'a-b'"):
        load("[services.a-b]\n[services.a_b]")


def test_problems_in_a_backends_settings_are_explained_alike(load: Callable[..., Layers]) -> None:
    message = own_refusal(load("[services.llamacpp-backend]\n\ncontext_sise = 3"))
    assert "line 3: there is no setting 'services.llamacpp-backend.context_sise'." in message
    assert "Did you mean 'services.llamacpp-backend.context_size'?" in message
    message = own_refusal(load("[services.llamacpp-backend]\nprot = 3"))
    assert "Did you mean 'services.llamacpp-backend.port'?" in message
    message = own_refusal(load("[services.llamacpp-backend]\ncontext_size = 0"))
    assert "line 2: 'services.llamacpp-backend.context_size' must be at least 1" in message
    message = own_refusal(
        load(
            "[logs]",
            environ={"AIPG_SERVICES__LLAMACPP_BACKEND__CONTEXT_SISE": "3"},
        )
    )
    assert "Did you mean AIPG_SERVICES__LLAMACPP_BACKEND__CONTEXT_SIZE?" in message


def test_unknown_keys_are_refused_even_by_a_model_that_would_ignore_them(
    load: Callable[..., Layers],
) -> None:
    spec = BackendSpec(name="x", title="X", settings=f"{__name__}:Loose")
    layers = load("[services.x]\nport = 3\nthreads = 2")
    assert service_settings(layers, spec) == Loose(port=3, threads=2)
    assert "Did you mean 'services.x.threads'?" in own_refusal(
        load("[services.x]\nthread = 3"), spec
    )
    both = own_refusal(load('[services.x]\nthread = 3\nport = "x"\nthreads = "many"'), spec)
    assert "there is no setting 'services.x.thread'." in both
    assert "'services.x.threads' must be a whole number" in both


def test_a_backend_without_settings_refuses_all_but_the_kernels(
    load: Callable[..., Layers],
) -> None:
    spec = BackendSpec(name="x", title="X")
    assert service_settings(load("[services.x]\nport = 3"), spec) == OwnSettings()
    assert "there is no setting 'services.x.speed'" in own_refusal(
        load("[services.x]\nspeed = 3"), spec
    )


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("no.such.module:X", "does not import"),
        (f"{__name__}:Nothing", "does not import"),
        ("nocolon", "does not import"),
        ("", "does not import"),
        ("pathlib:Path", "is no pydantic model"),
    ],
)
def test_a_wrong_reference_to_a_model_is_the_plugins_fault(
    load: Callable[..., Layers], reference: str, words: str
) -> None:
    with pytest.raises(PluginError, match=words):
        service_settings(load(), BackendSpec(name="x", title="X", settings=reference))


def test_settings_of_a_service_that_is_not_installed_are_pointed_out(
    load: Callable[..., Layers],
) -> None:
    layers = load("[services.llamacp-backend]\nport = 3\n[services.llamacpp-backend]\n")
    (sentence,) = unknown_services(layers, ["llamacpp-backend"])
    assert "line 1: no installed backend is called 'llamacp-backend'." in sentence
    assert "Did you mean 'llamacpp-backend'?" in sentence


def test_the_listing_has_every_setting_with_its_description(load: Callable[..., Layers]) -> None:
    layers = load('[models]\nfolders = ["/m"]', environ={"AIPG_MODELS__DEFAULT": "7"})
    listed = {row.key: row for row in rows(layers, SERVICES)}
    assert listed["models.folders"].value == ["/m"]
    assert listed["models.folders"].default == []
    assert listed["models.default"].value == "7"
    assert listed["models.default"].origin == "environment variable AIPG_MODELS__DEFAULT"
    assert listed["residency.idle_timeout"].value == 600
    assert listed["residency.idle_timeout"].origin == "default"
    assert listed["services.llamacpp-backend.context_size"].default == 4096
    assert listed["services.llamacpp-backend.port"].value is None
    of_kernel = [row for row in listed.values() if not row.key.startswith("services.")]
    assert all(row.description.endswith(".") for row in of_kernel)


def test_keys_and_variables() -> None:
    assert split_key("services.llamacpp_backend.port") == ("services", "llamacpp-backend", "port")
    assert split_key('services."x".y') == ("services", "x", "y")
    assert variable_of(("services", "llamacpp-backend", "port")) == (
        "AIPG_SERVICES__LLAMACPP_BACKEND__PORT"
    )
    for wrong in ("", "a b", "a=b", "a\nb", ".a"):
        with pytest.raises(InvalidSettings):
            split_key(wrong)


def test_setting_keeps_comments_and_touches_nothing_else(paths: Paths) -> None:
    before = "# mine\n[residency] # models\nidle_timeout = 60 # a minute\nmax_models = 1\n"
    paths.config_file.write_text(before)
    assert set_value(paths, "residency.idle_timeout", "30") == 30
    assert paths.config_file.read_text() == before.replace("= 60", "= 30")


def test_setting_makes_file_and_tables(paths: Paths) -> None:
    set_value(paths, "services.llamacpp_backend.context_size", "2048", services=SERVICES)
    set_value(paths, "plugins.deny", "a,b")
    set_value(paths, "models.default", "1.10")
    assert tomllib.loads(paths.config_file.read_text()) == {
        "services": {"llamacpp-backend": {"context_size": 2048}},
        "plugins": {"deny": ["a", "b"]},
        "models": {"default": "1.10"},
    }
    assert "[services]\n" not in paths.config_file.read_text()
    assert stat.S_IMODE(paths.config_file.stat().st_mode) & 0o077 == 0


def test_setting_uses_the_spelling_that_the_file_has(paths: Paths) -> None:
    paths.config_file.write_text("[services.llamacpp_backend]\nport = 1\n")
    set_value(paths, "services.llamacpp-backend.port", "2")
    assert paths.config_file.read_text() == "[services.llamacpp_backend]\nport = 2\n"
    unset_value(paths, "services.llamacpp-backend.port")
    assert paths.config_file.read_text() == "[services.llamacpp_backend]\n"


@pytest.mark.parametrize(
    "before",
    [
        "residency.max_models = 1\n",
        "residency = {max_models = 1}\n",
        "[residency]\nmax_models = 1\n[logs]\nbackups = 1\n",
    ],
)
def test_setting_works_in_every_form_of_table(paths: Paths, before: str) -> None:
    paths.config_file.write_text(before)
    set_value(paths, "residency.idle_timeout", "5")
    values = tomllib.loads(paths.config_file.read_text())
    assert values["residency"] == {"max_models": 1, "idle_timeout": 5}


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("residency.idle_timeout", "soon", "must be a number"),
        ("residency.idle_timout", "3", "Did you mean 'residency.idle_timeout'"),
        ("residency", "3", "is a table. Set one of its keys: idle_timeout"),
        ("residency", "{}", "is a table"),
        ("services", "{}", "is a table"),
        ("services.llamacpp-backend", "{}", "is a table"),
        ("services.llamacp-backend.port", "3", "Did you mean 'llamacpp-backend'"),
        ("services.llamacpp-backend.context_size", "0", "must be at least 1"),
        ("services.llamacpp-backend.context", "0", "there is no setting"),
        ("residency.max_models.x", "3", "must be a whole number"),
    ],
)
def test_nothing_invalid_is_written(paths: Paths, key: str, text: str, words: str) -> None:
    before = "[residency]\nmax_models = 1\n"
    paths.config_file.write_text(before)
    with pytest.raises(InvalidSettings, match=words):
        set_value(paths, key, text, services=SERVICES)
    assert paths.config_file.read_text() == before
    assert [one.name for one in paths.config.iterdir()] == ["config.toml"]


def test_a_file_that_is_already_wrong_is_mended_by_unset(paths: Paths) -> None:
    paths.config_file.write_text("[residency]\nwrong = 1\n")
    with pytest.raises(InvalidSettings, match=r"line 2: there is no setting 'residency\.wrong'"):
        set_value(paths, "logs.backups", "1")
    unset_value(paths, "residency.wrong")
    set_value(paths, "logs.backups", "1")
    with pytest.raises(InvalidSettings, match="is not set in"):
        unset_value(paths, "residency.wrong")
    with pytest.raises(InvalidSettings, match="is not set in"):
        unset_value(paths, "timeouts.start")


def test_a_broken_file_is_left_alone(paths: Paths) -> None:
    paths.config_file.write_text("[residency\n")
    with pytest.raises(InvalidSettings, match="line 1, column 11"):
        set_value(paths, "logs.backups", "1")
    assert paths.config_file.read_text() == "[residency\n"


def test_a_link_stays_a_link(paths: Paths, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.toml"
    target.write_text("[logs]\n")
    paths.config_file.symlink_to(target)
    set_value(paths, "logs.backups", "1")
    assert paths.config_file.is_symlink()
    assert "backups = 1" in target.read_text()


def test_a_failed_write_leaves_the_old_file(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.config_file.write_text("[logs]\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileOperationError, match="the disk is full"):
        set_value(paths, "logs.backups", "1")
    assert paths.config_file.read_text() == "[logs]\n"
    assert [one.name for one in paths.config.iterdir()] == ["config.toml"]


def test_writers_at_the_same_time_lose_nothing(paths: Paths) -> None:
    keys = ["start", "load", "stop_grace", "hook", "health", "setup", "drain", "shutdown"]
    threads = [
        threading.Thread(target=set_value, args=(paths, f"timeouts.{key}", "7")) for key in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert tomllib.loads(paths.config_file.read_text())["timeouts"] == dict.fromkeys(keys, 7)


def test_a_held_lock_is_told(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_file, "LOCK_TIMEOUT", 0.01)
    paths.ensure()
    with (
        filelock.FileLock(paths.state / "config.lock"),
        pytest.raises(FileOperationError, match="Another program has been changing"),
    ):
        set_value(paths, "logs.backups", "1")
