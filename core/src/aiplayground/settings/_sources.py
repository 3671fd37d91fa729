"""Where settings come from: files, variables, arguments; and where exactly each key stands.

A source holds nested tables as TOML does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiplayground.errors import InvalidSettings

from ._models import service_key
from ._text import (
    BY_SERVICE,
    ENVIRONMENT_PREFIX,
    Key,
    canonical,
    dotted,
    line_of,
    parse_file,
    parse_value,
    read_text,
    split_key,
    variable_of,
)

_RESERVED = ("AIPG_TEST_",)


class Source:
    """One layer of settings; this base holds what a program passed as arguments."""

    name = "argument"

    def __init__(self, values: dict[str, Any], typed: Mapping[Key, str] | None = None) -> None:
        for table in BY_SERVICE:
            values = _with_service_keys(values, table, self)
        self.values = values
        self.typed = typed or {}
        """Values that were given as text, as they were typed, by key."""

    def where(self, key: Key) -> str:
        """Say for a person where this key stands."""
        return f"argument '{dotted(key)}'"

    def spell(self, key: Key) -> str:
        """Write the key as this source writes it."""
        return f"'{dotted(key)}'"

    def has(self, key: Key) -> bool:
        """Whether this source gives the key, or something below it."""
        return lookup(self.values, key) is not None


class FileSource(Source):
    """A TOML file. One that does not exist is empty."""

    def __init__(self, path: Path, text: str, name: str) -> None:
        self.path = path
        self.name = name
        self._text = text
        super().__init__(parse_file(path, text))

    @classmethod
    def read(cls, path: Path, name: str) -> FileSource:
        """Read a file. Raises `InvalidSettings` (not TOML) or `FileOperationError`."""
        return cls(path, read_text(path), name)

    def where(self, key: Key) -> str:
        line = line_of(self._text, key)
        return f"{self.path}, line {line}" if line else str(self.path)


class EnvironmentSource(Source):
    """Variables `AIPG_<SECTION>__<KEY>`; a value is a TOML literal if it reads as one."""

    name = "environment"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._variables: dict[Key, str] = {}
        values: dict[str, Any] = {}
        typed: dict[Key, str] = {}
        for variable in sorted(environ):
            key = _key_of_variable(variable)
            # An empty variable is one that a script did not fill in: not given.
            if key and environ[variable]:
                self._variables[key] = variable
                typed[key] = environ[variable]
                _put(values, key, parse_value(environ[variable]), variable)
        super().__init__(values, typed)

    def where(self, key: Key) -> str:
        return f"environment variable {self._variable(key)}"

    def spell(self, key: Key) -> str:
        return variable_of(key)

    def _variable(self, key: Key) -> str:
        # The key may lie above (a table) or below (an item) what the variable gives.
        for given, variable in self._variables.items():
            if given[: len(key)] == key[: len(given)]:
                return variable
        return variable_of(key)


def argument_source(arguments: Mapping[str, Any]) -> Source:
    """Make a source of arguments: dotted keys or nested tables; None counts as not given."""
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        if value is not None:
            _put(values, split_key(name), value, f"argument '{name}'")
    return Source(values)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another: tables merge, everything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below or {}, value) if both else value
    return merged


def lookup(values: Mapping[str, Any], key: Key) -> Any:
    """Return what a nested table holds at a key, or None."""
    current: Any = values
    for part in key:
        if not isinstance(current, Mapping) or part not in current:
            return None
        current = current[part]
    return current


def _key_of_variable(variable: str) -> Key | None:
    name = variable.upper()
    if not name.startswith(ENVIRONMENT_PREFIX) or name.startswith(_RESERVED):
        return None
    parts = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
    return canonical(parts) if len(parts) > 1 and all(parts) else None


def _put(values: dict[str, Any], key: Key, value: Any, origin: str) -> None:
    table = values
    for part in key[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            message = f"{origin}: '{dotted(key)}' lies below a key that already has a value."
            raise InvalidSettings(message, details={"key": dotted(key)})
    last = key[-1]
    both = isinstance(table.get(last), dict) and isinstance(value, Mapping)
    table[last] = merge(table[last], value) if both else value


def _with_service_keys(values: dict[str, Any], table: str, source: Source) -> dict[str, Any]:
    services = values.get(table)
    if not isinstance(services, Mapping):
        return values
    renamed: dict[str, Any] = {}
    for name, below in services.items():
        key = service_key(name)
        if key in renamed:
            where = source.where((table, name))
            message = f"{where}: two tables mean the service '{key}'. Keep one of them."
            raise InvalidSettings(message, details={"key": f"{table}.{key}"})
        renamed[key] = below
    return {**values, table: renamed}
