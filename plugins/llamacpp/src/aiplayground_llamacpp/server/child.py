"""A `llama-server` process: it comes up, answers at an address of its own, and ends.

It listens on a free port of 127.0.0.1 and wants a key that only its owner knows. It stays in its
owner's process group, which the kernel's guard ends with all that is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aiplayground.errors import AIPlaygroundError, FailureClass, InvalidSettings, ServiceFailed
from aiplayground.failures import classify
from aiplayground.serving.protocol import PARENT_FD_VARIABLE, TOKEN_VARIABLE
from aiplayground_llamacpp.enginelog import ERROR, INFO, WARN, LogBuffer, diagnose

PROGRAM = "llama-server"
END_GRACE = 0.5
"""Seconds in which it may end by itself after SIGTERM; it holds nothing that could be lost."""

LONGEST_LINE = 2**20
"""Bytes of a line of log; a longer one is cut."""

_LEVELS = {"D": 1, "I": INFO, "W": WARN, "E": ERROR}
_PREFIX = re.compile(r"^[\d.]+ ([DIWE]) (?:\w{2,6} +\S* *: )?")
_ADDRESS = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
_REFUSED = re.compile(
    r"error: (invalid argument|unknown argument|while handling|unexpected)", re.IGNORECASE
)
_USUAL = re.compile(r"need to evaluate at least 1 token|n_past was set to|cancel task")
"""What it warns of with every other request."""

_UNUSABLE = re.compile(r"shared librar|shared object|Library not loaded|DLL load", re.IGNORECASE)


def environment(source: Mapping[str, str], key: str) -> dict[str, str]:
    """Return the environment of the process: options of its own that stand there do not count.

    The key goes here, since everybody can read the command lines of a computer.
    """
    dropped = ("LLAMA_ARG_", "LLAMA_API_KEY", TOKEN_VARIABLE, PARENT_FD_VARIABLE)
    kept = {name: value for name, value in source.items() if not name.startswith(dropped)}
    return {**kept, "LLAMA_API_KEY": key, "GGML_NO_BACKTRACE": "1"}


class Child:
    """One process, started by `start`. `report` takes lines for the log: warnings, or all."""

    def __init__(
        self, argv: Sequence[str], path: Path, report: Callable[[str], None], *, verbose: bool
    ) -> None:
        self.key = secrets.token_hex(16)
        self.base_url = ""
        self._argv = list(argv)
        self._path = path
        self._report = report
        self._verbose = verbose
        self._lowest = 0 if verbose else WARN
        self._log = LogBuffer()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ending = False

    async def start(self, timeout: float) -> None:
        """Launch it and wait, for `timeout` seconds at most, until it listens.

        It then has the model in memory. Raises `InvalidModelFile`, `InvalidSettings` for options
        that it does not know, or `ServiceFailed`; what was launched is ended then.
        """
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                env=environment(os.environ, self.key),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                limit=LONGEST_LINE,
            )
        except OSError as error:
            raise _cannot_run(self._argv[0], error) from error
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            async with asyncio.timeout(timeout):
                self.base_url = await self._listening()
        except TimeoutError as error:
            await self.end()
            raise self._too_slow(timeout) from error
        except BaseException:
            await self.end()
            raise

    async def wait(self) -> AIPlaygroundError | None:
        """Wait until it is gone; return why, or None if its owner had ended it."""
        if self._reader is not None:
            await asyncio.shield(self._reader)
        return None if self._ending else self.failure()

    def failure(self) -> AIPlaygroundError:
        """Say why a process that ran went away."""
        return classify("llamacpp-backend", PROGRAM, self._returncode(), self._lines())

    async def end(self) -> None:
        """End it, for good after `END_GRACE` seconds."""
        self._ending = True
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(END_GRACE):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _listening(self) -> str:
        reader = self._reader
        if reader is None:
            raise RuntimeError("there is no process to wait for")
        both: set[asyncio.Future[str] | asyncio.Task[None]] = {self._address, reader}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._address.done():
            return self._address.result()
        raise self._not_started()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take in the log until the process is gone."""
        stream = process.stdout
        while stream is not None:
            try:
                data = await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                self._take(error.partial)
                break
            except asyncio.LimitOverrunError as error:
                data = await stream.readexactly(error.consumed)
            self._take(data)
        await process.wait()

    def _take(self, data: bytes) -> None:
        line = data.decode("utf-8", "replace").rstrip()
        if not self._address.done() and (found := _ADDRESS.search(line)):
            self._address.set_result(found[1])
        level, text = parse_line(line)
        for told in self._log.feed(level, text + "\n"):
            if told.level >= self._lowest and (self._verbose or not _USUAL.search(told.text)):
                self._report(f"{PROGRAM}: {told.text}")

    def _lines(self) -> list[str]:
        return [line.text for line in self._log.lines()]

    def _returncode(self) -> int:
        code = self._process.returncode if self._process else None
        return 0 if code is None else code

    def _not_started(self) -> AIPlaygroundError:
        lines = self._lines()
        refused = next((line for line in lines if _REFUSED.search(line)), None)
        if refused is not None:
            return InvalidSettings(
                f"{PROGRAM} does not take its options ({refused.strip()}). Check the settings "
                "'extra_arguments' and 'devices', or use a newer one."
            )
        unusable = self._returncode() < 0 or any(_UNUSABLE.search(line) for line in lines)
        return self.failure() if unusable else diagnose(self._log.lines(), self._path)

    def _too_slow(self, timeout: float) -> ServiceFailed:
        return ServiceFailed(
            f"{PROGRAM} did not load {self._path.name} within {timeout:.0f} s. Raise the setting "
            "'load_timeout' if the model is large.",
            failure=FailureClass.TIMEOUT,
            details={"log": self._lines()[-20:]},
        )


def parse_line(line: str) -> tuple[int, str]:
    """Return level and text of a line of its log; what is in no such form counts as an error."""
    found = _PREFIX.match(line)
    return (_LEVELS[found[1]], line[found.end() :]) if found else (ERROR, line)


def _cannot_run(program: str, error: OSError) -> ServiceFailed:
    return ServiceFailed(
        f"{program} cannot be run: {error.strerror or error}. Check the setting 'llama_server', or "
        "set the service up: aipg setup llamacpp-backend.",
        failure=FailureClass.MISSING_FILE,
        details={"program": program, "platform": sys.platform},
    )
