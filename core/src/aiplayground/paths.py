"""Where things lie: every directory of one home.

Without a home, each directory is where the operating system wants it (platformdirs: the XDG base
directory specification on Linux, `~/Library` on macOS, `%LOCALAPPDATA%` on Windows). With one
(`AIPG_HOME`, or an argument), all of them lie under it: portable use, and tests.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import FileOperationError, InvalidParameters

APP_NAME = "aiplayground"
HOME_VARIABLE = "AIPG_HOME"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PRIVATE = 0o700

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ADVICE = {
    errno.EROFS: ("the file system is read-only", "choose another place with AIPG_HOME"),
    errno.EACCES: ("permission is denied", "change its owner, or choose another with AIPG_HOME"),
    errno.EPERM: ("permission is denied", "change its owner, or choose another with AIPG_HOME"),
    errno.EEXIST: ("a file of that name is in the way", "move the file away"),
    errno.ENOTDIR: ("a part of the path is a file", "move the file away"),
    errno.EISDIR: ("it is a directory", "move the directory away"),
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.ENAMETOOLONG: ("the path is too long", "choose a shorter one with AIPG_HOME"),
}


@dataclass(frozen=True, slots=True)
class Paths:
    """Every directory of one home. Nothing is created before `ensure`."""

    config: Path
    """The user's settings."""
    data: Path
    """What was installed: engines, environments."""
    cache: Path
    """What can be made or fetched again."""
    state: Path
    """What a kernel remembers: the ledger of its processes. Private (0700)."""
    logs: Path
    """One file for each service, and the kernel's own."""
    models: Path
    """Model files that the program downloads, and that the user puts there."""
    runtime: Path
    """Address, token and lock of a running kernel. Private (0700)."""
    system_config: Path
    """The settings file of the whole machine: read, never written."""

    @classmethod
    def resolve(
        cls, home: Path | str | None = None, environ: Mapping[str, str] = os.environ
    ) -> Paths:
        """Return the directories: an explicit home, else `AIPG_HOME`, else the platform's.

        The platform's own variables (such as `XDG_CONFIG_HOME`) are those of this process,
        whatever `environ` says. Raises `FileOperationError` when the home names no known user.
        """
        chosen = home or environ.get(HOME_VARIABLE)
        return cls._under(_absolute(Path(chosen))) if chosen else cls._of_platform()

    @classmethod
    def _under(cls, home: Path) -> Paths:
        return cls(
            config=home / "config",
            data=home / "data",
            cache=home / "cache",
            state=home / "state",
            logs=home / "logs",
            models=home / "models",
            runtime=home / "runtime",
            system_config=home / "system" / "config.toml",
        )

    @classmethod
    def _of_platform(cls) -> Paths:
        from platformdirs import PlatformDirs

        dirs = PlatformDirs(APP_NAME, appauthor=False)
        return cls(
            config=dirs.user_config_path,
            data=dirs.user_data_path,
            cache=dirs.user_cache_path,
            state=dirs.user_state_path,
            logs=dirs.user_log_path,
            models=dirs.user_data_path / "models",
            runtime=_runtime_folder(dirs.user_state_path),
            system_config=dirs.site_config_path / "config.toml",
        )

    @property
    def config_file(self) -> Path:
        """The user's settings file."""
        return self.config / "config.toml"

    @property
    def manifests(self) -> Path:
        """Where backends lie that are one file each."""
        return self.config / "backends"

    @property
    def presets(self) -> Path:
        """Where the user's own presets lie, one file each."""
        return self.config / "presets"

    @property
    def conversations(self) -> Path:
        """Where the file of the conversations lies. Private (0700)."""
        return self.data / "conversations"

    def service_data(self, name: str) -> Path:
        """Where a service's engine keeps its own files."""
        return self.data / "services" / _checked(name)

    def service_cache(self, name: str) -> Path:
        """Where a service keeps what can be made again."""
        return self.cache / "services" / _checked(name)

    def service_log(self, name: str) -> Path:
        """The log file of a service."""
        return self.logs / f"{_checked(name)}.log"

    def ensure(self) -> None:
        """Create what is missing. Raises `FileOperationError` with the cause and the next step."""
        for folder in (self.config, self.data, self.cache, self.logs, self.models):
            make_folder(folder)
        for folder in (self.state, self.runtime):
            make_folder(folder, private=True)


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Create a folder and its parents; a private one is the user's alone (0700) and writable.

    Raises `FileOperationError` when that is not possible, or when a private one is another user's.
    """
    try:
        folder.mkdir(mode=_PRIVATE if private else 0o777, parents=True, exist_ok=True)
        if private:
            _make_private(folder)
    except OSError as error:
        raise file_error("create the folder", folder, error) from error


def is_disk_full(error: OSError) -> bool:
    """Say whether it is for want of room, and no fault of what was to be done."""
    return error.errno in _DISK_FULL


def file_error(doing: str, path: Path, error: OSError) -> FileOperationError:
    """Explain an `OSError`; `doing` completes "Cannot ...". Disk full is in `details.reason`."""
    number = error.errno or 0
    cause, advice = _ADVICE.get(number, (error.strerror or str(error), "check the path"))
    details = {"path": str(path), "errno": errno.errorcode.get(number, str(number))}
    if is_disk_full(error):
        details["reason"] = "disk-full"
    message = f"Cannot {doing} {path}: {cause}. {advice[:1].upper()}{advice[1:]}, then try again."
    return FileOperationError(message, details=details)


def _make_private(folder: Path) -> None:
    if os.name != "posix":  # pragma: no cover - profile folders on Windows are private already
        return
    status = folder.stat()
    # A folder that someone else made first in a shared place (/tmp) would hand them our token.
    if status.st_uid != os.geteuid() and os.geteuid() != 0:
        raise PermissionError(errno.EACCES, "belongs to another user")
    if stat.S_IMODE(status.st_mode) != _PRIVATE:
        # A file system without permissions (a memory stick) refuses; its mount decides there.
        with suppress(PermissionError):
            folder.chmod(_PRIVATE)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EROFS if _read_only(folder) else errno.EACCES, "not writable")


def _read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _runtime_folder(state: Path) -> Path:
    # Not platformdirs' fallback: that one warns, and lies in a /tmp which others share.
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "-")
    usable = folder.is_absolute() and os.access(folder, os.W_OK | os.X_OK)
    return folder / APP_NAME if usable else state / "run"


def _absolute(home: Path) -> Path:
    try:
        return home.expanduser().absolute()
    except RuntimeError as error:
        message = f"The home {home} names a user that does not exist. Give a full path instead."
        raise FileOperationError(message, details={"path": str(home)}) from error


def _checked(name: str) -> str:
    # Names become file names: nothing that climbs out of the folder.
    if not _NAME.fullmatch(name):
        message = f"{name!r} is no service name: use letters, digits, '-', '_' and '.'."
        raise InvalidParameters(message, details={"name": name})
    return name
