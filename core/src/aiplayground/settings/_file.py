"""Changing the user's settings file: comments stay, and nothing invalid is ever written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from aiplayground.errors import FileOperationError, InvalidSettings, suggest
from aiplayground.paths import Paths, file_error, make_folder

from ._errors import field_names, is_secret, model_at
from ._layers import Layers, own_settings
from ._models import KernelSettings, ServiceSettings
from ._sources import FileSource, Source, argument_source
from ._text import Key, canonical, dotted, parse_value, read_text, split_key

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another program that changes the same file."""

Services = Mapping[str, type[BaseModel]]


def set_value(paths: Paths, key: str, text: str, *, services: Services | None = None) -> Any:
    """Set one key in the user's file and return the value as written.

    `text` is a TOML literal, else text; where the setting is a list, commas do too.
    `services` maps the installed services to their models; without it a backend's own keys are
    not checked. With a secret in it, the file is the user's alone. Raises `InvalidSettings` (the
    file stays as it was) or `FileOperationError`.
    """
    path = split_key(key)
    _check_key(path, services)
    refusal: InvalidSettings | None = None
    with _editing(paths) as (file, document, write):
        now = FileSource(file, document.as_string(), "user file")
        for value in _readings(text):
            try:
                _check(paths, [now, argument_source({key: value})], services)
            except InvalidSettings as error:
                refusal = refusal or error
                continue
            _put(document, path, value)
            changed = document.as_string()
            # What will be read later is the text, so the text is what must hold.
            _check(paths, [FileSource(file, changed, "user file")], services)
            write(changed)
            if is_secret(KernelSettings, path):
                file.chmod(0o600)  # it may have been open to others until now
            return value
    assert refusal is not None
    raise refusal


def unset_value(paths: Paths, key: str) -> None:
    """Take one key out of the user's file, known or not: also the way to mend it.

    Raises `InvalidSettings` when the file does not have it.
    """
    path = split_key(key)
    with _editing(paths) as (file, document, write):
        table = _table(document, path[:-1])
        name = _spelled(table, path) if table is not None else None
        if table is None or name is None:
            message = f"'{key}' is not set in {file}, so there is nothing to unset."
            raise InvalidSettings(message, details={"key": key, "path": str(file)})
        del table[name]
        write(document.as_string())


@contextmanager
def _editing(paths: Paths) -> Iterator[tuple[Path, TOMLDocument, Callable[[str], None]]]:
    import filelock
    import tomlkit

    make_folder(paths.config)
    make_folder(paths.state, private=True)
    # A link (as dotfile managers make) stays a link: what it points to is replaced.
    file = paths.config_file.resolve()
    try:
        with filelock.FileLock(paths.state / "config.lock", timeout=LOCK_TIMEOUT):
            text = read_text(file)
            FileSource(file, text, "user file")
            yield file, tomlkit.parse(text), lambda changed: _replace(file, changed)
    except filelock.Timeout as error:
        message = f"Another program has been changing {file} for {LOCK_TIMEOUT:.0f} s. Try again."
        raise FileOperationError(message, details={"path": str(file)}) from error


def _readings(text: str) -> Iterator[Any]:
    """Yield what typed text can mean, likeliest first; the settings' models choose."""
    value = parse_value(text)
    yield value
    if not isinstance(value, str):
        yield text
    elif value == text:
        yield [part.strip() for part in text.split(",") if part.strip()]


def _check_key(key: Key, services: Services | None) -> None:
    if len(key) > 1 and key[0] == "services" and services is not None:
        known = [canonical(("services", name))[1] for name in services]
        if key[1] not in known:
            close = suggest(key[1], known) or f" There is: {', '.join(known) or 'none'}."
            raise InvalidSettings(f"No installed backend is called '{key[1]}'.{close}")
    model = ServiceSettings if _is_service(key) else model_at(KernelSettings, key)
    if model or key in (("services",), ("attach",)):
        names = ", ".join(field_names(model or KernelSettings))
        raise InvalidSettings(f"'{dotted(key)}' is a table. Set one of its keys: {names}.")


def _is_service(key: Key) -> bool:
    return len(key) == 2 and key[0] == "services"


def _check(paths: Paths, sources: Sequence[Source], services: Services | None) -> None:
    layers = Layers([FileSource.read(paths.system_config, "system file"), *sources])
    layers.kernel()
    for name, model in (services or {}).items():
        own_settings(layers, name, model)


def _put(document: TOMLDocument, key: Key, value: Any) -> None:
    import tomlkit

    table: MutableMapping[str, Any] = document
    for depth in range(1, len(key)):
        name = _spelled(table, key[:depth]) or key[depth - 1]
        if name not in table:
            # `[services]` alone would be noise above `[services.llamacpp-backend]`.
            table[name] = tomlkit.table(is_super_table=depth < len(key) - 1)
        below = table[name]
        if not isinstance(below, MutableMapping):
            message = f"'{dotted(key[:depth])}' is set to a value. Unset it first."
            raise InvalidSettings(message, details={"key": dotted(key)})
        table = below
    table[_spelled(table, key) or key[-1]] = value


def _table(document: TOMLDocument, key: Key) -> MutableMapping[str, Any] | None:
    table: MutableMapping[str, Any] = document
    for depth in range(1, len(key) + 1):
        name = _spelled(table, key[:depth])
        below = table[name] if name else None
        if not isinstance(below, MutableMapping):
            return None
        table = below
    return table


def _spelled(table: MutableMapping[str, Any], key: Key) -> str | None:
    """Return the last part of a key as this table writes it, or None if it does not."""
    for name in table:
        if canonical((*key[:-1], str(name))) == key:
            return str(name)
    return None


def _replace(file: Path, text: str) -> None:
    try:
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).chmod(mode)
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise file_error("write the settings file", file, error) from error
