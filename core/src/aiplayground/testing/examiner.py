"""Checks a subject against the rules, one by one, without a test runner.

with Examiner(Subject(plugin="my_backend.plugin"), folder) as examiner:
    for rule in all_rules().values():
        print(examiner.examine(rule))
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aiplayground.errors import AIPlaygroundError, suggest

from .facts import Maker, Unusable
from .lab import Broken, Lab, NotApplicable
from .rules import Level, Rule, all_rules
from .watch import surroundings

if TYPE_CHECKING:
    from .subject import Subject

LIMIT_FACTOR = 4
"""A rule may take this many times the subject's patience in all."""

CLOSE_LIMIT = 20.0


class Result(StrEnum):
    """How the check of a rule ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"
    SKIPPED = "skipped"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The check of one rule; `seconds` is how long it took, `hook` the one to look at."""

    rule: Rule
    result: Result
    message: str = ""
    hook: str | None = None
    seconds: float = 0.0


class Examiner:
    """Checks one subject. Each outcome is kept: the basis of several rules is checked once.

    `bases=False`: a rule is checked without those that it builds on.
    """

    def __init__(self, subject: Subject, folder: Path, *, bases: bool = True) -> None:
        self.subject = subject
        self._bases = bases
        self.outcomes: dict[str, Outcome] = {}
        self._folder = folder
        self._maker = Maker(subject)
        self._runner = asyncio.Runner()
        self._shared: Lab | None = None
        self._memo: dict[str, Any] = {"surroundings": surroundings()}
        self._labs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs."""
        with self._runner:
            self._runner.run(self._end_shared())

    @property
    def service(self) -> str:
        """The service's name, empty while the subject cannot be loaded."""
        try:
            return self._maker.facts.spec.name
        except Unusable:
            return ""

    def examine(self, rule: Rule) -> Outcome:
        """Check a rule, and before it what it builds on."""
        if rule.id not in self.outcomes:
            began = time.monotonic()
            outcome = self._decided(rule) or self._run(rule)
            spent = round(time.monotonic() - began, 3)
            self.outcomes[rule.id] = Outcome(
                rule=rule,
                result=outcome.result,
                message=outcome.message,
                hook=outcome.hook,
                seconds=spent,
            )
        return self.outcomes[rule.id]

    def _decided(self, rule: Rule) -> Outcome | None:
        """Return the outcome of a rule that need not be run."""
        unknown = sorted(self.subject.skip.keys() - all_rules().keys())
        if unknown and rule.id == "declaration.loads":
            hint = suggest(unknown[0], all_rules())
            return _failed(rule, f"Subject.skip names '{unknown[0]}', which is no rule.{hint}")
        if rule.id in self.subject.skip:
            return self._skipped(rule)
        for basis in rule.bases if self._bases else ():
            below = self.examine(all_rules()[basis])
            if below.result in (Result.FAILED, Result.BLOCKED):
                why = f"blocked by {basis}: {below.message.splitlines()[0]}"
                return Outcome(rule=rule, result=Result.BLOCKED, message=why)
        try:
            why_not = rule.why_not(self._maker.facts)
        except Unusable:
            return None  # said by `declaration.loads`
        if why_not is None:
            return None
        return Outcome(rule=rule, result=Result.NOT_APPLICABLE, message=why_not)

    def _skipped(self, rule: Rule) -> Outcome:
        reason = self.subject.skip[rule.id].strip()
        if not reason:
            return _failed(rule, f"Subject.skip gives no reason: say why '{rule.id}' is left out")
        return Outcome(rule=rule, result=Result.SKIPPED, message=reason)

    def _run(self, rule: Rule) -> Outcome:
        try:
            self._runner.run(self._check(rule))
        except Unusable as error:
            return _failed(rule, str(error))
        except NotApplicable as reason:
            return Outcome(rule=rule, result=Result.NOT_APPLICABLE, message=str(reason))
        except Broken as broken:
            return _failed(rule, broken.saw, broken.hook)
        except AIPlaygroundError as error:
            saw = f"{type(error).__name__} (code {int(error.code)}): {error.message}"
            return _failed(rule, saw, error.details.get("hook"))
        except TimeoutError:
            return _failed(rule, "it did not come to an end")
        return Outcome(rule=rule, result=Result.PASSED)

    async def _check(self, rule: Rule) -> None:
        limit = self.subject.patience * LIMIT_FACTOR
        if rule.shared:
            lab = await self._ready()
            try:
                async with asyncio.timeout(limit):
                    await rule.check(lab)
            except BaseException:
                await self._end_shared()  # whatever it is in now, the next one begins anew
                raise
            return
        await self._end_shared()
        lab = self._lab(rule.settings)
        try:
            if rule.level is not Level.DECLARATION:
                await lab.open()
            async with asyncio.timeout(limit):
                await rule.check(lab)
        finally:
            await _close(lab)

    def _lab(self, settings: Any = None) -> Lab:
        self._labs += 1
        return Lab(self._maker, self._folder / str(self._labs), settings=settings, memo=self._memo)

    async def _ready(self) -> Lab:
        """Return the lab of the rules that share one, with the service running."""
        if self._shared is None:
            self._shared = self._lab()
            await self._shared.open()
        await self._shared.start()
        return self._shared

    async def _end_shared(self) -> None:
        lab, self._shared = self._shared, None
        if lab is not None:
            await _close(lab)


async def _close(lab: Lab) -> None:
    try:
        async with asyncio.timeout(CLOSE_LIMIT):
            await lab.close()
    except TimeoutError as late:
        raise Broken(f"the kernel could not shut down within {CLOSE_LIMIT:g} s") from late


def _failed(rule: Rule, saw: str, hook: str | None = None) -> Outcome:
    return Outcome(rule=rule, result=Result.FAILED, message=explain(rule, saw, hook), hook=hook)


def explain(rule: Rule, saw: str, hook: str | None = None) -> str:
    """Say what was seen, what the rule wants, and what to mend."""
    where = f"hook '{hook}': " if hook else ""
    return (
        f"{rule.id}: {where}{saw}\n"
        f"  rule: {rule.wants}\n"
        f"  mend: {rule.mend}\n"
        f"  more: {rule.page} and {rule.see}"
    )


def examine(
    subject: Subject, rules: Iterable[str] | None = None, *, bases: bool = True
) -> list[Outcome]:
    """Check these rules (all, if none is named) in a temporary folder.

    `bases=False`: without those that they build on.
    """
    known = all_rules()
    wanted = list(known) if rules is None else list(rules)
    with (
        tempfile.TemporaryDirectory(prefix="aipg-") as folder,
        Examiner(subject, Path(folder), bases=bases) as examiner,
    ):
        return [examiner.examine(known[each]) for each in wanted]
