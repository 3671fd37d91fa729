"""The reference backend keeps every rule; for each rule a broken one fails that rule alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet

from aiplayground.testing import BackendConformance, Result, Subject, all_rules, examine
from tests.conformance.broken import VARIANTS, Variant
from tests.conformance.reference import Reference

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PATIENCE = 8.0
"""Seconds that a broken backend may hang; the reference never does."""

NEVER_FAILS = {Result.PASSED, Result.NOT_APPLICABLE, Result.BLOCKED}


class TestReference(BackendConformance):
    subject = Subject(plugin=Reference(), model="tiny", patience=20)


def test_a_plugin_can_be_named_by_its_module() -> None:
    outcomes = examine(
        Subject(plugin="tests.conformance.plugin"), ["declaration.import-cost", "inference.chat"]
    )
    assert [each.result for each in outcomes] == [Result.PASSED, Result.PASSED]


def each_variant() -> list[ParameterSet]:
    slow = [pytest.mark.full]
    return [pytest.param(v, id=v.rule, marks=slow if v.hangs else ()) for v in VARIANTS]


@pytest.fixture(params=each_variant())
def variant(request: pytest.FixtureRequest) -> Iterator[Variant]:
    """A broken backend; what it leaves behind is cleared away."""
    yield request.param
    release = getattr(request.param.plugin, "release", None)
    if release is not None:
        release()


def subject_of(variant: Variant) -> Subject:
    return Subject(plugin=variant.plugin, model="tiny", patience=PATIENCE)


def test_a_broken_backend_is_told_what_to_mend(variant: Variant) -> None:
    (outcome,) = examine(subject_of(variant), [variant.rule], bases=False)
    assert outcome.result is Result.FAILED, outcome.message
    assert re.search(variant.says, outcome.message), outcome.message
    rule = all_rules()[variant.rule]
    for part in (rule.wants, rule.mend, rule.page, rule.see):
        assert part in outcome.message


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_broken_backend_fails_that_rule_alone(variant: Variant) -> None:
    outcomes = examine(subject_of(variant))
    failed = {each.rule.id: each.message for each in outcomes if each.result is Result.FAILED}
    assert list(failed) == [variant.rule], "\n".join(failed.values())
    assert {each.result for each in outcomes} - {Result.FAILED} <= NEVER_FAILS


def test_every_rule_has_a_broken_backend() -> None:
    assert sorted(variant.rule for variant in VARIANTS) == sorted(all_rules())
