"""Memory admission: whether a model fits before it is loaded, and what makes room for it.

Decisions are pure (`_decide`), what is free is measured (`_measure`), and `Admission` holds the
table of who was promised what. Two loads at a time do not count the same free memory: what was
promised and not yet taken counts as taken.
"""

from __future__ import annotations

from ._decide import (
    LIMIT,
    MAIN,
    Decision,
    Evict,
    Holder,
    Load,
    Refuse,
    Release,
    Wait,
    decide,
    shortage,
)
from ._desk import Admission
from ._plan import LoadPlan, Outcome, Step, amount, parts_of
from ._rough import make_admission, rough_estimate

__all__ = [
    "LIMIT",
    "MAIN",
    "Admission",
    "Decision",
    "Evict",
    "Holder",
    "Load",
    "LoadPlan",
    "Outcome",
    "Refuse",
    "Release",
    "Step",
    "Wait",
    "amount",
    "decide",
    "make_admission",
    "parts_of",
    "rough_estimate",
    "shortage",
]
