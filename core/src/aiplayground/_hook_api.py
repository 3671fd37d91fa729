"""Versions of the contract: what changed with each number, and what that means for a plugin.

A plugin states the number that it was built for as `AIPG_HOOK_API` in its module (or on its
object); several that it works with as a tuple. One that states none counts as built for number 1,
the contract before there were numbers to state.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import PluginError
from .hookspecs import HOOK_API

ATTRIBUTE = "AIPG_HOOK_API"
UNSTATED = 1

OLDEST = 1
"""The oldest number whose plugins this kernel still takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one number of the contract changed for one hook.

    `text` says what is different and what to do. `breaks`: a plugin that has this hook and was
    built before cannot be used; otherwise it runs and its author is told.
    """

    number: int
    hook: str
    text: str
    breaks: bool = False


CHANGES: tuple[Change, ...] = ()
"""What came with number 2 and later, oldest first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a plugin can run here; `notes` are for its author either way."""

    usable: bool
    notes: tuple[str, ...] = ()


def stated(plugin: Any) -> tuple[int, ...]:
    """Return the numbers that a plugin was built for. Raises `PluginError` for anything else."""
    # Static: looking at a plugin must not run its properties.
    value = inspect.getattr_static(plugin, ATTRIBUTE, UNSTATED)
    numbers = value if isinstance(value, tuple) else (value,)
    if not numbers or not all(type(each) is int and each >= 1 for each in numbers):
        raise PluginError(
            f"{ATTRIBUTE} is {value!r}; state the number of the hook API, for instance "
            f"{ATTRIBUTE} = {HOOK_API}, or a tuple of several."
        )
    return tuple(sorted(numbers))


def judge(
    numbers: tuple[int, ...],
    hooks: Iterable[str],
    *,
    api: int | None = None,
    oldest: int | None = None,
    changes: Iterable[Change] | None = None,
) -> Verdict:
    """Decide whether a plugin with these hooks, built for these numbers, can run with `api`.

    What is not given is this kernel's own.
    """
    api = HOOK_API if api is None else api
    oldest = OLDEST if oldest is None else oldest
    changes = CHANGES if changes is None else changes
    if api in numbers:
        return Verdict(usable=True)
    before = [number for number in numbers if number < api]
    if not before:
        return Verdict(usable=False, notes=(_too_new(numbers, api),))
    built = before[-1]
    since = [each for each in changes if built < each.number <= api]
    if built < oldest:
        return Verdict(False, (_too_old(built, api, oldest), *map(_said, since)))
    own = set(hooks)
    told = [each for each in since if each.hook in own]
    if any(each.breaks for each in told):
        return Verdict(False, (_changed(built, api), *map(_said, told)))
    return Verdict(True, (_still_runs(built, api), *map(_said, told)))


def _said(change: Change) -> str:
    return f"Hook API {change.number}, hook '{change.hook}': {change.text}"


def _too_new(numbers: tuple[int, ...], api: int) -> str:
    return (
        f"it is built for hook API {_listed(numbers)}, and this kernel has {api}. Update the "
        f"package aiplayground, or install an older version of the plugin."
    )


def _too_old(built: int, api: int, oldest: int) -> str:
    return (
        f"it is built for hook API {built}; this kernel has {api} and takes plugins from {oldest} "
        f"on. Update the plugin. What changed since:"
    )


def _changed(built: int, api: int) -> str:
    return (
        f"it is built for hook API {built}, and hooks that it has changed up to {api}, the one of "
        f"this kernel. Update the plugin. What changed:"
    )


def _still_runs(built: int, api: int) -> str:
    return f"it is built for hook API {built} and runs with {api}, the one of this kernel."


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
