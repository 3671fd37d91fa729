"""The service at login on this computer: which system runs it, and what is done to it."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from aiplayground.errors import FileOperationError, ServiceNotAvailable
from aiplayground.paths import HOME_VARIABLE, file_error

from ._login_files import (
    KEPT,
    Command,
    Launch,
    LoginService,
    for_launchd,
    for_systemd,
    for_windows,
    name_for,
)

if TYPE_CHECKING:
    from ._app import App

PATIENCE = 180.0
"""Seconds that a command of the system may take: systemd waits until the program serves."""

INSTEAD = (
    "Run `aipg serve --detach` when you log in, or `aipg serve` under a supervisor of your own; "
    "`aipg service install --dry-run` prints what would have been installed."
)


def service_here(app: App, environ: Mapping[str, str] = os.environ) -> LoginService:
    """Return the service of this home on this system."""
    launch = launch_of(app, environ)
    name = name_for(launch.environment.get(HOME_VARIABLE))
    home = Path.home()
    if sys.platform == "darwin":
        return for_launchd(launch, name, home, os.getuid())
    if sys.platform == "win32":
        return for_windows(launch, name, app.paths.data, getpass.getuser())
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return for_systemd(launch, name, config)


def launch_of(app: App, environ: Mapping[str, str]) -> Launch:
    """Return what is to run: this Python and this program, with this home."""
    kept = {name: environ[name] for name in KEPT if environ.get(name)}
    chosen = app.home or environ.get(HOME_VARIABLE)
    if chosen:
        kept[HOME_VARIABLE] = str(app.paths.config.parent)
    return Launch(program=sys.executable, environment=kept, logs=app.paths.logs)


def install(service: LoginService, running: str | None) -> None:
    """Write the file and have the system start it, now and at each login.

    `running`: where a kernel of this home serves already. Raises `ServiceNotAvailable` when the
    system cannot, with nothing left behind.
    """
    _check_usable(service)
    if running and not service.file.exists():
        raise ServiceNotAvailable(
            f"A kernel of this home serves already, on {running}. Run `aipg stop`, then this again."
        )
    try:
        service.file.parent.mkdir(parents=True, exist_ok=True)
        if service.system == "launchd":
            _run(service.remove)  # it refuses to load what is loaded
        service.file.write_bytes(service.content)
    except OSError as error:
        raise file_error("write", service.file, error) from error
    try:
        _run(service.install, must=True)
    except ServiceNotAvailable:
        _run(service.remove)
        _delete(service.file)
        raise


def uninstall(service: LoginService) -> bool:
    """Stop it and take it away; False if it was not there. Raises `ServiceNotAvailable`."""
    if not service.file.exists():
        return False
    _check_usable(service)
    _run(service.remove)
    _delete(service.file)
    _run(service.forget)
    return True


def state(service: LoginService) -> str | None:
    """Return what the system says about it; None if it is not installed."""
    if not service.file.exists():
        return None
    _check_usable(service)
    done = _call(service.status)
    return (done.stdout + done.stderr).strip()


def _check_usable(service: LoginService) -> None:
    if which(service.needs) is None:
        raise ServiceNotAvailable(
            f"This system has no {service.system} ({service.needs} is not there). {INSTEAD}",
            details={"system": service.system},
        )
    done = _call(service.probe)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise ServiceNotAvailable(
            f"{service.system} does not run for this user ({said or 'it gave no reason'}). Log in "
            f"as this user rather than with su or sudo. {INSTEAD}",
            details={"system": service.system},
        )


def _run(commands: Iterable[Command], *, must: bool = False) -> None:
    for command in commands:
        done = _call(command)
        if must and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise ServiceNotAvailable(
                f"`{' '.join(command)}` failed: {said or f'exit code {done.returncode}'}. "
                f"Nothing was installed. {INSTEAD}",
                details={"command": list(command), "code": done.returncode},
            )


def _call(command: Command) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"`{' '.join(command)}` did not end within {PATIENCE:.0f} s. Try again."
        raise ServiceNotAvailable(message, details={"command": list(command)}) from error
    except OSError as error:
        raise file_error("run", Path(command[0]), error) from error


def _delete(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise FileOperationError(
            f"Cannot remove {file}: {error.strerror or error}. Remove it by hand.",
            details={"path": str(file)},
        ) from error
