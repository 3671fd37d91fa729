"""The conformance kit without a test runner: `python -m aiplayground.testing my_backend.plugin`.

Exit code: 0 if the backend keeps every rule, 1 if it breaks one, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aiplayground.errors import suggest
from aiplayground.hookspecs import HOOK_API

from .examiner import Examiner, Result
from .report import Record, as_json, lines, record
from .rules import all_rules
from .subject import Subject


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m aiplayground.testing", description="Check a backend against the contract."
    )
    parser.add_argument("plugin", help="plugin module, or the path of an aiplayground.toml")
    parser.add_argument("--service", help="which one, if there are several")
    parser.add_argument("--model", help="model to ask (default: the first that is listed)")
    parser.add_argument("--models", action="append", default=[], metavar="FOLDER")
    parser.add_argument("--rule", action="append", metavar="ID", help="only this one; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    given = parser.parse_args(argv)
    for name in given.rule or ():
        if name not in all_rules():
            parser.error(f"there is no rule '{name}'.{suggest(name, all_rules())}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print the report, and say by the exit code how it went."""
    given = _arguments(argv)
    source = "manifest" if given.plugin.endswith(".toml") else "plugin"
    subject = Subject(
        **{source: given.plugin},
        service=given.service,
        model=given.model,
        model_folders=given.models,
    )
    records = _examined(subject, given.rule or list(all_rules()))
    print("\n".join(lines(records)))  # noqa: T201  # a command line tool
    if given.json is not None:
        text = json.dumps(as_json(records, HOOK_API), indent=2, ensure_ascii=False)
        given.json.write_text(text + "\n", encoding="utf-8")
    return 1 if any(each["result"] in ("failed", "blocked") for each in records) else 0


def _examined(subject: Subject, rules: Sequence[str]) -> list[Record]:
    records = []
    with (
        tempfile.TemporaryDirectory(prefix="aipg-") as folder,
        Examiner(subject, Path(folder)) as examiner,
    ):
        for name in rules:
            outcome = examiner.examine(all_rules()[name])
            records.append(record(outcome, subject.name, examiner.service))
            if outcome.result is Result.FAILED:
                print(f"{outcome.message}\n", file=sys.stderr)  # noqa: T201  # as above
    return records


if __name__ == "__main__":
    sys.exit(main())
