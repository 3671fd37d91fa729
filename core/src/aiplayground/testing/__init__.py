"""For authors of backends: does mine keep the contract, and what do I test mine with?

    # tests/test_conformance.py
    from aiplayground.testing import BackendConformance, Subject

    class TestConformance(BackendConformance):
        subject = Subject(plugin="my_backend.plugin", model="tiny")

`BackendConformance` needs the extra `testing` (pytest). The rest needs no test runner: fakes of
what a hook is given (`FakeContext`), a clock that jumps (`virtual_time`), faults to inject
(`FaultyKernel`, `FaultPlan`), and the rules themselves (`examine`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "BackendConformance": "conformance",
    "Examiner": "examiner",
    "FakeContext": "fakes",
    "FakeWorker": "fakes",
    "Fault": "faults",
    "FaultKind": "faults",
    "FaultPlan": "faults",
    "FaultyKernel": "injection",
    "Outcome": "examiner",
    "Result": "examiner",
    "Subject": "subject",
    "VirtualLoop": "clock",
    "all_rules": "rules",
    "examine": "examiner",
    "virtual_time": "clock",
}

if TYPE_CHECKING:
    from .clock import VirtualLoop, virtual_time
    from .conformance import BackendConformance
    from .examiner import Examiner, Outcome, Result, examine
    from .fakes import FakeContext, FakeWorker
    from .faults import Fault, FaultKind, FaultPlan
    from .injection import FaultyKernel
    from .rules import all_rules
    from .subject import Subject

__all__ = [
    "BackendConformance",
    "Examiner",
    "FakeContext",
    "FakeWorker",
    "Fault",
    "FaultKind",
    "FaultPlan",
    "FaultyKernel",
    "Outcome",
    "Result",
    "Subject",
    "VirtualLoop",
    "all_rules",
    "examine",
    "virtual_time",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
