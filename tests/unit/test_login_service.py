"""`aipg service`: the files of every system, and what is done with this one's."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath
from xml.etree import ElementTree as ET

import pytest
from tests.cli_fakes import Cli

from aiplayground.cli._login_files import (
    Launch,
    for_launchd,
    for_windows,
    launch_agent,
    name_for,
    scheduled_task,
    systemd_quoted,
    systemd_unit,
)
from aiplayground.cli._notify import READY, Notifier
from aiplayground.errors import InvalidParameters

ODD = "/home/a b/%i $HOME \"q\" 'p' \\n ü;x"

SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> "$FOLDER/asked"
case "$*" in
  *show-environment*) [ -e "$FOLDER/no-bus" ] && { echo "Failed to connect to bus" >&2; exit 1; } ;;
  *restart*) [ -e "$FOLDER/fails" ] && { echo "Job failed. See journalctl." >&2; exit 1; } ;;
  *status*) echo "active (running)" ;;
esac
exit 0
"""


def launch(program: str = "/usr/bin/python3", home: str = "/srv/ai") -> Launch:
    environment = {"AIPG_HOME": home, "PATH": "/usr/bin"}
    return Launch(program=program, environment=environment, logs=PurePosixPath("/logs"))


def lines(unit: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{key}=")]


def unquoted(text: str) -> str:
    """Read one quoted word as systemd.syntax(7) says."""
    inner = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', text)
    assert inner is not None, text
    return re.sub(r"\\(.)", r"\1", inner[1]).replace("%%", "%")


@pytest.mark.parametrize("text", ["plain", ODD, "%", "\\", '"', "a=b", " ", "$$"])
def test_a_word_of_a_unit_reads_back(text: str) -> None:
    quoted = systemd_quoted(text)
    assert unquoted(quoted) == text
    assert not re.search(r"(?<!%)(%%)*%(?!%)", quoted[1:-1])  # no specifier is left


@pytest.mark.parametrize("text", ["two\nlines", "null\0"])
def test_what_no_unit_can_hold_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameters, match="cannot stand in a systemd unit"):
        systemd_quoted(text)


def test_a_unit_runs_this_python_with_its_home() -> None:
    unit = systemd_unit(launch(home=ODD))
    assert lines(unit, "ExecStart") == ['"/usr/bin/python3" "-m" "aiplayground.cli" "serve"']
    kept = [unquoted(each) for each in lines(unit, "Environment")]
    assert kept == [f"AIPG_HOME={ODD}", "PATH=/usr/bin"]
    assert lines(unit, "Type") == ["notify"]
    assert lines(unit, "Restart") == ["on-failure"]
    # A dollar would be a variable's: then nothing is replaced in the line.
    assert lines(systemd_unit(launch("/opt/$x/python")), "ExecStart")[0].startswith(':"/opt/$x/')


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(
    "folder", ["plain", "a b", "100%d", "do$HOME", 'q"u', "a'b", "back\\slash", "ü"]
)
def test_systemd_itself_finds_no_fault_in_a_unit(tmp_path: Path, folder: str) -> None:
    program = tmp_path / folder / "python"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)

    def verify(name: str, text: str) -> subprocess.CompletedProcess[str]:
        unit = tmp_path / name
        unit.write_text(text)
        return subprocess.run(
            ["systemd-analyze", "--user", "--man=no", "verify", str(unit)],
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)},
            timeout=60,
            check=False,
        )

    text = systemd_unit(launch(str(program), home=str(tmp_path / folder)))
    done = verify("aiplayground.service", text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # It does look.
    assert "wrong.service" in verify("wrong.service", text.replace("notify", "sometimes")).stderr


def test_a_launch_agent_says_the_same() -> None:
    read = plistlib.loads(launch_agent(launch(home=ODD), "org.x"))
    assert read["ProgramArguments"] == ["/usr/bin/python3", "-m", "aiplayground.cli", "serve"]
    assert read["EnvironmentVariables"]["AIPG_HOME"] == ODD
    assert read["KeepAlive"] == {"SuccessfulExit": False}
    service = for_launchd(launch(), "aiplayground", Path("/Users/x"), 501)
    assert str(service.file) == "/Users/x/Library/LaunchAgents/org.aiplayground.serve.plist"
    assert service.install[0][:3] == ("launchctl", "bootstrap", "gui/501")
    assert not service.tested


def test_a_scheduled_task_says_the_same() -> None:
    what = Launch(
        program=r"C:\Program Files\R&D\python.exe",
        environment={"AIPG_HOME": "C:\\my <home>\\"},
        logs=PureWindowsPath("C:/logs"),
    )
    content = scheduled_task(what, "me & you")
    assert content.startswith(b"\xff\xfe")
    space = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
    root = ET.fromstring(content.decode("utf-16"))
    command = root.findtext(f".//{space}Command")
    arguments = root.findtext(f".//{space}Arguments")
    assert command == what.program
    assert arguments == '-m aiplayground.cli --home "C:\\my <home>\\\\" serve'
    assert {each.text for each in root.iter(f"{space}UserId")} == {"me & you"}
    service = for_windows(what, "aiplayground", Path("data"), "me")
    assert service.install[0][:2] == ("schtasks", "/Create")
    assert not service.tested
    assert "<Task" in service.text


def test_each_home_has_a_service_of_its_own() -> None:
    assert name_for(None) == name_for("") == "aiplayground"
    assert len({name_for(None), name_for("/a"), name_for("/b")}) == 3
    assert re.fullmatch(r"aiplayground-[0-9a-f]{8}", name_for("/a"))


# What is done, with a systemctl that takes note -------------------------------------------------


class Home(Cli):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.have_systemctl()

    def have_systemctl(self) -> None:
        program = self.bin / "systemctl"
        program.write_text(SYSTEMCTL)
        program.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{self.bin}{os.pathsep}/nowhere"
        config = str(self.folder / "config")
        given = {"PATH": path, "FOLDER": str(self.folder), "XDG_CONFIG_HOME": config}
        return super().environment(**{**given, **more})

    @property
    def unit(self) -> Path:
        name = f"{name_for(str(self.home))}.service"
        return self.folder / "config" / "systemd" / "user" / name

    @property
    def asked(self) -> list[str]:
        """What systemctl was asked since the last time."""
        note = self.folder / "asked"
        found = note.read_text().splitlines() if note.exists() else []
        note.unlink(missing_ok=True)
        return [line.removeprefix("--user ") for line in found]


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_dry_run_prints_the_file_and_changes_nothing(home: Home) -> None:
    done = home.run("service", "install", "--dry-run")
    assert done.returncode == 0
    assert f'Environment="AIPG_HOME={home.home}"' in done.stdout
    assert str(home.unit) in done.stderr
    assert not home.unit.exists()
    assert home.asked == []
    shown = home.json("service", "install", "--dry-run")
    assert shown["content"].strip() == done.stdout.strip()


def test_it_is_installed_shown_and_taken_away(home: Home) -> None:
    name = home.unit.name
    assert "is not installed" in home.run("service", "status").stdout
    assert "is not installed" in home.run("service", "uninstall").stdout
    assert home.asked == []
    assert home.run("service", "install").returncode == 0
    assert home.asked == ["show-environment", "daemon-reload", f"enable {name}", f"restart {name}"]
    assert "Type=notify" in home.unit.read_text()
    told = home.json("service", "status")
    assert (told["installed"], told["status"], told["url"]) == (True, "active (running)", None)
    home.asked  # noqa: B018  # what was asked until now is not what follows
    assert f"{name} is gone" in home.run("service", "uninstall").stdout
    assert home.asked[1] == f"disable --now {name}"
    assert not home.unit.exists()


def test_what_does_not_come_up_is_taken_away_again(home: Home) -> None:
    (home.folder / "fails").touch()
    done = home.run("service", "install")
    assert done.returncode == 1
    assert "Job failed. See journalctl." in done.stderr
    assert "Nothing was installed" in done.stderr
    assert not home.unit.exists()
    assert home.asked[-1] == f"disable --now {home.unit.name}"


def test_where_systemd_is_missing_it_says_what_else_there_is(home: Home) -> None:
    (home.bin / "systemctl").unlink()
    done = home.run("service", "install")
    assert done.returncode == 1
    assert "This system has no systemd (systemctl is not there)" in done.stderr
    assert "aipg serve --detach" in done.stderr
    assert home.json("service", "install", code=1)["code"] == -3
    home.have_systemctl()
    (home.folder / "no-bus").touch()
    done = home.run("service", "install")
    assert done.returncode == 1
    assert "systemd does not run for this user (Failed to connect to bus)" in done.stderr
    assert not home.unit.exists()


def test_a_kernel_that_serves_already_is_said(home: Home) -> None:
    runtime = home.home / "runtime"
    runtime.mkdir()
    (runtime / "token").write_text("t")
    note = {"pid": os.getpid(), "url": "http://127.0.0.1:1", "token_file": str(runtime / "token")}
    (runtime / "serve.json").write_text(json.dumps(note))
    done = home.run("service", "install")
    assert done.returncode == 1
    assert "serves already, on http://127.0.0.1:1" in done.stderr
    assert not home.unit.exists()


# sd_notify -----------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    address = f"@{tmp_path}" if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0", 1))
        listener.settimeout(10)
        environ = {"NOTIFY_SOCKET": address, "OTHER": "1"}
        notifier = Notifier(environ)
        notifier.tell(READY)
        assert listener.recv(100) == b"READY=1"
    assert environ == {"OTHER": "1"}  # no worker is taken for the service
    notifier.tell(READY)  # nobody listens any more, and that is all
    Notifier({}).tell(READY)
