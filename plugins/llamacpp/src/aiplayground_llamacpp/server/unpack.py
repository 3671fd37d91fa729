"""Unpacking an archive from outside: nothing gets out of the folder, by no name and no link."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from aiplayground.errors import FileOperationError

MOST_BYTES = 8 * 2**30
"""Bytes that an archive may unpack to; the largest of the release takes 2 GiB."""

MOST_FILES = 10_000


def unpack(archive: Path, into: Path) -> None:
    """Unpack a `.tar.gz` or `.zip` into a folder, without the one folder that all of it is in.

    Raises `FileOperationError` for an archive that is damaged, too large, or has a name or link
    that leads out of the folder.
    """
    into.mkdir(parents=True, exist_ok=True)
    try:
        if archive.name.endswith(".zip"):
            _unzip(archive, into)
        else:
            _untar(archive, into)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise FileOperationError(
            f"{archive.name} cannot be unpacked: {error}.", details={"path": str(archive)}
        ) from error


def _untar(archive: Path, into: Path) -> None:
    with tarfile.open(archive, "r:gz") as tar:
        members = tar.getmembers()
        _check_amount(len(members), sum(member.size for member in members))
        top = common_folder([member.name for member in members])
        kept = [member for member in members if _strip(member.name, top)]
        for member in kept:
            name = _strip(member.name, top)
            _check_name(name)
            if member.islnk():
                member = member.replace(linkname=_strip(member.linkname, top))
            # "data" refuses devices, absolute names and links, and what leads out of the folder.
            tar.extract(member.replace(name=name), into, filter="data")


def _unzip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as package:
        found = package.infolist()
        _check_amount(len(found), sum(each.file_size for each in found))
        top = common_folder([each.filename for each in found])
        for each in found:
            name = _strip(each.filename, top)
            if not name or each.is_dir():
                continue
            _check_name(name)
            if stat.S_ISLNK(each.external_attr >> 16):
                raise ValueError(f"{each.filename} is a link")
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with package.open(each) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            if (mode := each.external_attr >> 16 & 0o777) & 0o100:
                target.chmod(mode & 0o755)


def common_folder(names: list[str]) -> str:
    """Return the one folder that all of these names are in, or ""."""
    parts = [PurePosixPath(name).parts for name in names]
    tops = {each[0] for each in parts if each}
    if len(tops) != 1 or not any(len(each) > 1 for each in parts):
        return ""
    top = tops.pop()
    return "" if top in ("..", "/") else top


def _strip(name: str, top: str) -> str:
    path = PurePosixPath(name)
    if top and path.parts[:1] == (top,):
        path = PurePosixPath(*path.parts[1:])
    return "" if str(path) == "." else str(path)


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"the name {name!r} leads out of the folder")


def _check_amount(files: int, size: int) -> None:
    if files > MOST_FILES or size > MOST_BYTES:
        raise ValueError(f"it has {files} files of {size} bytes, which is too much")
