"""The report: for a person, by level; for a program, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

FORMAT = 1
"""The number of the JSON report's shape; it grows when a field changes its meaning or goes."""

RECORD = "conformance"
"""The key under which a test run carries the records of its checks."""

WORDS = {
    "passed": "passed",
    "failed": "FAILED",
    "not-applicable": "not applicable",
    "skipped": "skipped",
    "blocked": "blocked",
}

Record = dict[str, Any]
"""One check: subject, service, id, level, result, message, hook, seconds, wants, mend, page."""


def record(outcome: Any, subject: str, service: str) -> Record:
    """Return an `Outcome` as JSON-serialisable values."""
    rule = outcome.rule
    return {
        "subject": subject,
        "service": service,
        "id": rule.id,
        "level": rule.level.value,
        "result": outcome.result.value,
        "message": outcome.message,
        "hook": outcome.hook,
        "seconds": outcome.seconds,
        "wants": rule.wants,
        "mend": rule.mend,
        "page": rule.page,
    }


def as_json(records: Iterable[Record], hook_api: int) -> dict[str, Any]:
    """Return the report: one entry for each subject, with its checks and how many ended how."""
    return {
        "format": FORMAT,
        "hookApi": hook_api,
        "subjects": [
            {
                "subject": subject,
                "service": checks[0]["service"],
                "conforms": not any(each["result"] in ("failed", "blocked") for each in checks),
                "counts": dict(Counter(each["result"] for each in checks)),
                "rules": [_without(each, "subject", "service") for each in checks],
            }
            for subject, checks in _by(records, "subject").items()
        ],
    }


def _without(record: Record, *keys: str) -> Record:
    return {key: value for key, value in record.items() if key not in keys}


def _by(records: Iterable[Record], key: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for each in records:
        found.setdefault(each[key], []).append(each)
    return found


def lines(records: Iterable[Record]) -> Iterator[str]:
    """Yield the report for a person: a line for each level, and what is not simply passed."""
    for subject, checks in _by(records, "subject").items():
        service = checks[0]["service"]
        yield f"{subject} ({service})" if service else subject
        for level, inside in _by(checks, "level").items():
            counts = Counter(each["result"] for each in inside)
            told = ", ".join(f"{counts[key]} {word}" for key, word in WORDS.items() if counts[key])
            yield f"  {level:<13} {told}"
            for each in inside:
                if each["result"] != "passed":
                    yield f"      {each['id']}: {_short(each)}"


def _short(record: Record) -> str:
    word = WORDS[record["result"]]
    if record["result"] == "failed":
        return word
    return f"{word} ({record['message'].splitlines()[0]})"
