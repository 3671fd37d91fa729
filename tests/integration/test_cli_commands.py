from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.cli_fakes import Cli
from tests.gguf_files import Gguf


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_one_answer_ends_with_a_newline_and_the_worker(cli: Cli) -> None:
    done = cli.run("chat", "say", "this")
    assert (done.returncode, done.stdout, done.stderr) == (0, "say this <u>\n", "")
    assert not psutil.pid_exists(cli.worker())


def test_piped_text_follows_the_argument(cli: Cli) -> None:
    done = cli.run("chat", "-s", "be brief", "-m", "parrot", "first", text="second\n")
    assert done.stdout == "first second <su>\n"


def test_json_is_one_document(cli: Cli) -> None:
    assert cli.json("chat", "-m", "fake-backend/parrot", "hi", "--temperature", "0") == {
        "model": "parrot",
        "service": "fake-backend",
        "text": "hi <u>",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-m", "parot", "hi"], -2, "Did you mean 'parrot'?"),
        (["--top-p", "0.5", "hi"], -4, "does not support top_p"),
        (["a", "explode"], -1, "boom"),
        (["-m", "nowhere/x.gguf", "hi"], -2, "nowhere/x.gguf"),
        (["-m", "./x.gguf", "hi"], -5, "x.gguf"),
    ],
)
def test_errors_are_documented_bodies(cli: Cli, args: list[str], code: int, message: str) -> None:
    body = cli.json("chat", *args, code=1)
    assert body["code"] == code
    assert message in body["message"]
    done = cli.run("chat", *args)
    assert done.returncode == 1
    assert done.stdout in ("", "a \n")
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_a_failed_start_is_told(cli: Cli) -> None:
    done = cli.run("chat", "hi", FAKE_FAILS="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no luck today" in done.stderr


def test_wrong_use_is_told_by_2(cli: Cli) -> None:
    assert cli.run("chat").returncode == 2
    assert cli.run("chat", "--temperature", "9", "hi").returncode == 2
    assert cli.run("setup").returncode == 2


def test_services_are_as_the_api_has_them(cli: Cli) -> None:
    services = {each["name"]: each for each in cli.json("services")}
    assert services["fake-backend"]["currentStatus"] == "Installed"
    assert services["fake-backend"]["version"] == "9.9"
    assert services["absent-backend"]["isSetUp"] is False
    assert "aipg setup absent-backend" in cli.run("services").stdout


def test_setup_shows_its_steps_and_counts(cli: Cli) -> None:
    done = cli.run("setup", "absent-backend")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "  0 % download: part 0 [x]"
    assert lines[-2] == "100 % verify: part 100 [x]"
    assert lines[-1] == "Absent is set up (absent-backend, version 9.9)."
    services = {each["name"]: each for each in cli.json("services")}
    assert services["absent-backend"]["isSetUp"] is True
    assert cli.json("setup", "fake-backend")["name"] == "fake-backend"


def test_setup_of_an_unknown_service_suggests_one(cli: Cli) -> None:
    done = cli.run("setup", "fak-backend")
    assert done.returncode == 1
    assert "Did you mean 'fake-backend'?" in done.stderr


def test_models_are_listed_and_broken_files_explained(cli: Cli) -> None:
    folder = cli.home / "models"
    folder.mkdir()
    (folder / "broken.gguf").write_bytes(b"not a model")
    listed = cli.json("models")
    assert [each["name"] for each in listed["models"]] == ["giant", "parrot"]
    assert [Path(each["path"]).name for each in listed["problems"]] == ["broken.gguf"]
    assert listed["folders"] == [str(folder)]
    text = cli.run("models", "--paths").stdout
    assert str(folder) in text
    assert "broken.gguf" in text
    assert "1.6 MB" in text


def test_plugins_lists_failures_and_what_is_off(cli: Cli) -> None:
    listed = cli.json("plugins")
    (plugin,) = listed["plugins"]
    assert plugin["services"] == ["fake-backend", "absent-backend"]
    assert plugin["commands"] == ["parrot", "config parrot", "broken"]
    (cli.plugins / "fakeplug.py").write_text("raise ImportError('no engine here')")
    listed = cli.json("plugins")
    assert listed["plugins"] == []
    assert "no engine here" in listed["failures"][0]["message"]
    assert "no engine here" in cli.run("plugins").stdout
    off = cli.json("plugins", AIPG_PLUGINS__DENY="fake-backend,x")
    assert "fake-backend" in off["disabled"]


def test_commands_of_plugins_run(cli: Cli) -> None:
    done = cli.run("--home", str(cli.home), "parrot")
    assert (done.returncode, done.stdout) == (0, f"squawk {cli.home}\n")
    assert "does not import" in cli.run("broken").stderr
    assert "Did you mean 'parrot'?" in cli.run("parot").stderr


def test_a_plugin_brings_a_command_into_a_group(cli: Cli) -> None:
    done = cli.run("config", "parrot")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("squawk")
    assert "No such command" in cli.run("config", "parot").stderr


@pytest.mark.parametrize("command", [["pull", "x"], ["config", "hf-token"]])
def test_a_command_of_a_package_that_is_not_there_says_what_to_install(
    cli: Cli, command: list[str]
) -> None:
    done = cli.run(*command)
    assert done.returncode == 2
    assert "pip install aiplayground-models" in done.stderr


def test_doctor_lets_each_engine_answer(cli: Cli) -> None:
    report = cli.json("doctor")
    assert report["ok"] is True
    checks = {each["check"]: each for each in report["checks"]}
    engine = checks["engine fake-backend"]
    assert engine["status"] == "ok"
    assert engine["details"]["model"] == "parrot"
    assert engine["details"]["firstTokenSeconds"] > 0
    assert checks["engine absent-backend"]["status"] == "warn"
    assert "aipg setup absent-backend" in checks["engine absent-backend"]["advice"]
    assert not psutil.pid_exists(cli.worker())


def test_doctor_goes_on_after_a_failure_and_exits_with_1(cli: Cli) -> None:
    report = cli.json("doctor", code=1, FAKE_FAILS="1")
    assert report["ok"] is False
    checks = {each["check"]: each for each in report["checks"]}
    assert "no luck today" in checks["engine fake-backend"]["message"]
    assert "engine absent-backend" in checks
    done = cli.run("doctor", FAKE_FAILS="1", PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert "X engine fake-backend: " in done.stdout
    assert "1 to mend" in done.stdout


def test_doctor_finds_wrong_settings_without_a_kernel(cli: Cli) -> None:
    report = cli.json("doctor", code=1, AIPG_RESIDENCY__MAX_MODLES="3")
    wrong = [each for each in report["checks"] if each["status"] == "fail"]
    assert [each["check"] for each in wrong] == ["settings"]
    assert "MAX_MODELS" in wrong[0]["message"]


def test_a_reader_that_goes_away_is_no_error(cli: Cli) -> None:
    command = subprocess.Popen(
        [*cli.argv, "config", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli.environment(),
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    assert command.wait(30) == 1
    assert command.stderr.read() == b""
    command.stderr.close()


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_answer_and_ends_the_worker(
    cli: Cli, number: signal.Signals, code: int
) -> None:
    command = subprocess.Popen(
        [*cli.argv, "chat", "begin", "wait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli.environment(),
        text=True,
    )
    assert command.stdout is not None
    assert command.stdout.read(6) == "begin "
    command.send_signal(number)
    out, err = command.communicate(timeout=30)
    assert (command.returncode, out, err) == (code, "\n", "")
    assert (cli.home / "cancelled").exists()
    assert not psutil.pid_exists(cli.worker())


def test_completion_of_names(cli: Cli) -> None:
    def complete(words: str, count: int) -> list[str]:
        variables = {"COMP_WORDS": words, "COMP_CWORD": str(count)}
        done = cli.run(_AIPG_COMPLETE="bash_complete", **variables)
        return [line.partition(",")[2] for line in done.stdout.split()]

    assert complete("aipg setup a", 2) == ["absent-backend"]
    assert complete("aipg config get models.f", 3) == ["models.folders"]
    Gguf().write(cli.home / "models" / "tiny.gguf")
    assert complete("aipg chat -m t", 3) == ["tiny"]


def test_the_console_script_is_the_module(cli: Cli) -> None:
    script = Path(sys.executable).with_name("aipg")
    if not script.exists():
        pytest.skip("the console script is not installed beside this Python")
    done = subprocess.run(
        [script, "chat", "--json", "hi"],
        input="",
        capture_output=True,
        text=True,
        env=cli.environment(),
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["text"] == "hi <u>"


def test_two_at_a_time_share_a_home(cli: Cli) -> None:
    commands = [
        subprocess.Popen(
            [*cli.argv, "chat", f"number{number}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=cli.environment(),
            text=True,
        )
        for number in range(2)
    ]
    answers = [command.communicate(timeout=60)[0] for command in commands]
    assert answers == ["number0 <u>\n", "number1 <u>\n"]
    deadline = time.monotonic() + 10
    while psutil.pid_exists(cli.worker()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(cli.worker())


def test_devices_are_listed(cli: Cli) -> None:
    """Whatever else there is, a computer has a processor."""
    (cpu,) = [each for each in cli.json("devices")["devices"] if each["type"] == "CPU"]
    assert cpu["id"] == "cpu"
    assert cpu["name"] in cli.run("devices").stdout
