"""The rules: one function each, with what it wants, whom it applies to and how to mend a backend.

The docstring of a check is the rule's text; the reference page is made from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from inspect import getdoc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiplayground.specs import Capability
    from aiplayground.testing.facts import Facts
    from aiplayground.testing.lab import Lab

REFERENCE = "docs/reference/conformance.md"

Check = Callable[["Lab"], Awaitable[None]]
Needs = Callable[["Facts"], str | None]


class Level(StrEnum):
    """The levels, in the order in which they are checked."""

    DECLARATION = "declaration"
    LIFECYCLE = "lifecycle"
    INFERENCE = "inference"
    STREAMING = "streaming"
    CANCELLATION = "cancellation"
    ERRORS = "errors"
    FAULTS = "faults"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `id` is stable: `level.name`.

    `mend`: what an author changes when it is broken. `see`: where the contract is documented.
    `needs` returns why the rule does not apply, None if it does. `basis`: the rules without which
    this one cannot be checked. `shared`: it leaves the running backend as it found it, so that
    one start serves many. `settings`: of the kernel it is checked on.
    """

    id: str
    check: Check = field(repr=False)
    mend: str
    see: str
    needs: tuple[Needs, ...] = ()
    basis: str | tuple[str, ...] = ()
    shared: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """The level that its id begins with."""
        return Level(self.id.partition(".")[0])

    @property
    def name(self) -> str:
        """The id without the level."""
        return self.id.partition(".")[2]

    @property
    def bases(self) -> tuple[str, ...]:
        """The ids of the rules that it builds on."""
        return (self.basis,) if isinstance(self.basis, str) else self.basis

    @property
    def wants(self) -> str:
        """What holds for a backend that keeps the rule."""
        return " ".join((getdoc(self.check) or "").split())

    @property
    def page(self) -> str:
        """Where the rule is documented."""
        return f"{REFERENCE}#{self.id.replace('.', '')}"

    def why_not(self, facts: Facts) -> str | None:
        """Return why the rule does not apply to a backend, None if it does."""
        reasons = (need(facts) for need in self.needs)
        return next((reason for reason in reasons if reason is not None), None)


_RULES: dict[str, Rule] = {}
_MODULES = {level: f"{__name__}.{level.value}" for level in Level}


def rule(id_: str, *, mend: str, see: str, **options: Any) -> Callable[[Check], Check]:
    """Register a check as a rule."""

    def register(check: Check) -> Check:
        _RULES[id_] = Rule(id=id_, check=check, mend=mend, see=see, **options)
        return check

    return register


def all_rules() -> dict[str, Rule]:
    """Return every rule by id, level by level."""
    for module in _MODULES.values():
        import_module(module)
    order = list(Level)
    return dict(sorted(_RULES.items(), key=lambda each: order.index(each[1].level)))


def declares(*capabilities: Capability) -> Needs:
    """Apply to backends that declare any of these."""

    def need(facts: Facts) -> str | None:
        if facts.spec.capabilities.isdisjoint(capabilities):
            return f"the backend does not declare {' or '.join(capabilities)}"
        return None

    return need


def takes(*parameters: str) -> Needs:
    """Apply to backends that declare any of these request parameters."""

    def need(facts: Facts) -> str | None:
        if facts.spec.parameters.isdisjoint(parameters):
            return f"the backend does not declare the parameter {' or '.join(parameters)}"
        return None

    return need


def implements(hook: str) -> Needs:
    """Apply to backends that have this hook of their own."""

    def need(facts: Facts) -> str | None:
        return None if hook in facts.hooks else f"the backend does not implement '{hook}'"

    return need
