"""A rule that is broken, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A plugin that breaks `rule`; `says` is in the message that its author reads.

    `hangs`: the rule is broken when the subject's patience ends.
    """

    rule: str
    plugin: Any
    says: str
    hangs: bool = False


VARIANTS: list[Variant] = []


def breaks(rule: str, says: str, *, hangs: bool = False) -> Any:
    def register(made: type) -> type:
        VARIANTS.append(Variant(rule, made(), says, hangs))
        return made

    return register
