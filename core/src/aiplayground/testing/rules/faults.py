"""Faults that the kit makes happen, and the state that a backend must be in afterwards."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from aiplayground.errors import AIPlaygroundError, FailureClass, PluginError, ServiceFailed
from aiplayground.specs import Capability
from aiplayground.states import Runtime
from aiplayground.testing.faults import Fault, FaultKind, FaultPlan
from aiplayground.testing.lab import Asking, Broken, alive, expect_code

from . import declares, rule
from .lifecycle import blocked_hooks

if TYPE_CHECKING:
    from aiplayground.testing.lab import Lab

CHAT = "docs/reference/hooks.md#chat"
START = "docs/reference/hooks.md#start"
STOP = "docs/reference/hooks.md#stop"
CUTS = 4
SEED = 1
STALLED = 1.0
"""Seconds that an engine may send nothing, where a rule makes it so."""

ORPHAN_LIMIT = 4.0
"""Seconds after the kernel's end in which its workers must have ended: 2 s, on a busy machine."""

LINGERED = {"timeouts": {"hook": 2.0, "stop_grace": 0.3}}


async def _begun(lab: Lab) -> Asking:
    """Start, ask for a long answer, and hold it in the middle."""
    await lab.start()
    lab.need_worker()
    return await _held(lab)


async def _held(lab: Lab) -> Asking:
    total = await lab.measured()
    lab.plan(Fault(kind=FaultKind.STALL, at=total // 2))
    asking = await lab.asking()
    stalled = [gate.stalled for gate in lab.gates]
    await lab.until(
        lambda: [gate.stalled for gate in lab.gates] != stalled or asking.task.done(),
        "the middle of an answer",
    )
    return asking


async def _running_again(lab: Lab, restarts: int = 1) -> None:
    def back() -> bool:
        if lab.info.runtime is not Runtime.RUNNING:
            return False
        ready = [each for each in lab.info.workers if each.state is Runtime.RUNNING]
        return any(each.restarts >= restarts for each in ready)

    await lab.until(back, "coming back after a crash")


async def _fails_to_start(lab: Lab, fault: Fault, after: str) -> ServiceFailed:
    """Let a start fail; the state must say so, and the next start must work."""
    await lab.kernel.faults.inject(fault, lab.service)
    try:
        async with lab.within(f"a start after {after}"):
            await lab.kernel.start(lab.service)
    except AIPlaygroundError as caught:
        error = caught
    else:
        lab.need_worker()
        raise Broken(f"after {after}, the start ended well", hook="start")
    if isinstance(error, PluginError):
        raise Broken(f"after {after}, the hook broke: {error.message}", hook="start")
    expect_code(error, -3, after)
    info = lab.info
    if info.runtime is not Runtime.FAILED or info.error is None or info.workers:
        raise Broken(f"after {after}, it is {info.runtime.value}: {info.error}", hook="start")
    lab.kernel.faults.calm()
    if (await lab.start()).runtime is not Runtime.RUNNING:
        raise Broken(f"after {after}, it cannot be started again", hook="start")
    if not isinstance(error, ServiceFailed):
        raise Broken(f"after {after}, the cause is lost: {error.message}", hook="start")
    return error


def _expect_cause(error: ServiceFailed, cause: FailureClass, after: str) -> None:
    if error.failure is not cause:
        raise Broken(
            f"after {after}, the failure is '{error.failure}', where '{cause}' is due: "
            f"{error.message}",
            hook="start",
        )


@rule(
    "faults.sigkill",
    mend="Ask `worker.base_url` for each request (a restart may change it), and let a broken "
    "connection end as an error: `raise await ctx.lost(url, error)`.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="inference.chat",
)
async def sigkill(lab: Lab) -> None:
    """A worker killed in mid-answer: its caller gets -3, it comes back, and answers again."""
    asking = await _begun(lab)
    for worker in list(lab.kernel.workers(lab.service)):
        await lab.kernel.faults.inject(Fault(kind=FaultKind.KILL), lab.service, worker)
    error = await asking.error("a crash of the worker")
    if isinstance(error, PluginError):
        raise Broken(f"after a crash of the worker, the hook broke: {error.message}", hook="chat")
    expect_code(error, -3, "a crash of the worker")
    await _running_again(lab)
    if not any(chunk.text + chunk.reasoning for chunk in await lab.answer()):
        raise Broken("after a crash it answers nothing", hook="chat")


@rule(
    "faults.hang",
    mend="Let a broken connection end as an error: `raise await ctx.lost(url, error)`.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis=("inference.chat", "faults.half-open"),
    settings={
        "liveness": {"interval": 0.1, "limit": 0.5, "hard_factor": 100},
        "timeouts": {"health": 0.3},
    },
)
async def hang(lab: Lab) -> None:
    """A worker that hangs (SIGSTOP) is restarted, and whoever waits for it gets -3."""
    asking = await _begun(lab)
    for worker in list(lab.kernel.workers(lab.service)):
        await lab.kernel.faults.inject(Fault(kind=FaultKind.FREEZE), lab.service, worker)
    error = await asking.error("a hang of the worker")
    expect_code(error, -3, "a hang of the worker")
    await _running_again(lab)


@rule(
    "faults.ignored-sigterm",
    mend="Give whatever `stop` asks of a worker a deadline well below `timeouts.hook`.",
    see=STOP,
    basis="lifecycle.stop",
    settings=LINGERED,
)
async def ignored_sigterm(lab: Lab) -> None:
    """A worker that hangs and ignores SIGTERM is stopped all the same, and in time."""
    await lab.start()
    lab.need_worker()
    pids = lab.pids()
    for worker in list(lab.kernel.workers(lab.service)):
        await lab.kernel.faults.inject(Fault(kind=FaultKind.FREEZE), lab.service, worker)
    await _stops(lab, pids, "a worker that ignores SIGTERM")


async def _stops(lab: Lab, pids: list[int], with_: str) -> None:
    info = await lab.stop()
    if info.runtime is not Runtime.STOPPED:
        raise Broken(f"with {with_}, a stop ends as {info.runtime.value}", hook="stop")
    failure = (info.error or {}).get("details", {}).get("failure")
    if info.error is not None and failure == FailureClass.TIMEOUT:
        raise Broken(f"with {with_}, {info.error['message']}", hook="stop")
    left = [pid for pid in pids if alive(pid)]
    if left:
        raise Broken(f"with {with_}, the processes {left} are left", hook="stop")


@rule(
    "faults.grandchild",
    mend="Do not wait in `stop` for processes to end: the kernel ends the whole tree afterwards.",
    see=STOP,
    basis="lifecycle.stop",
    settings=LINGERED,
)
async def grandchild(lab: Lab) -> None:
    """A helper that holds the worker's pipes and ignores SIGTERM ends with the service."""
    await lab.kernel.faults.inject(Fault(kind=FaultKind.HELPER), lab.service)
    await lab.start()
    lab.need_worker()
    notes = [each for each in lab.kernel.faults.helper_notes if each.exists()]
    pids = [int(each.read_text(encoding="ascii")) for each in notes]
    await _stops(lab, pids, "a helper that ignores SIGTERM")


@rule(
    "faults.kernel-gone",
    mend="Call `aiplayground.serving.parent.watch_parent()` first thing in the worker, or leave "
    "`ours=True` out of the LaunchSpec: then the kernel's guard watches.",
    see=START,
    basis="lifecycle.start",
)
async def kernel_gone(lab: Lab) -> None:
    """When the kernel goes without a word, its workers end by themselves."""
    await lab.start()
    lab.need_worker()
    for name, worker in list(lab.kernel.workers(lab.service).items()):
        pids = [each.pid for each in lab.kernel.process(worker).tree()]
        lab.kernel.cut_lifeline(worker)
        try:
            async with asyncio.timeout(ORPHAN_LIMIT):
                while any(alive(pid) for pid in pids):  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.02)
        except TimeoutError:
            left = [pid for pid in pids if alive(pid)]
            raise Broken(f"the worker '{name}' {left} outlives the kernel", hook="start") from None


@rule(
    "faults.slow-start",
    mend="Set no deadline of your own around `ctx.spawn`; `LaunchSpec.start_timeout` is for that, "
    "and each line of the worker's log renews it.",
    see=START,
    basis="lifecycle.start",
)
async def slow_start(lab: Lab) -> None:
    """A start that takes long, and shows progress in its log, succeeds."""
    slow = Fault(kind=FaultKind.SLOW_START, steps=12, seconds=0.25)
    await lab.kernel.faults.inject(slow, lab.service)
    async with lab.within("a slow start", lab.subject.patience + slow.steps * slow.seconds):
        info = await lab.kernel.start(lab.service)
    lab.need_worker()
    if info.runtime is not Runtime.RUNNING:
        raise Broken(f"after a slow start it is {info.runtime.value}", hook="start")


@rule(
    "faults.never-ready",
    mend="Let the error of `ctx.spawn` through; whether to try again is the caller's business.",
    see=START,
    basis="lifecycle.start",
)
async def never_ready(lab: Lab) -> None:
    """A worker that never gets ready is given up: -3 with the cause `timeout`."""
    after = "a worker that never gets ready"
    error = await _fails_to_start(lab, Fault(kind=FaultKind.NEVER_READY, seconds=STALLED), after)
    _expect_cause(error, FailureClass.TIMEOUT, after)


@rule(
    "faults.exit-during-start",
    mend="Let the error of `ctx.spawn` through.",
    see=START,
    basis="lifecycle.start",
)
async def exit_during_start(lab: Lab) -> None:
    """A worker that ends before it is ready fails the start at once: -3, with its exit code."""
    after = "an end of the worker during its start"
    error = await _fails_to_start(lab, Fault(kind=FaultKind.EXIT_AT_START, exit_code=41), after)
    if error.details.get("exitCode") != 41:  # the code just above
        raise Broken(f"{after}: its exit code is lost: {error.message}", hook="start")


@rule(
    "faults.garbage-output",
    mend="Expect anything in a worker's output, or do not read it: the kernel has it in the log.",
    see=START,
    basis="lifecycle.restart",
)
async def garbage_output(lab: Lab) -> None:
    """A worker that prints what is no text starts; if it ends then, the start fails with -3."""
    garbage = Fault(kind=FaultKind.GARBAGE, at=100_000)
    await lab.kernel.faults.inject(garbage, lab.service)
    await lab.start()
    lab.need_worker()
    await lab.stop()
    after = "garbage in the worker's output, and its end"
    await _fails_to_start(lab, Fault(kind=FaultKind.EXIT_AT_START), after)


@rule(
    "faults.port-taken",
    mend="Let the error of `ctx.spawn` through: a port that the user has fixed is not replaced.",
    see=START,
    basis="lifecycle.start",
)
async def port_taken(lab: Lab) -> None:
    """A fixed port that another program holds fails the start: -3, `port-taken`, with the port."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        other = await lab.other({"services": {lab.service: {"port": port}}})
        try:
            async with lab.within("a start on a port that is taken"):
                await other.kernel.start(lab.service)
        except ServiceFailed as error:
            _expect_cause(error, FailureClass.PORT_TAKEN, "a start on a port that is taken")
            if str(port) not in error.message:
                raise Broken(f"the port is not named: {error.message}", hook="start") from error
        else:
            await _need_worker(lab)
            raise Broken("it started on a port that another program holds", hook="start")
    if (await other.start()).port != port:
        raise Broken(f"with the port free again, it runs on {other.info.port}", hook="start")


async def _need_worker(lab: Lab) -> None:
    """Raise `NotApplicable` for a backend without worker processes."""
    await lab.start()
    lab.need_worker()


@rule(
    "faults.crash-at-byte",
    mend="An answer without its end is an error, never `finish_reason`: "
    "`raise await ctx.lost(url, error)`.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="inference.parallel",
)
async def crash_at_byte(lab: Lab) -> None:
    """An answer that breaks off, at whatever byte and however, is an error (-3) and has no end."""
    await lab.start()
    total = await lab.measured()
    plan = FaultPlan(SEED)
    places = plan.positions(total // 2, CUTS)
    faults = [
        Fault(kind=FaultKind.CUT, at=at, reset=bool(number % 2)) for number, at in enumerate(places)
    ]
    lab.plan(*faults)
    askings = [await lab.asking() for _ in faults]
    for asking in askings:
        after = f"a connection that broke at one of the bytes {places}"
        error = await asking.error(after)
        if asking.finished:
            raise Broken(f"after {after}, the answer was said to be complete", hook="chat")
        if isinstance(error, PluginError):
            raise Broken(f"after {after}, the hook broke: {error.message}", hook="chat")
        expect_code(error, -3, after)


@rule(
    "faults.half-open",
    mend="Wait as long as it takes: the kernel has the deadline (`timeouts.answer`), and closes "
    "the hook.",
    see=CHAT,
    needs=(declares(Capability.CHAT),),
    basis="inference.chat",
)
async def half_open(lab: Lab) -> None:
    """An engine that sends nothing more, with the connection open, is given up: -3, `timeout`."""
    after = "an engine that sends nothing more"
    await lab.start()
    began = time.monotonic()
    await lab.measured()
    # Longer than this engine needs for a whole answer: what is given up then does hang.
    lab.kernel.set_answer_timeout(max(STALLED, 2 * (time.monotonic() - began)))
    asking = await _held(lab)
    error = await asking.error(after)
    expect_code(error, -3, after)
    failure = error.details.get("failure")
    if failure != FailureClass.TIMEOUT:
        raise Broken(f"after {after}, the cause is '{failure}': {error.message}", hook="chat")
    with suppress(AIPlaygroundError):
        await lab.stop()


@rule(
    "faults.blocked-loop",
    mend="Await, or run blocking work with `await ctx.run_sync(function, ...)`.",
    see="docs/reference/hooks.md",
    basis="lifecycle.start",
)
async def blocked_loop(lab: Lab) -> None:
    """No hook holds the event loop for more than 100 ms, time and again."""
    for hook, seconds in await blocked_hooks(lab):
        raise Broken(f"it held the event loop for {seconds * 1000:.0f} ms", hook=hook)
