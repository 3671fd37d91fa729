"""Everything that is deprecated, as data: since when, what to use instead, when it goes.

One table and one helper, after trio's `_deprecate`. A test fails once the version of the
package reaches a `removal`: remove the thing and its line together.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any


class AIPlaygroundDeprecationWarning(FutureWarning):
    """Something of AI Playground that goes in a later version. Shown by default, as trio's is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    """One deprecated name; `since` and `removal` are versions of the package `aiplayground`.

    `name`: where it was, for instance `aiplayground.Old`; a hook is `aiplayground.hookspecs.old`.
    `instead`: what to use, as a dotted name where a name of the package was only moved.
    """

    name: str
    since: str
    removal: str
    instead: str


DEPRECATIONS: tuple[Deprecation, ...] = ()


def find(name: str) -> Deprecation | None:
    """Return the entry of a dotted name, or None if that is not deprecated."""
    return next((each for each in DEPRECATIONS if each.name == name), None)


def text(entry: Deprecation, caller: str) -> str:
    """Say who uses what, since when that is deprecated, and what to use instead."""
    return (
        f"{caller} uses {entry.name}, which is deprecated since AI Playground {entry.since} and "
        f"goes with {entry.removal}; use {entry.instead} instead."
    )


def hook_notes(hooks: Iterable[str], plugin: str) -> tuple[str, ...]:
    """Return what to tell the author of a plugin about the deprecated hooks that it has."""
    entries = (find(f"aiplayground.hookspecs.{hook}") for hook in sorted(hooks))
    return tuple(text(entry, plugin) for entry in entries if entry is not None)


def warn_deprecated(entry: Deprecation, *, stacklevel: int = 2) -> None:
    """Warn whoever called the caller, by the name of their distribution.

    Python's own filters see to it that each place warns once.
    """
    frame = sys._getframe(stacklevel)  # noqa: SLF001  # as `warnings` itself finds the caller
    caller = distribution_of(str(frame.f_globals.get("__name__", "")))
    warnings.warn(
        text(entry, caller), category=AIPlaygroundDeprecationWarning, stacklevel=stacklevel + 1
    )


def distribution_of(module: str) -> str:
    """Return the distribution that a module belongs to; the module itself if it is in none."""
    package = module.partition(".")[0]
    owners = metadata.packages_distributions().get(package, [])
    return f"{owners[0]} ({module})" if owners else module or "a program"


def moved(name: str) -> Any:
    """Return what took the place of a name of the package, with a warning for who asked.

    Called by a module's `__getattr__`. Raises `AttributeError` for a name that never was.
    """
    module, _, attribute = name.rpartition(".")
    entry = find(name)
    if entry is None:
        raise AttributeError(f"module {module!r} has no attribute {attribute!r}")
    warn_deprecated(entry, stacklevel=3)
    home, _, attribute = entry.instead.rpartition(".")
    return getattr(import_module(home), attribute)


def outlived(version: str, entries: Iterable[Deprecation]) -> list[Deprecation]:
    """Return the entries whose removal is due with this version."""
    return [each for each in entries if _numbers(version) >= _numbers(each.removal)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
