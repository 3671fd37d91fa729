"""What a load would do, as values and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from aiplayground.errors import NotEnoughMemory
from aiplayground.specs import MemoryEstimate

from ._decide import LIMIT, MAIN, Decision, Evict, Figures, Holder, Load, Refuse, Release, Wait

Outcome: TypeAlias = Literal["loaded", "load", "unload-first", "wait", "refuse", "unchecked"]
"""`loaded`: it is in memory. `load`: it fits. `unload-first`: it fits once others are unloaded.
`wait`: it fits once others are no longer in use. `refuse`: it does not fit. `unchecked`: what it
needs is not known, or `residency.memory_check` is off."""

REASON = "not-enough-memory"
"""`details.reason` of a refusal."""

WORTH = 2**20
"""Bytes that a change must save to be named."""

CACHES = "Caches of loaded models are given back before that; they are not enough."

ANYWAY = "To load it all the same, set residency.memory_check to warn."


@dataclass(frozen=True, slots=True)
class Step:
    """A model that goes first, what that gives back in bytes, and why it is this one."""

    service: str
    model: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What would happen if a model were loaded now.

    `needs` and `free` are bytes by pool: `main memory`, `residency.memory_limit` where that is set,
    and the id of a device with memory of its own. `free` is what is left for this model, after the
    margin and what others were promised. `unload` goes in this order; `wait_for` are in use.
    `change` says what would let it fit.
    """

    service: str
    model: str
    outcome: Outcome
    estimate: MemoryEstimate | None = None
    needs: Figures = field(default_factory=dict)
    free: Figures = field(default_factory=dict)
    unload: tuple[Step, ...] = ()
    wait_for: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    message: str = ""

    @property
    def fits(self) -> bool:
        """Whether it would be loaded."""
        return self.outcome != "refuse"


def make_plan(
    key: tuple[str, str],
    estimate: MemoryEstimate,
    needs: Figures,
    free: Figures,
    decision: Decision,
    leaving: Sequence[Holder],
) -> LoadPlan:
    """Put a decision into words; `leaving` go in any case, since too many models are loaded."""
    service, model = key
    shown = {pool: size for pool, size in free.items() if needs.get(pool)}
    steps = _steps(decision, leaving)
    waiting: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    if isinstance(decision, Wait):
        waiting = tuple(f"{each.service}/{each.model}" for each in decision.holders)
    if isinstance(decision, Refuse):
        change, steps = changes(estimate, decision), ()
    return LoadPlan(
        service=service,
        model=model,
        outcome=_outcome(decision, steps),
        estimate=estimate,
        needs={pool: needs[pool] for pool in shown},
        free=shown,
        unload=steps,
        wait_for=waiting,
        change=change,
        message=_message(model, estimate, needs, shown, decision, steps),
    )


def refusal(plan: LoadPlan) -> NotEnoughMemory:
    """Return the error that says so, with figures."""
    estimate = plan.estimate or MemoryEstimate()
    advice = " ".join(f"{each}." for each in plan.change)
    return NotEnoughMemory(
        f"{plan.message} {advice} {ANYWAY}" if advice else f"{plan.message} {ANYWAY}",
        details={
            "reason": REASON,
            "service": plan.service,
            "model": plan.model,
            "needs": dict(plan.needs),
            "free": dict(plan.free),
            "estimate": parts_of(estimate),
            "change": list(plan.change),
            "wait_for": list(plan.wait_for),
        },
    )


def changes(estimate: MemoryEstimate, decision: Refuse) -> tuple[str, ...]:
    """Say what would let it fit, what saves most first."""
    unpin = (f"Unpin {each.service}/{each.model}" for each in decision.pinned)
    lacking = max(decision.short.values(), default=0)
    worth = (each for each in estimate.savings if each.bytes >= WORTH)
    savings = sorted(worth, key=lambda each: -each.bytes)
    told = [f"{each.change} (saves {amount(each.bytes)})" for each in savings]
    rest = ["Take a smaller quantization, or a smaller model"]
    if MAIN in decision.short:
        rest.append("Close other programs")
    if LIMIT in decision.short:
        rest.append(f"Raise {LIMIT}")
    if told and sum(each.bytes for each in savings) < lacking:
        told = []  # all of them together do not help: nobody shall try
    return (*unpin, *told, *rest)


def parts_of(estimate: MemoryEstimate) -> dict[str, Any]:
    """Return an estimate as plain data, in bytes."""
    return {
        "total": estimate.total,
        "weights": estimate.weights,
        "cache": estimate.cache,
        "compute": estimate.compute,
        "projector": estimate.projector,
        "other": estimate.other,
        "onDevice": estimate.on_device,
        "device": estimate.device.id if estimate.device else None,
        "rough": estimate.rough,
    }


def amount(size: int) -> str:
    """Write bytes as people count memory: 1.5 GiB."""
    return f"{size / 2**30:.1f} GiB" if abs(size) >= 2**30 else f"{size / 2**20:.0f} MiB"


def _outcome(decision: Decision, steps: Sequence[Step]) -> Outcome:
    if isinstance(decision, Refuse):
        return "refuse"
    if isinstance(decision, Wait):
        return "wait"
    return "unload-first" if steps else "load"


def _steps(decision: Decision, leaving: Sequence[Holder]) -> tuple[Step, ...]:
    limit = "no more models may be loaded (residency.max_models)"
    steps = [_step(each, limit) for each in leaving]
    if isinstance(decision, Evict):
        chosen = (each for each in decision.holders if not each.leaving)
        steps += [
            _step(each, "it was used longest ago of those that are not in use") for each in chosen
        ]
    return tuple(steps)


def _step(holder: Holder, why: str) -> Step:
    return Step(holder.service, holder.model, max(holder.uses.values(), default=0), why)


def _message(
    model: str,
    estimate: MemoryEstimate,
    needs: Figures,
    free: Figures,
    decision: Decision,
    steps: Sequence[Step],
) -> str:
    needed = f"{model} needs {_amounts(needs, free)}{_made_of(estimate)}"
    if isinstance(decision, Refuse):
        short = {pool: free[pool] for pool in decision.short}
        return f"{needed}, and only {_amounts(short, short)} would be left for it."
    if isinstance(decision, Wait):
        names = ", ".join(each.model for each in decision.holders)
        return f"{needed}; it has to wait until {names} is no longer in use."
    if steps:
        names = ", ".join(each.model for each in steps)
        return f"{needed}; {names} would be unloaded for it."
    if isinstance(decision, Release):
        return f"{needed}; caches of loaded models would be given back for it."
    assert isinstance(decision, Load | Evict)
    return f"{needed}, and {_amounts(free, free)} is free for it."


def _made_of(estimate: MemoryEstimate) -> str:
    if estimate.rough:
        return " (by the size of its files)"
    parts = {
        "weights": estimate.weights,
        "context": estimate.cache,
        "working memory": estimate.compute,
        "projector": estimate.projector,
        "other": estimate.other,
    }
    return f" ({', '.join(f'{name} {amount(size)}' for name, size in parts.items() if size)})"


def _amounts(figures: Figures, pools: Figures) -> str:
    """Write figures of the pools that say something of their own."""
    told = {pool: figures[pool] for pool in pools if pool != LIMIT or MAIN not in pools}
    if LIMIT in pools and pools[LIMIT] < pools.get(MAIN, pools[LIMIT] + 1):
        told = {pool: size for pool, size in told.items() if pool != MAIN}
        told[LIMIT] = figures[LIMIT]
    return " and ".join(f"{amount(max(0, size))} of {_called(pool)}" for pool, size in told.items())


def _called(pool: str) -> str:
    return {MAIN: "main memory", LIMIT: "the memory for models (residency.memory_limit)"}.get(
        pool, f"the memory of {pool}"
    )
