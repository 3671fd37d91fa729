"""The tests that an author's package gets by deriving a class from `BackendConformance`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from .examiner import Examiner, Result
from .report import RECORD, record
from .rules import Level, Rule, all_rules
from .subject import Subject

T = TypeVar("T", bound=Callable[..., Any])


def _of(level: Level) -> Callable[[T], T]:
    rules = [each for each in all_rules().values() if each.level is level]
    mark: Callable[[T], T] = pytest.mark.parametrize(
        "rule", [pytest.param(each, id=each.id) for each in rules]
    )
    return mark


class BackendConformance:
    """A test for each rule, level by level.

        class TestConformance(BackendConformance):
            subject = Subject(plugin="my_backend.plugin", model="tiny")

    For a subject that is made as the tests begin, override `make_subject`.
    One rule alone: `pytest -k lifecycle.stop`; one level: `pytest -k test_faults`. The tests
    need no configuration of pytest or its asyncio plugin.
    """

    subject: ClassVar[Subject | None] = None
    _folder: ClassVar[tempfile.TemporaryDirectory[str]]
    _examiner: ClassVar[Examiner]

    @classmethod
    def make_subject(cls) -> Subject:
        """Return the backend to examine: `subject`; override it to make one as the tests begin."""
        if cls.subject is None:
            raise pytest.UsageError(
                f"{cls.__name__} has no subject. Set, for instance: "
                f'subject = Subject(plugin="my_backend.plugin")'
            )
        return cls.subject

    @classmethod
    def setup_class(cls) -> None:
        """Begin the examination; called by pytest."""
        subject = cls.make_subject()
        cls._folder = tempfile.TemporaryDirectory(prefix="aipg-conformance-")
        cls._examiner = Examiner(subject, Path(cls._folder.name))

    @classmethod
    def teardown_class(cls) -> None:
        """End what still runs; called by pytest."""
        cls._examiner.close()
        cls._folder.cleanup()

    def _check(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        outcome = self._examiner.examine(rule)
        told = record(outcome, self._examiner.subject.name, self._examiner.service)
        request.node.user_properties.append((RECORD, told))
        if outcome.result is Result.FAILED:
            pytest.fail(outcome.message, pytrace=False)
        if outcome.result is Result.BLOCKED and not _is_checked(rule, request):
            pytest.fail(f"{rule.id} is {outcome.message}", pytrace=False)
        if outcome.result is not Result.PASSED:
            pytest.skip(outcome.message)

    @_of(Level.DECLARATION)
    def test_declaration(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        """What the backend says of itself."""
        self._check(rule, request)

    @_of(Level.LIFECYCLE)
    def test_lifecycle(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        """Starting and stopping."""
        self._check(rule, request)

    @_of(Level.INFERENCE)
    def test_inference(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        """What it answers."""
        self._check(rule, request)

    @_of(Level.STREAMING)
    def test_streaming(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        """How the answer arrives."""
        self._check(rule, request)

    @_of(Level.CANCELLATION)
    def test_cancellation(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        """When the caller goes away."""
        self._check(rule, request)

    @_of(Level.ERRORS)
    def test_errors(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        """What the caller is told."""
        self._check(rule, request)

    @_of(Level.FAULTS)
    def test_faults(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        """When something goes wrong."""
        self._check(rule, request)


def _is_checked(rule: Rule, request: pytest.FixtureRequest) -> bool:
    """Whether what the rule builds on fails in this run too, as a test of its own."""
    here = request.node.nodeid.partition("[")[0].rpartition("::")[0] + "::"
    ids = [item.nodeid for item in request.session.items if item.nodeid.startswith(here)]
    below = list(rule.bases)
    while below:
        basis = below.pop()
        if any(each.endswith(f"[{basis}]") for each in ids):
            return True
        below += all_rules()[basis].bases
    return False
