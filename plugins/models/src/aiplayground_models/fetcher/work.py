"""One download from the list of files to the last of them in its place."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from aiplayground.errors import FileOperationError
from aiplayground_models.partial import DAY, forget, sweep, write_note
from aiplayground_models.place import HIDDEN, inside
from aiplayground_models.selection import RemoteFile, Wanted, choose, main_file

from .faults import disk_full, write_failed
from .hub import Hub
from .item import Item, is_there, part_name, size_of
from .job import Job
from .report import Reporter
from .transfer import Transfer, persist

SPARE = 2**26
"""Bytes that are left free on a disk: a full one breaks other programs."""


def work(job: Job, reporter: Reporter) -> None:
    """Do a job. Raises errors of ours."""
    reporter.status("resolving")
    hub = Hub(job.network, job.repo)
    commit, files = persist(hub, reporter, lambda: hub.listing(job.revision))
    wanted = Wanted(job.quant, job.paths, job.include, job.exclude)
    chosen = [_known(hub, reporter, each, commit) for each in choose(job.repo, files, wanted)]
    items = list(_items(job, commit, chosen))
    main = main_file(chosen)
    sizes = [each.file.size for each in items]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    reporter.tell(
        "plan", commit=commit, total=total, file=main.path, files=[e.path for e in chosen]
    )
    try:
        _fetch_all(job, items, Transfer(hub, commit, reporter), reporter)
    except OSError as error:
        raise write_failed(error, job.base) from error
    placed = next(item.target for item in items if item.file is main)
    reporter.tell(
        "done",
        path=str(placed if len(items) == 1 or main.path.endswith(".gguf") else job.folder),
        files=[str(item.target) for item in items],
    )


def _known(hub: Hub, reporter: Reporter, file: RemoteFile, commit: str) -> RemoteFile:
    """Return a file with size and checksum, asked for where the list has none (some mirrors)."""
    if file.size is not None and (file.sha256 or file.sha1):
        return file
    said = persist(hub, reporter, lambda: hub.metadata(file.path, commit))
    etag = (said.etag or "").lower()
    is_hash = all(c in "0123456789abcdef" for c in etag)
    return replace(
        file,
        size=file.size if file.size is not None else said.size,
        sha256=file.sha256 or (etag if is_hash and len(etag) == 64 else None),
        sha1=file.sha1 or (etag if is_hash and len(etag) == 40 else None),
    )


def _items(job: Job, commit: str, files: Sequence[RemoteFile]) -> Iterator[Item]:
    taken = Counter[str]()
    for file in files:
        name = part_name(job.repo, commit, file)
        taken[name] += 1
        # The same content twice in one repository.
        name = name if taken[name] == 1 else f"{name}-{taken[name]}"
        yield Item(file, inside(Path(job.folder), file.path), Path(job.base) / HIDDEN / name)


def _fetch_all(job: Job, items: Sequence[Item], transfer: Transfer, reporter: Reporter) -> None:
    """Fetch what is missing, then put it all in place, so that nothing half-done is seen there."""
    missing = []
    for item in items:
        if item.target.is_file() and item.file.size == size_of(item.target):
            reporter.status("verifying", f"{item.file.path} is here already")
        if is_there(item):
            reporter.progress(item.file.path, item.file.size or 0)
        else:
            missing.append(item)
    (Path(job.base) / HIDDEN).mkdir(parents=True, exist_ok=True)
    if job.keep_days:
        oldest = time.time() - job.keep_days * DAY
        sweep(Path(job.base), before=oldest, but={each.part for each in items})
    for item in missing:
        write_note(item.part, job.repo, item.file.path, item.file.size)
    _check_room(job, missing)
    reporter.status("downloading")
    _all_of(job, missing, transfer)
    for item in sorted(missing, key=lambda each: each.file.path, reverse=True):
        _place(item)


def _all_of(job: Job, items: Sequence[Item], transfer: Transfer) -> None:
    """Fetch files, some at a time. Raises what the first one that fails does, at once."""
    pool = ThreadPoolExecutor(job.connections, thread_name_prefix="fetch")
    try:
        waiting = [pool.submit(transfer.fetch, item) for item in items]
        done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
        for each in done:
            each.result()
    finally:
        # Those that go on wait for the network, and end with this process.
        pool.shutdown(wait=False, cancel_futures=True)


def _place(item: Item) -> None:
    """Move a file to its place: whoever looks sees the old one or the whole new one."""
    item.target.parent.mkdir(parents=True, exist_ok=True)
    if item.target.is_dir():
        raise FileOperationError(
            f"{item.target} is a folder; the file of that name cannot be put there.",
            details={"path": str(item.target)},
        )
    item.whole.replace(item.target)
    forget(item.part)


def _check_room(job: Job, items: Sequence[Item]) -> None:
    """Raise `FileOperationError` if the disk has no room for what is still to come."""
    needed = sum(max(0, (item.file.size or 0) - item.here()) for item in items)
    free = shutil.disk_usage(job.base).free
    if needed and needed + SPARE > free:
        raise disk_full(job.base, needed, free)
