"""From a `LaunchSpec` to a process that answers: port, environment, readiness, identity."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import failures, policy
from ._clock import now
from ._processes import ports
from ._processes.process import Process
from .errors import FailureClass, ServiceFailed
from .paths import file_error, is_disk_full
from .serving.protocol import PARENT_FD_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    import socket

    import httpx

    from ._processes.ledger import Ledger
    from .specs import LaunchSpec

LOOPBACK = "127.0.0.1"
KEPT_LINES = 200
PORT_TRIES = 3
"""How often a worker is launched whose port was lost to another program meanwhile."""


@dataclass(slots=True)
class Output:
    """What one run of a worker has printed: the last lines, how many, and when the last came."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    count: int = 0
    last_at: float = field(default_factory=now)

    def add(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)
        self.count += 1
        self.last_at = now()


@dataclass(slots=True)
class Launched:
    """A worker's process with the address it was given; `inode` is its socket's, if we bound it."""

    process: Process
    port: int
    output: Output
    inode: int | None = None

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"


@dataclass(slots=True, kw_only=True)
class Launcher:
    """Launches the workers of one service.

    `timeout`, `probe_timeout`, `grace` and `probe_interval` are in seconds; `fixed_port` is the one
    that the user insists on, `preferred_port` what a primary worker takes when it is free.
    """

    service: str
    http: Callable[[], httpx.AsyncClient]
    log: Callable[[str, str], None]
    ledger: Ledger | None
    timeout: float
    probe_timeout: float
    grace: float
    probe_interval: float
    preferred_port: int | None = None
    fixed_port: int | None = None
    keys: dict[str, str] = field(default_factory=dict)

    async def bring_up(
        self, spec: LaunchSpec, token: str, started: Callable[[Launched], None]
    ) -> Launched:
        """Launch and wait until it is ready, on another port if its own was lost meanwhile.

        `started` is called with each process as soon as it exists: the caller ends it. Raises
        `ServiceFailed`.
        """
        fixed = spec.primary and self.fixed_port is not None
        tried = 0
        while True:
            launched = await self.launch(spec, token, anywhere=tried > 0)
            started(launched)
            if spec.authorize:
                self.keys[launched.base_url] = token
            tried += 1
            try:
                await self.wait_ready(launched, spec)
            except ServiceFailed as error:
                lost = error.failure is FailureClass.PORT_TAKEN and not fixed
                if not lost or tried == PORT_TRIES:
                    raise
                self.log(spec.name, f"{error.message} Trying another port.")
                await launched.process.end(self.grace)
            else:
                return launched

    async def launch(self, spec: LaunchSpec, token: str, *, anywhere: bool = False) -> Launched:
        """Start the process; raises `ServiceFailed` when it cannot even be started."""
        output = Output()
        # Closed before anything else: a kept copy would make a dead worker's port accept and hang.
        with self._bind(spec, anywhere=anywhere) as listener:
            port = int(listener.getsockname()[1])
            if _hands_over(spec):
                fd = listener.fileno()
                inode = os.fstat(fd).st_ino
                process = await self._spawn(spec, token, output, port=port, fd=fd)
                return Launched(process, port, output, inode)
        return Launched(await self._spawn(spec, token, output, port=port), port, output)

    def forget(self, launched: Launched) -> None:
        """Hear that a process has ended: its key is for no other that gets its port."""
        self.keys.pop(launched.base_url, None)

    def _bind(self, spec: LaunchSpec, *, anywhere: bool) -> socket.socket:
        preferred = self.preferred_port if spec.primary and not anywhere else None
        fixed = self.fixed_port if spec.primary else None
        return self._bind_port(spec.name, preferred, fixed)

    def bind_primary(self, host: str) -> socket.socket:
        """Bind the port of a primary worker, for what is served in this process."""
        return self._bind_port("the service", self.preferred_port, self.fixed_port, host)

    def _bind_port(
        self, name: str, preferred: int | None, fixed: int | None, host: str = LOOPBACK
    ) -> socket.socket:
        try:
            return ports.bind(preferred, fixed=fixed, host=host)
        except OSError as error:
            raise ServiceFailed(
                f"{self.service}: no port for {name}"
                f"{f' at {fixed}' if fixed else ''}: {error.strerror or error}. Set another port: "
                f"aipg config set services.{self.service}.port PORT",
                failure=FailureClass.PORT_TAKEN,
                details={"service": self.service, "port": fixed},
            ) from error

    async def _spawn(
        self, spec: LaunchSpec, token: str, output: Output, *, port: int, fd: int | None = None
    ) -> Process:
        def on_line(line: str) -> None:
            output.add(line)
            self.log(spec.name, line)

        places = {"{port}": str(port), "{fd}": str(fd), "{token}": token}
        env = {name: _fill(value, places) for name, value in spec.env.items()}
        try:
            return await Process.launch(
                [_fill(each, places) for each in spec.argv],
                env=_environment(env, token),
                cwd=spec.cwd,
                pass_fds=() if fd is None else (fd,),
                guarded=not spec.ours,
                on_line=on_line,
                ledger=self.ledger,
            )
        except OSError as error:
            if is_disk_full(error) and self.ledger is not None:
                full = file_error("write to", self.ledger.folder, error)
                raise ServiceFailed(
                    f"{self.service}: {full.message}",
                    failure=FailureClass.EXIT,
                    details=full.details,
                ) from error
            raise ServiceFailed(
                f"{self.service}: cannot run {spec.argv[0]}: {error.strerror or error}. "
                f"Check that the program is there and may be run, or set the service up again.",
                failure=FailureClass.MISSING_FILE,
                details={"service": self.service, "program": str(spec.argv[0])},
            ) from error

    async def probe(self, launched: Launched, spec: LaunchSpec) -> bool:
        """Ask the ready path once."""
        import httpx

        try:
            answer = await self.http().get(
                launched.base_url + spec.ready_path, timeout=self.probe_timeout
            )
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    async def wait_ready(self, launched: Launched, spec: LaunchSpec) -> None:
        """Wait until the worker answers.

        Raises `ServiceFailed` as soon as the child exits, and when the deadline passes that its
        log output no longer extends.
        """
        exit_code = asyncio.ensure_future(launched.process.wait())
        began = now()
        timeout = spec.start_timeout or self.timeout
        try:
            while not await self._probe_or_exit(launched, spec, exit_code):
                moment = now()
                if moment > policy.start_deadline(began, launched.output.last_at, timeout):
                    raise self._too_slow(launched, spec, moment - began)
                await asyncio.wait({exit_code}, timeout=self.probe_interval)
            await self._check_identity(launched, spec, exit_code)
        finally:
            exit_code.cancel()

    async def _probe_or_exit(
        self, launched: Launched, spec: LaunchSpec, exit_code: asyncio.Future[int]
    ) -> bool:
        probe = asyncio.ensure_future(self.probe(launched, spec))
        both: set[asyncio.Future[Any]] = {probe, exit_code}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if exit_code.done():
                raise self.explain(launched, spec, exit_code.result())
            return probe.result()
        finally:
            probe.cancel()

    async def _check_identity(
        self, launched: Launched, spec: LaunchSpec, exit_code: asyncio.Future[int]
    ) -> None:
        # Another kernel may have bound the port as well: on Linux two sockets can, while neither
        # listens and the port has connections in TIME_WAIT.
        if await asyncio.to_thread(self._is_ours, launched) is False:
            holder = await asyncio.to_thread(ports.holder, launched.port)
            if holder is None and (await asyncio.wait({exit_code}, timeout=self.probe_timeout))[0]:
                raise self.explain(launched, spec, exit_code.result())  # it ended since it answered
            raise ServiceFailed(
                f"{self.service}: port {launched.port} is answered by {holder or 'another program'}"
                f", not by the worker '{spec.name}'. Stop that program or set another port: "
                f"aipg config set services.{self.service}.port PORT",
                failure=FailureClass.PORT_TAKEN,
                details={"service": self.service, "port": launched.port},
            )

    @staticmethod
    def _is_ours(launched: Launched) -> bool | None:
        if launched.inode is not None:
            return ports.listens_on(launched.port, launched.inode)
        return ports.listener_in_tree(launched.port, launched.process.tree())

    def explain(self, launched: Launched, spec: LaunchSpec, returncode: int) -> ServiceFailed:
        """Say why a worker ended."""
        return failures.classify(self.service, spec.name, returncode, list(launched.output.lines))

    def _too_slow(self, launched: Launched, spec: LaunchSpec, waited: float) -> ServiceFailed:
        return ServiceFailed(
            f"{self.service}: {spec.name} did not answer within {waited:.0f} s. "
            f"If the model is large, raise the setting 'timeouts.start'.",
            failure=FailureClass.TIMEOUT,
            details={"service": self.service, "log": list(launched.output.lines)[-20:]},
        )


def _hands_over(spec: LaunchSpec) -> bool:
    """Whether the worker gets a bound socket from us."""
    return any("{fd}" in each for each in spec.argv) and os.name == "posix"


def _fill(text: str, places: Mapping[str, str]) -> str:
    for place, value in places.items():
        text = text.replace(place, value)
    return text


def _is_ours_alone(variable: str) -> bool:
    """Whether a variable is for the kernel: its lifeline, and the keys of attached endpoints."""
    name = variable.upper()
    return name == PARENT_FD_VARIABLE or (name.startswith("AIPG_") and name.endswith("__API_KEY"))


def _environment(extra: Mapping[str, str], token: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not _is_ours_alone(name)}
    env.update({"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", TOKEN_VARIABLE: token})
    env.update(extra)
    return env
