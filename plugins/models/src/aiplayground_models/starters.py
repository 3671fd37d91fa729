"""The catalogue of models to start with, and which of them suit a computer: pure but for reading.

The data is in `starters.toml`. What the Hub has now may differ: `aipg pull` asks it.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, get_args

from .room import Room

Purpose = Literal["chat", "code", "vision", "embedding", "small"]
PURPOSES: tuple[str, ...] = get_args(Purpose)

MB = 10**6
PERMISSIVE = frozenset({"Apache-2.0", "MIT"})
DISK_RESERVE = 2 * 10**9
"""Bytes of the disk that a suggestion leaves free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """A model to start with. `size` (on disk) and `memory` are in bytes and approximate.

    `context` is in tokens, as the model was trained; `memory` is for 4,096 of them. `gated`: its
    licence has to be accepted on the Hub first.
    """

    id: str
    repo: str
    files: tuple[str, ...]
    licence: str
    size: int
    memory: int
    context: int
    good_for: tuple[str, ...]
    about: str
    gated: bool = False

    @property
    def command(self) -> str:
        """The command that downloads it."""
        return shlex.join(["aipg", "pull", self.repo, *self.files])


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A model, whether it fits this computer, and why."""

    starter: Starter
    fits: bool
    why: str


def read_starters() -> tuple[Starter, ...]:
    """Return the catalogue."""
    told = tomllib.loads(files(__package__).joinpath("starters.toml").read_text("utf-8"))
    return tuple(map(_starter, told["models"]))


def suggest(
    starters: Sequence[Starter], *, memory: Sequence[Room], disk: int, purpose: str | None = None
) -> list[Suggestion]:
    """Return all that are for a purpose, those that fit first, the most capable of them on top.

    It fits if one of the memories has room, the first that has is named. `disk` is in free bytes.
    More capable is what needs more memory; of two alike the one whose licence permits more.
    """
    chosen = [each for each in starters if purpose is None or purpose in each.good_for]
    judged = [_judge(each, memory, disk) for each in chosen]
    return sorted(judged, key=_rank)


def _rank(each: Suggestion) -> tuple[bool, int, bool]:
    memory = each.starter.memory
    free = each.starter.licence in PERMISSIVE
    return not each.fits, -memory if each.fits else memory, not free


def _judge(starter: Starter, memory: Sequence[Room], disk: int) -> Suggestion:
    needs = f"needs about {_gb(starter.memory)} of memory"
    room = next((each for each in memory if starter.memory <= each.free), None)
    if room is None:
        there = " and ".join(f"{_gb(each.free)} {each.where}" for each in memory)
        return Suggestion(starter, False, f"{needs}, and there are {there}")
    if starter.size + DISK_RESERVE > disk:
        return Suggestion(
            starter, False, f"takes about {_gb(starter.size)} of the disk, {_gb(disk)} are free"
        )
    return Suggestion(starter, True, f"{needs}; {_gb(room.free)} are free {room.where}")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _starter(entry: dict[str, Any]) -> Starter:
    given = {**entry, "size": entry["size"] * MB, "memory": entry["memory"] * MB}
    return Starter(
        **{**given, "files": tuple(entry["files"]), "good_for": tuple(entry["good_for"])}
    )
