"""One file: its bytes come, go on where an earlier attempt ended, and count when they are right."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from filelock import FileLock, Timeout

from aiplayground.errors import ModelNotFound, ServiceNotAvailable
from aiplayground_models.partial import LOCK
from aiplayground_models.selection import RemoteFile

from .faults import Later, gave_up, write_failed, wrong_bytes
from .hub import Hub
from .item import Item
from .report import Reporter
from .writer import Writer

LONGEST_PAUSE = 30.0
LOCK_INTERVAL = 0.25
"""Seconds between looks whether another program has ended."""


class Transfer:
    """Fetches files of one repository at one commit."""

    def __init__(self, hub: Hub, commit: str, reporter: Reporter) -> None:
        self._hub = hub
        self._commit = commit
        self._reporter = reporter
        self._xet = hub.network.xet
        self._plain: set[str] = set()

    def fetch(self, item: Item) -> None:
        """Have a file complete and checked at `item.whole`.

        Raises errors of ours, among them `FileOperationError` for wrong content and full disks.
        """
        with self._lock(item):
            if item.whole.is_file():
                return
            mirror = self._hub.network.mirror is not None
            if self._attempt(item, mirror=mirror):
                return
            # Damaged on its way, at a mirror, or a leftover of a crashed system: once more, whole.
            self._reporter.status(
                "downloading", f"{item.file.path} was damaged: from the beginning"
            )
            if not self._attempt(item, mirror=False):
                raise wrong_bytes(self._hub.repo, item.file.path, self._hub.network.endpoint)

    def _attempt(self, item: Item, *, mirror: bool) -> bool:
        """Fetch and check; a file with other content is removed, and the answer is False."""
        with self._writing(item), Writer(item, self._reporter) as writer:
            self._bytes(item, writer, mirror=mirror)
            if not writer.is_right():
                item.partial.unlink()
                return False
        item.partial.replace(item.whole)
        return True

    def _bytes(self, item: Item, writer: Writer, *, mirror: bool) -> None:
        """Bring all bytes, whatever number of requests that takes."""
        failures, waited, most = 0, 0.0, writer.size
        while not writer.is_complete():
            try:
                self._once(item, writer, mirror=mirror)
                failures = 0
            except Later as later:
                # More than ever before, that is: a server may begin anew each time.
                failures = 1 if writer.size > most else failures + 1
                most = max(most, writer.size)
                if mirror:
                    mirror = False
                    continue
                pause = pause_for(self._hub, later, failures, waited)
                waited += pause
                self._reporter.status("waiting", f"{later.why}; again in {pause:.0f} s")
                time.sleep(pause)
                self._reporter.status("downloading")
            except (ModelNotFound, ServiceNotAvailable):
                if not mirror:
                    raise
                mirror = False

    def _once(self, item: Item, writer: Writer, *, mirror: bool) -> None:
        """Make one request, and take what it brings."""
        if not mirror and self._xet and self._over_xet(item, writer):
            return
        url = self._hub.url(item.file.path, self._commit, mirror=mirror)
        with self._hub.get(url, item.file.path, writer.size) as answer:
            if answer.status_code == 416:
                writer.restart(0)
                raise Later("the server has less than what is here; from the beginning")
            if answer.status_code not in (200, 206):
                raise self._hub.refusal(answer, item.file.path)
            encoded = answer.headers.get("content-encoding", "identity").lower() != "identity"
            writer.restart(begin_of(answer.status_code, answer.headers, writer.size, item.file))
            writer.expect(length_of(answer.headers, encoded=encoded))
            blocks = answer.iter_bytes() if encoded else answer.iter_raw()
            for block in blocks:
                writer.write(block)
        writer.ended()

    def _over_xet(self, item: Item, writer: Writer) -> bool:
        """Take the rest over Xet if the Hub stores the file so."""
        if not item.file.sha256 or item.file.path in self._plain:
            return False
        from .xet import blocks_from

        blocks = blocks_from(self._hub, item.file, self._commit, writer.size)
        if blocks is None:
            self._plain.add(item.file.path)
            return False
        try:
            for block in blocks:
                writer.write(block)
            writer.ended()
        except Later:
            self._xet = False  # its servers are others, which a firewall may not let through
            raise
        return True

    @contextmanager
    def _lock(self, item: Item) -> Iterator[None]:
        """Be the only one to work on a file; as long as another one gets on, wait."""
        lock = FileLock(item.part.with_name(item.part.name + LOCK))
        since, seen = time.monotonic(), -1
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                here = item.here()
                if here != seen:
                    since, seen = time.monotonic(), here
                    self._reporter.status("waiting", "another program downloads this file")
                    self._reporter.progress(item.file.path, here)
                if time.monotonic() - since > self._hub.network.patience:
                    raise ServiceNotAvailable(
                        f"Another program has been downloading {item.file.path} without getting on "
                        f"for {self._hub.network.patience:.0f} s. End it, and ask again.",
                        details={"reason": "locked", "file": item.file.path},
                    ) from None
                time.sleep(LOCK_INTERVAL)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self, item: Item) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_failed(error, str(item.part.parent.parent)) from error


def begin_of(status: int, headers: Any, have: int, file: RemoteFile) -> int:
    """Return the byte from which on an answer's bytes are, as the server says it.

    Raises `Later` for a part that cannot be joined: what is here is dropped then.
    """
    if status != 206:
        return 0
    unit, _, rest = headers.get("content-range", "").partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdecimal() or int(start) > have:
        raise Later("the server sent another part than was asked for")
    if file.size is not None and total.isdecimal() and int(total) != file.size:
        raise Later("the server has a file of another size")
    return int(start)


def length_of(headers: Any, *, encoded: bool) -> int | None:
    """Return how many bytes of the file an answer says that it has."""
    value = headers.get("content-length", "")
    return int(value) if value.isdecimal() and not encoded else None


def pause_for(hub: Hub, later: Later, failures: int, waited: float) -> float:
    """Return the seconds to wait before the next attempt. Raises `ServiceNotAvailable`.

    What the server asks for counts up to `patience` seconds in all; else waits double.
    """
    network = hub.network
    usual = min(network.retry_wait * 2 ** (failures - 1), LONGEST_PAUSE)
    usual *= random.uniform(0.8, 1.2)  # many clients must not come back in the same moment
    pause = usual if later.wait is None else max(later.wait, network.retry_wait)
    limited = later.status == 429 and later.wait is not None
    if (failures > network.retries and not limited) or waited + pause > network.patience:
        raise gave_up(
            later, endpoint=network.endpoint, token=bool(network.token), attempts=failures
        )
    return pause


def persist(hub: Hub, reporter: Reporter, ask: Callable[[], Any]) -> Any:
    """Ask the Hub something, again after what may pass."""
    failures, waited = 0, 0.0
    while True:
        try:
            return ask()
        except Later as later:
            failures += 1
            pause = pause_for(hub, later, failures, waited)
            waited += pause
            reporter.status("waiting", f"{later.why}; again in {pause:.0f} s")
            time.sleep(pause)
