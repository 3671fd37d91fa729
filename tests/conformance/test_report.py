"""An author's test run: the tests that appear, the report, what is skipped and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiplayground.errors import ModelNotFound
from aiplayground.hookspecs import hookimpl
from aiplayground.testing import Result, Subject, all_rules, examine
from aiplayground.testing.__main__ import main
from aiplayground.testing.rules import Level
from tests.fakes import Fake

ROOT = Path(__file__).parents[2]
PLUGIN = "tests.conformance.plugin"
QUICKLY = ["-p", "no:schemathesis"]
"""Loading that plugin of pytest takes longer than all the others together."""
TESTS = """
from aiplayground.testing import BackendConformance, Subject

class TestConformance(BackendConformance):
    subject = {subject}
"""


def run(folder: Path, subject: str, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Run an author's tests; return the exit code, the output and the JSON report."""
    (folder / "test_mine.py").write_text(TESTS.format(subject=subject), encoding="utf-8")
    report = folder / "report.json"
    plugin = [] if _is_installed() else ["-p", "aiplayground.testing.plugin"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:asyncio",
        *QUICKLY,
        *plugin,
        f"--conformance-report={report}",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), "-c", "/dev/null", *options, "test_mine.py"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    found = json.loads(report.read_text("utf-8")) if report.exists() else {}
    return done.returncode, done.stdout + done.stderr, found


def _is_installed() -> bool:
    from importlib.metadata import entry_points

    return "aiplayground.testing.plugin" in entry_points(group="pytest11").names


def test_an_author_gets_a_summary_and_a_report(tmp_path: Path) -> None:
    subject = f"Subject(plugin={PLUGIN!r})"
    code, output, report = run(tmp_path, subject, "-k", "declaration or inference.chat")
    assert code == 0, output
    assert "= conformance =" in output
    assert f"{PLUGIN} (reference)" in output
    assert "declaration.settings: not applicable (the backend has no settings" in output
    (entry,) = report["subjects"]
    assert (report["format"], report["hookApi"]) == (1, 1)
    assert (entry["subject"], entry["service"], entry["conforms"]) == (PLUGIN, "reference", True)
    assert entry["counts"] == {"passed": 8, "not-applicable": 2}
    rules = {each["id"]: each for each in entry["rules"]}
    assert rules["inference.chat"]["result"] == "passed"
    assert rules["declaration.settings"]["message"] == "the backend has no settings of its own"
    assert all(each["page"] and each["wants"] and each["mend"] for each in entry["rules"])


def test_a_broken_rule_fails_and_what_builds_on_it_is_blocked(tmp_path: Path) -> None:
    code, output, report = run(tmp_path, "Subject(plugin='no.such.module')", "-k", "declaration")
    assert code == 1
    assert "importing it raised ModuleNotFoundError" in output
    assert "mend: Do what the message says" in output
    (entry,) = report["subjects"]
    assert not entry["conforms"]
    assert entry["counts"] == {"failed": 1, "blocked": 8}


def test_a_rule_alone_fails_with_what_it_builds_on(tmp_path: Path) -> None:
    code, output, _ = run(tmp_path, "Subject(plugin='no.such.module')", "-k", "lifecycle.stop]")
    assert code == 1
    assert "lifecycle.stop is blocked by" in output


def test_a_class_without_a_subject_says_how_to_give_it_one(tmp_path: Path) -> None:
    code, output, _ = run(tmp_path, "None")
    assert code != 0
    assert 'Set, for instance: subject = Subject(plugin="my_backend.plugin")' in output


def test_without_conformance_tests_nothing_is_shown(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text("def test_it():\n    assert True\n", encoding="utf-8")
    plugin = [] if _is_installed() else ["-p", "aiplayground.testing.plugin"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            "/dev/null",
            *QUICKLY,
            *plugin,
            "test_other.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert "conformance" not in done.stdout


def test_the_plugin_of_pytest_costs_nothing() -> None:
    source = "import sys, aiplayground.testing.plugin as p; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=100, check=True
    )
    ours = {name for name in done.stdout.split() if name.startswith("aiplayground")}
    assert ours == {"aiplayground", "aiplayground.testing", "aiplayground.testing.plugin"}
    assert not {"pydantic", "httpx", "pytest", "psutil"} & set(done.stdout.split())


# Skipping -----------------------------------------------------------------------------------


def examined(rule: str, **options: Any) -> tuple[Result, str]:
    (outcome,) = examine(Subject(plugin=PLUGIN, **options), [rule])
    return outcome.result, outcome.message


def test_a_rule_is_skipped_for_a_stated_reason() -> None:
    reason = "the licence server allows no restart"
    skip = {"lifecycle.restart": reason}
    assert examined("lifecycle.restart", skip=skip) == (Result.SKIPPED, reason)


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_skip_without_a_reason_fails(reason: str) -> None:
    result, message = examined("lifecycle.restart", skip={"lifecycle.restart": reason})
    assert result is Result.FAILED
    assert "Subject.skip gives no reason" in message


def test_a_skip_of_no_rule_fails() -> None:
    result, message = examined("declaration.loads", skip={"lifecycle.restrat": "why not"})
    assert result is Result.FAILED
    assert "'lifecycle.restrat', which is no rule. Did you mean 'lifecycle.restart'?" in message


# The subject --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"plugin": "a", "manifest": "b.toml"}, {"plugin": "a", "patience": 0}],
    ids=["nothing", "two", "no patience"],
)
def test_a_subject_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="A Subject"):
        Subject(**options)


def test_a_service_that_is_not_there_is_named() -> None:
    result, message = examined("declaration.loads", service="referenc")
    assert result is Result.FAILED
    assert "it has no service 'referenc'. Did you mean 'reference'?" in message


def test_wrong_settings_are_the_subjects_fault() -> None:
    result, message = examined("declaration.loads", settings={"timeout": {"start": 1}})
    assert result is Result.FAILED
    assert "Did you mean 'timeouts'?" in message


# The command --------------------------------------------------------------------------------


def test_the_command_reports_and_answers_with_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    rules = ["--rule", "declaration.loads", "--rule", "declaration.pure"]
    assert main([PLUGIN, *rules, "--json", str(path)]) == 0
    assert "declaration   2 passed" in capsys.readouterr().out
    assert json.loads(path.read_text("utf-8"))["subjects"][0]["conforms"] is True
    assert main(["no.such.module", *rules]) == 1
    assert "importing it raised" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([PLUGIN, "--rule", "declaration.load"])
    assert "Did you mean 'declaration.loads'?" in capsys.readouterr().err


# The rules ----------------------------------------------------------------------------------


def test_the_rules_are_complete_and_in_order() -> None:
    rules = all_rules()
    assert {rule.level for rule in rules.values()} == set(Level)
    for rule_id, rule in rules.items():
        assert rule_id == f"{rule.level}.{rule.name}"
        assert rule.wants.endswith("."), rule_id
        assert rule.mend.endswith("."), rule_id
        path, _, anchor = rule.see.partition("#")
        page = (ROOT / path).read_text("utf-8")
        assert not anchor or f"## `{anchor}`" in page, rule.see
        assert all(basis in rules for basis in rule.bases), rule_id


# Backends without a process -----------------------------------------------------------------


class InProcess(Fake):
    @hookimpl
    async def load_model(self, model: str) -> None:
        if model not in self.models:
            raise ModelNotFound(f"There is no model '{model}'.")


def test_a_backend_without_workers_is_checked_for_what_applies_to_it() -> None:
    outcomes = {each.rule.id: each for each in examine(Subject(plugin=InProcess(), patience=10))}
    assert not [each.message for each in outcomes.values() if each.result is Result.FAILED]
    passed = {rule for rule, each in outcomes.items() if each.result is Result.PASSED}
    assert {"lifecycle.restart", "inference.chat", "streaming.finish"} <= passed
    assert outcomes["faults.sigkill"].message == "the backend launches no worker process"
    assert "do not pass through a worker" in outcomes["streaming.incremental"].message
