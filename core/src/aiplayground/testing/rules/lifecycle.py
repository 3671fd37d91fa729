"""Starting, stopping, and what is left behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError, PluginError
from aiplayground.states import Runtime
from aiplayground.testing.faults import Fault, FaultKind
from aiplayground.testing.lab import Broken, NotApplicable, alive, expect_code
from aiplayground.testing.watch import Growth, Tour, growth, tour

from . import rule

if TYPE_CHECKING:
    from aiplayground.testing.lab import Lab

CALLERS = 5
SETTLE = 0.3
"""Seconds in which what should not happen any more would happen."""

LEAKS = "docs/reference/hooks.md#stop"


@rule(
    "lifecycle.start",
    mend="Launch the worker with `ctx.spawn` and let its errors pass; `health` must say ok.",
    see="docs/reference/hooks.md#start",
    basis="declaration.version",
)
async def start(lab: Lab) -> None:
    """A start without a model ends with the service running and healthy."""
    info = await lab.start()
    if info.runtime is not Runtime.RUNNING:
        raise Broken(f"after a start it is {info.runtime.value}", hook="start")


@rule(
    "lifecycle.double-start",
    mend="Launch workers in `start` alone: `health` and the others only look.",
    see="docs/reference/hooks.md#start",
    basis="lifecycle.start",
)
async def double_start(lab: Lab) -> None:
    """Several callers of start, and some who ask for its health meanwhile, cause one start."""
    callers = [asyncio.ensure_future(lab.start()) for _ in range(CALLERS)]
    try:
        while not all(each.done() for each in callers):
            await _asked(lab)
            await asyncio.sleep(0)
    finally:
        for each in callers:
            each.cancel()
        await asyncio.wait(callers)
        errors = [each.cancelled() or each.exception() for each in callers]
    launches = lab.kernel.faults.launches
    wrong = [each for each in errors if each]
    if wrong or len(launches) != len(set(launches)):
        saw = f"{CALLERS} callers wanted it, and the one start launched {launches}; errors: {wrong}"
        raise Broken(saw, hook="health")
    infos = [each.result() for each in callers]
    if any(info.runtime is not Runtime.RUNNING for info in infos):
        raise Broken(f"callers were told {[info.runtime.value for info in infos]}", hook="start")


async def _asked(lab: Lab) -> None:
    try:
        async with lab.within("the hook 'health' during a start"):
            await lab.kernel.health(lab.service)
    except PluginError as error:
        raise Broken(f"during a start it raised: {error.message}", hook="health") from error
    except AIPlaygroundError:
        return  # it is not up yet, and says so


@rule(
    "lifecycle.stop",
    mend="Let `stop` do only what goes beyond ending the workers, which the kernel does.",
    see="docs/reference/hooks.md#stop",
    basis="lifecycle.start",
)
async def stop(lab: Lab) -> None:
    """A stop ends without an error, and its processes are gone."""
    await lab.start()
    pids = lab.pids()
    info = await lab.stop()
    if info.runtime is not Runtime.STOPPED:
        raise Broken(f"after a stop it is {info.runtime.value}", hook="stop")
    if info.error is not None:
        raise Broken(f"the stop left an error: {info.error['message']}", hook="stop")
    left = [pid for pid in pids if alive(pid)]
    if left:
        raise Broken(f"its processes {left} are still there", hook="stop")


@rule(
    "lifecycle.restart",
    mend="Keep no state between starts, or reset it in `stop`.",
    see="docs/reference/hooks.md#start",
    basis="lifecycle.start",
)
async def restart(lab: Lab) -> None:
    """It starts again after a stop."""
    await lab.start()
    await lab.stop()
    info = await lab.start()
    if info.runtime is not Runtime.RUNNING:
        raise Broken(f"at the second start it is {info.runtime.value}", hook="start")


@rule(
    "lifecycle.stop-during-start",
    mend="Let the cancellation of `start` through: no `except BaseException`, no retry after it.",
    see="docs/reference/hooks.md#start",
    basis="lifecycle.start",
    settings={"timeouts": {"hook": 3.0, "stop_grace": 0.5}},
)
async def stop_during_start(lab: Lab) -> None:
    """A stop during a start ends it (-3); nothing is launched later, and the next start works."""
    faults = lab.kernel.faults
    never = Fault(kind=FaultKind.NEVER_READY, seconds=lab.subject.patience * 2)
    await faults.inject(never, lab.service)
    starting = asyncio.ensure_future(lab.kernel.start(lab.service))
    await lab.until(lambda: faults.launches or starting.done(), "launching a worker")
    if starting.done():
        starting.exception()
        raise NotApplicable("its start ends before it can be stopped")
    await lab.stop()
    error = await lab.fails("the start that was stopped", starting)
    expect_code(error, -3, "a stop during a start")
    await asyncio.sleep(SETTLE)
    if len(faults.launches) != 1 or lab.pids():
        raise Broken("the start went on after it was cancelled, and launched more", hook="start")
    faults.calm()
    if (await lab.start()).runtime is not Runtime.RUNNING:
        raise Broken("it cannot be started any more", hook="start")


@rule(
    "lifecycle.stop-without-start",
    mend="Let `stop` expect that there may be no worker: the start may have failed.",
    see="docs/reference/hooks.md#stop",
    basis="lifecycle.start",
)
async def stop_without_start(lab: Lab) -> None:
    """A stop after a start that failed works too."""
    await lab.kernel.faults.inject(Fault(kind=FaultKind.EXIT_AT_START), lab.service)
    with suppress(AIPlaygroundError):  # it is meant to fail
        await lab.start()
    lab.need_worker()
    info = await lab.stop()
    if info.runtime is not Runtime.STOPPED or info.error is not None:
        raise Broken(f"after it, the service is {info.runtime.value} {info.error}", hook="stop")


@rule(
    "lifecycle.side-by-side",
    mend="Keep nothing in module globals, use `{port}` or `{fd}` and no fixed port, and files in "
    "`ctx.data_dir` and `ctx.cache_dir` alone.",
    see="docs/reference/hooks.md#start",
    basis="lifecycle.start",
)
async def side_by_side(lab: Lab) -> None:
    """Two kernels in one process run it at the same time."""
    await lab.start()
    other = await lab.other()
    try:
        info = await other.start()
    except AIPlaygroundError as error:
        raise Broken(f"the second kernel could not start it: {error.message}") from error
    if lab.kernel.faults.launches and info.base_url == lab.info.base_url:
        raise Broken(f"both kernels got the same worker, {info.base_url}", hook="start")
    await other.stop()
    if lab.info.runtime is not Runtime.RUNNING:
        raise Broken("the stop of the one ended the other", hook="stop")


# What is left behind --------------------------------------------------------------------------


async def _growth(lab: Lab) -> Growth:
    if "growth" not in lab.memo:
        lab.memo["growth"] = await growth(lab)
    found: Growth = lab.memo["growth"]
    return found


@rule(
    "lifecycle.tasks",
    mend="Cancel in `stop` what `start` began with `asyncio.create_task`, and await its end.",
    see=LEAKS,
    basis="lifecycle.restart",
)
async def tasks(lab: Lab) -> None:
    """Starts and stops leave no asyncio task behind."""
    if more := (await _growth(lab)).tasks:
        raise Broken(f"each start and stop leaves tasks: {more}", hook="stop")


@rule(
    "lifecycle.threads",
    mend="End in `stop` the threads that `start` began; `ctx.run_sync` needs none of its own.",
    see=LEAKS,
    basis="lifecycle.restart",
)
async def threads(lab: Lab) -> None:
    """Starts and stops leave no thread behind."""
    if more := (await _growth(lab)).threads:
        raise Broken(f"each start and stop leaves threads: {more}", hook="stop")


@rule(
    "lifecycle.descriptors",
    mend="Close files, sockets and clients in `stop`, or use `with`; `ctx.http` is the kernel's.",
    see=LEAKS,
    basis="lifecycle.restart",
)
async def descriptors(lab: Lab) -> None:
    """Starts and stops leave no open file or socket behind."""
    if more := (await _growth(lab)).descriptors:
        raise Broken(f"each start and stop leaves open: {more}", hook="stop")


@rule(
    "lifecycle.processes",
    mend="Start every process with `ctx.spawn`: the kernel ends those, and no others.",
    see=LEAKS,
    basis="lifecycle.restart",
)
async def processes(lab: Lab) -> None:
    """Starts and stops leave no process behind."""
    if more := (await _growth(lab)).children:
        raise Broken(f"each start and stop leaves processes: {more}", hook="start")


# What the program around it sees --------------------------------------------------------------


async def _tour(lab: Lab) -> Tour:
    if "tour" not in lab.memo:
        lab.memo["tour"] = await tour(lab)
    found: Tour = lab.memo["tour"]
    return found


@rule(
    "lifecycle.quiet",
    mend="Write to `ctx.logger`: the kernel may run inside a program that owns the terminal.",
    see="docs/embedding.md",
    basis="lifecycle.start",
)
async def quiet(lab: Lab) -> None:
    """Its hooks print nothing."""
    if text := (await _tour(lab)).printed:
        raise Broken(f"its hooks printed {text[:200]!r}")


@rule(
    "lifecycle.globals",
    mend="Leave signal handlers, the root logger, the working directory and the environment to "
    "the program; a worker's environment goes into `LaunchSpec.env`.",
    see="docs/embedding.md",
    basis="lifecycle.start",
)
async def globals_(lab: Lab) -> None:
    """Its hooks change nothing that belongs to the whole process."""
    if changed := (await _tour(lab)).changed:
        raise Broken(f"its hooks changed {', '.join(changed)}")


@rule(
    "lifecycle.unhandled",
    mend="Await the tasks that hooks create, or log their errors to `ctx.logger`.",
    see="docs/reference/hooks.md",
    basis="lifecycle.start",
)
async def unhandled(lab: Lab) -> None:
    """No error is left to the event loop's handler."""
    if errors := (await _tour(lab)).unhandled:
        raise Broken(f"the event loop was left with: {errors[0]}")


def blocking(tours: list[Tour]) -> list[tuple[str, float]]:
    """Return the hooks that held the loop in every tour: what is slow once was the machine."""
    every: set[str] = set.intersection(*(set(each.blocked) for each in tours))
    seconds: dict[str, float] = {name: min(each.blocked[name] for each in tours) for name in every}
    return sorted(seconds.items())


async def blocked_hooks(lab: Lab) -> list[tuple[str, float]]:
    """Return the hooks that hold the loop again and again, with the least seconds of each."""
    tours: list[Any] = [await _tour(lab)]
    while blocking(tours) and len(tours) < CONFIRM:
        tours.append(await tour(lab))
    return blocking(tours)


CONFIRM = 3
"""Tours in which a hook must have held the loop: one may be the machine's fault."""
