"""Making faults happen to a backend that knows nothing of it.

`FaultyKernel` is a kernel whose workers can be made to fail: their commands are run by a wrapper,
their connections go through a gate, and signals reach their programs.

    async with FaultyKernel(home=folder, plugins={"mine": plugin}, discover=False) as kernel:
        await kernel.start("mine")
        await kernel.faults.inject(Fault(kind=FaultKind.KILL), "mine")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from aiplayground import _launch
from aiplayground._context import Context
from aiplayground.kernel import Kernel

from . import _wrap
from .faults import LAUNCH_FAULTS, STREAM_FAULTS, Fault, FaultKind
from .gate import Gate

if TYPE_CHECKING:
    from aiplayground._launch import Launched
    from aiplayground._processes.process import Process
    from aiplayground._router import Route
    from aiplayground._worker import Worker
    from aiplayground.specs import LaunchSpec

_GUARD = "_processes/guard.py"


class GatedLaunch(_launch.Launched):
    """A worker's process whose address is a gate's."""

    def __init__(self, launched: Launched, gate: Gate) -> None:
        super().__init__(launched.process, launched.port, launched.output, launched.inode)
        self.gate = gate

    @property
    def base_url(self) -> str:
        """The gate's address, in place of the worker's own."""
        return f"http://{_launch.LOOPBACK}:{self.gate.port}"


class Injector:
    """The faults of one kernel. `gated`: put a gate in front of every worker."""

    def __init__(self, kernel: FaultyKernel, *, gated: bool = True) -> None:
        self.gated = gated
        self.launches: list[str] = []
        """The workers that were launched, by name, in order; restarts too."""
        self._kernel = kernel
        self._active: list[Fault] = []
        self._gates: dict[tuple[str, str], Gate] = {}
        self._closers: set[asyncio.Task[None]] = set()
        self._notes = 0

    async def inject(self, fault: Fault, service: str, worker: str | None = None) -> None:
        """Let a fault happen to a worker of a service (to its primary one, if none is named).

        Faults of a launch hold for every launch until `calm`; those of a connection happen to the
        next answer; signals are sent at once.
        """
        if fault.kind in LAUNCH_FAULTS:
            self._active.append(fault)
        elif fault.kind in STREAM_FAULTS:
            self.gate(service, worker).planned.append(fault)
        else:
            number = signal.SIGKILL if fault.kind is FaultKind.KILL else signal.SIGSTOP
            for pid in self.programs(service, worker):
                with contextlib.suppress(ProcessLookupError):  # it went away by itself
                    os.kill(pid, number)

    def calm(self) -> None:
        """End every fault of launches and connections."""
        self._active.clear()
        for gate in self._gates.values():
            gate.release()

    def gate(self, service: str, worker: str | None = None) -> Gate:
        """Return the gate in front of a worker."""
        name = worker or self._kernel.primary(service).name
        return self._gates[service, name]

    def gates(self, service: str) -> list[Gate]:
        """Return the gates of all workers of a service."""
        return [gate for (name, _), gate in self._gates.items() if name == service]

    def programs(self, service: str, worker: str | None = None) -> list[int]:
        """Return the process ids of a worker's own programs, the kernel's guard left out."""
        found = self._kernel.workers(service)
        name = worker or self._kernel.primary(service).name
        process = self._kernel.process(found[name])
        return [each.pid for each in process.tree() if not _is_guard(each)]

    @property
    def helper_notes(self) -> list[Path]:
        """The files in which injected helpers have noted their process ids."""
        folder = self._kernel.paths.runtime
        return [folder / f"helper-{number}" for number in range(1, self._notes + 1)]

    def altered(self, spec: LaunchSpec) -> LaunchSpec:
        """Return what is launched in place of `spec`."""
        for fault in reversed(self._active):
            self._notes += fault.kind is FaultKind.HELPER
            note = str(self._kernel.paths.runtime / f"helper-{self._notes}")
            options = json.dumps(fault.launch_options(note))
            argv = [sys.executable, "-I", "-S", str(_wrap.__file__), options, "--", *spec.argv]
            spec = replace(spec, argv=argv)
            if fault.kind is FaultKind.NEVER_READY:
                spec = replace(spec, start_timeout=fault.seconds)
        return spec

    def new_gate(self) -> Gate | None:
        """Make the gate of a launch that follows."""
        if not self.gated:
            return None
        gate = Gate()
        gate.listen()
        return gate

    def add_gate(self, service: str, gate: Gate) -> None:
        """Take in a gate that stands in front of an endpoint which the kernel did not launch."""
        self._gates[service, "endpoint"] = gate

    def attach(self, service: str, name: str, launched: Launched, gate: Gate) -> GatedLaunch:
        """Put a gate in front of a worker that was launched just now; it ends with the process."""
        gate.target = launched.port
        self._gates[service, name] = gate
        closer = asyncio.create_task(self._close_with(launched.process, gate), name="gate")
        self._closers.add(closer)
        closer.add_done_callback(self._closers.discard)
        return GatedLaunch(launched, gate)

    async def _close_with(self, process: Process, gate: Gate) -> None:
        await process.wait()
        await gate.close()

    async def close(self) -> None:
        """Wait until the gates are closed."""
        if self._closers:
            await asyncio.wait(self._closers, timeout=_launch.PORT_TRIES)


@dataclass(slots=True, kw_only=True)
class FaultyLauncher(_launch.Launcher):
    """A launcher that asks an injector what to launch."""

    faults: Injector

    async def bring_up(
        self, spec: LaunchSpec, token: str, started: Callable[[Launched], None]
    ) -> Launched:
        """Launch what the faults make of `spec`."""
        altered = self.faults.altered(spec)
        return await _launch.Launcher.bring_up(self, altered, token, started)

    async def launch(self, spec: LaunchSpec, token: str, *, anywhere: bool = False) -> Launched:
        """Start the process behind a gate, if there are to be gates."""
        # The gate first: between the start of the process and its record nothing may suspend.
        gate = self.faults.new_gate()
        try:
            launched = await _launch.Launcher.launch(self, spec, token, anywhere=anywhere)
        except BaseException:
            if gate is not None:
                await gate.close()
            raise
        self.faults.launches.append(spec.name)
        if gate is None:
            return launched
        return self.faults.attach(self.service, spec.name, launched, gate)


class FaultyKernel(Kernel):
    """A kernel with an injector, `faults`, and a view of what it keeps to itself.

    Takes what `Kernel` takes, and `gated`: whether workers get a gate in front of them.
    """

    def __init__(self, *, gated: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.faults = Injector(self, gated=gated)

    def _launcher(self, **options: Any) -> FaultyLauncher:
        return FaultyLauncher(**options, faults=self.faults)

    async def close(self) -> None:
        """Go down, gates included."""
        self.faults.calm()
        await super().close()
        await self.faults.close()

    def workers(self, service: str) -> dict[str, Worker]:
        """Return the workers of a service by name."""
        return self._services[service].pool.workers

    def primary(self, service: str) -> Worker:
        """Return the primary worker of a service; raises LookupError if there is none."""
        worker = self._services[service].pool.primary
        if worker is None:
            raise LookupError(f"{service} has no primary worker now")
        return worker

    def process(self, worker: Worker) -> Process:
        """Return the process of a worker that was launched."""
        launched = worker._launched  # noqa: SLF001  # what this module is for
        if launched is None:
            raise LookupError(f"the worker '{worker.name}' has no process now")
        return launched.process

    def cut_lifeline(self, worker: Worker) -> None:
        """Let a worker believe that the kernel is gone."""
        self.process(worker)._spawned.cut()  # noqa: SLF001  # as above

    def route(self, service: str, hook: str) -> Route | None:
        """Return what answers a hook of a service: its own, else the kernel's default."""
        return self._router.find(service, hook)

    def context(self, service: str, model: str | None = None) -> Context:
        """Return a context as the service's hooks are given."""
        return Context(self._services[service], model)

    def answers(self, service: str) -> int:
        """Return how many answers of a service are in progress."""
        return len(self._services[service].streams)

    def set_answer_timeout(self, seconds: float) -> None:
        """Change how long an engine may send nothing, for the answers to come."""
        settings = self._host.settings
        timeouts = settings.timeouts.model_copy(update={"answer": seconds})
        self._host.settings = settings.model_copy(update={"timeouts": timeouts})

    async def forget_connections(self) -> None:
        """Close the connections that the client keeps for the next request."""
        await self._http.renew()


def _is_guard(process: psutil.Process) -> bool:
    try:
        command: Sequence[str] = process.cmdline()
    except psutil.Error:
        return False
    return any(part.replace(os.sep, "/").endswith(_GUARD) for part in command[1:4])
