"""The reports of conformance tests in a pytest run: a summary, and `--conformance-report=FILE`.

An entry point of pytest: it imports nothing, and adds one option and one section that shows only
when conformance tests ran.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

OPTION = "--conformance-report"
PHASES = ("passed", "failed", "skipped", "error")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("aiplayground").addoption(
        OPTION,
        metavar="FILE",
        default=None,
        help="write what the conformance tests found to FILE, as JSON",
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the report, and write it if asked to."""
    from .report import RECORD, as_json, lines

    records = [
        value
        for phase in PHASES
        for report in terminalreporter.stats.get(phase, ())
        if getattr(report, "when", "") == "call"
        for key, value in report.user_properties
        if key == RECORD
    ]
    target = config.getoption(OPTION)
    if not records and target is None:
        return
    from .rules import all_rules

    order = list(all_rules())
    records.sort(key=lambda each: (each["subject"], order.index(each["id"])))
    terminalreporter.section("conformance")
    for line in lines(records):
        terminalreporter.line(line)
    if target is not None:
        _write(Path(target), as_json(records, _hook_api()))
        terminalreporter.line(f"written to {target}")


def _hook_api() -> int:
    from aiplayground.hookspecs import HOOK_API

    return HOOK_API


def _write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
