"""What makes `aipg serve` run at login: the file that each system wants, and its commands.

Pure functions, so that every system's file can be made, shown and tested on any other. Sources:
systemd.unit(5), systemd.service(5) and systemd.syntax(7); launchd.plist(5) and launchctl(1); the
Task Scheduler schema 1.2 and `schtasks`.
"""

from __future__ import annotations

import codecs
import hashlib
import plistlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from xml.sax.saxutils import escape

from aiplayground.errors import InvalidParameters

NAME = "aiplayground"
SERVE = "serve"
ENV = "/usr/bin/env"

STOP_SECONDS = 60
"""Seconds that it may take to end: answers drain, then every service stops."""

KEPT = (
    "AIPG_HOME",
    "PATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
)
"""Environment variables that hold at login as they do now: where things lie, which programs."""

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is to run: a Python, with the variables of `KEPT`, and where it logs."""

    program: str
    environment: Mapping[str, str]
    logs: PurePath

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows the program."""
        return ("-m", "aiplayground.cli", SERVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginService:
    """A service of one system's: a file, and the commands that know it by `name`.

    Each list of commands runs in its order; of `remove`, what fails counts for nothing.
    """

    system: str
    tested: bool
    name: str
    file: Path
    content: bytes
    needs: str
    """The program that every command is for."""
    probe: Command
    """Succeeds where that program can be used."""
    install: Sequence[Command]
    remove: Sequence[Command]
    forget: Sequence[Command]
    """What follows the removal of the file."""
    status: Command

    @property
    def text(self) -> str:
        """The file as text, for a person."""
        return self.content.decode("utf-16" if self.content[:2] == b"\xff\xfe" else "utf-8")


def name_for(home: str | None) -> str:
    """Return the name of the service: a second home has one of its own."""
    return f"{NAME}-{hashlib.sha256(home.encode()).hexdigest()[:8]}" if home else NAME


def for_systemd(launch: Launch, name: str, config: Path) -> LoginService:
    """Return the user unit; `config` is the user's configuration folder (`~/.config`)."""
    unit = f"{name}.service"
    ctl = ("systemctl", "--user")
    return LoginService(
        system="systemd",
        tested=True,
        name=unit,
        file=config / "systemd" / "user" / unit,
        content=systemd_unit(launch).encode(),
        needs="systemctl",
        probe=(*ctl, "show-environment"),
        install=((*ctl, "daemon-reload"), (*ctl, "enable", unit), (*ctl, "restart", unit)),
        remove=((*ctl, "disable", "--now", unit),),
        forget=((*ctl, "daemon-reload"), (*ctl, "reset-failed", unit)),
        status=(*ctl, "--no-pager", "status", unit),
    )


def for_launchd(launch: Launch, name: str, home: Path, uid: int) -> LoginService:
    """Return the launch agent of a macOS user; `home` is the user's home folder."""
    label = f"org.{name}.serve"
    domain = f"gui/{uid}"
    file = home / "Library" / "LaunchAgents" / f"{label}.plist"
    return LoginService(
        system="launchd",
        tested=False,
        name=label,
        file=file,
        content=launch_agent(launch, label),
        needs="launchctl",
        probe=("launchctl", "print", domain),
        install=(("launchctl", "bootstrap", domain, str(file)),),
        remove=(("launchctl", "bootout", f"{domain}/{label}"),),
        forget=(),
        status=("launchctl", "print", f"{domain}/{label}"),
    )


def for_windows(launch: Launch, name: str, data: Path, user: str) -> LoginService:
    """Return the scheduled task of a Windows user; `data` is where its file is kept."""
    file = data / f"{name}.xml"
    return LoginService(
        system="Task Scheduler",
        tested=False,
        name=name,
        file=file,
        content=scheduled_task(launch, user),
        needs="schtasks",
        probe=("schtasks", "/Query", "/FO", "CSV", "/NH"),
        install=(
            ("schtasks", "/Create", "/TN", name, "/XML", str(file), "/F"),
            ("schtasks", "/Run", "/TN", name),
        ),
        remove=(("schtasks", "/End", "/TN", name), ("schtasks", "/Delete", "/TN", name, "/F")),
        forget=(),
        status=("schtasks", "/Query", "/TN", name, "/V", "/FO", "LIST"),
    )


def systemd_unit(launch: Launch) -> str:
    """Write a user unit. It says itself when it serves (`READY=1`), and restarts when it fails."""
    line = [launch.program, *launch.arguments]
    if set(launch.program) & set("'\"\\"):  # systemd takes them in arguments alone
        line.insert(0, ENV)
    # `:` has every `$` stand for itself, which versions before 244 do not know.
    literally = ":" if any("$" in part for part in line) else ""
    environment = [
        f"Environment={systemd_quoted(f'{name}={value}')}"
        for name, value in launch.environment.items()
    ]
    return "\n".join(
        [
            "[Unit]",
            "Description=AI Playground",
            "StartLimitIntervalSec=300",
            "StartLimitBurst=5",
            "",
            "[Service]",
            "Type=notify",
            f"ExecStart={literally}{' '.join(map(systemd_quoted, line))}",
            *environment,
            "Restart=on-failure",
            "RestartSec=5",
            "TimeoutStartSec=120",
            # The kernel ends its workers itself; what it leaves behind is killed with it.
            "KillMode=mixed",
            f"TimeoutStopSec={STOP_SECONDS}",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def systemd_quoted(text: str) -> str:
    """Quote one word of a unit: whole, with `%` doubled since it begins a specifier.

    Raises `InvalidParameters` for what no unit can hold.
    """
    if not text.isprintable():
        raise InvalidParameters(
            f"{text!r} has characters that cannot stand in a systemd unit. Choose another folder."
        )
    inner = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{inner}"'


def launch_agent(launch: Launch, label: str) -> bytes:
    """Write a property list: at login, and again after a failure."""
    output = str(launch.logs / "serve.out")
    return plistlib.dumps(
        {
            "Label": label,
            "ProgramArguments": [launch.program, *launch.arguments],
            "EnvironmentVariables": dict(launch.environment),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ExitTimeOut": STOP_SECONDS,
            "StandardOutPath": output,
            "StandardErrorPath": output,
        },
        sort_keys=False,
    )


def scheduled_task(launch: Launch, user: str) -> bytes:
    """Write a task in UTF-16, as `schtasks` wants it. A task has no environment of its own."""
    home = launch.environment.get("AIPG_HOME")
    arguments = [*launch.arguments[:-1], *(["--home", home] if home else []), SERVE]
    text = _TASK.format(
        user=escape(user),
        program=escape(launch.program),
        arguments=escape(subprocess.list2cmdline(arguments)),
    )
    return codecs.BOM_UTF16_LE + text.encode("utf-16-le")


_TASK = """\
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>AI Playground</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
      <UserId>{user}</UserId>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>{user}</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>5</Count>
    </RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{program}</Command>
      <Arguments>{arguments}</Arguments>
    </Exec>
  </Actions>
</Task>
"""
