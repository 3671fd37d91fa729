"""Which projector lets which model see: a pure choice by folder, width and name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

# Parts of a projector's name that say nothing about the model that it belongs to.
_GENERIC = re.compile(r"(?i)(^|[-_.])(mm-?proj(ector)?|model|vision|b?f16|f32|i?q\d\w*)(?=$|[-_.])")


@dataclass(frozen=True, slots=True)
class Projector:
    """A projector file; `width` is the embedding length of the models that it fits, if known."""

    path: Path
    width: int | None


def choose_projector(
    path: Path, stem: str, width: int | None, projectors: Iterable[Projector]
) -> Path | None:
    """Return the projector in the model's folder that fits it best, or None.

    One of another width cannot be used by any engine. One that is named after a model must be named
    after this one: the first words are compared, since the rest of the names differ in
    quantization. The longest common beginning wins, so that a flat folder of several models works.
    """
    fitting = [
        projector
        for projector in projectors
        if projector.path.parent == path.parent
        and (None in (width, projector.width) or width == projector.width)
        and _named_after(projector, stem)
    ]
    best = max(fitting, key=lambda projector: _rank(projector, stem), default=None)
    return best.path if best else None


def _named_after(projector: Projector, stem: str) -> bool:
    base = _base(projector)
    return not base or _first_word(base) == _first_word(stem.lower())


def _rank(projector: Projector, stem: str) -> tuple[int, str]:
    pairs = zip(_base(projector), stem.lower(), strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return common, projector.path.name  # the name makes the choice repeatable


def _base(projector: Projector) -> str:
    return _GENERIC.sub("", projector.path.stem.lower()).strip("-_.")


def _first_word(name: str) -> str:
    return re.split(r"[-_. ]", name, maxsplit=1)[0]
