"""The models on this machine: looked for, watched, removed. One library for each kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InvalidModelFile
from .events import ModelsChanged
from .models import LocalModel, ModelIndex, ModelScan, match_model, plan_removal

if TYPE_CHECKING:
    import logging

    from ._bus import Bus
    from .models import ModelPaths, Removal

CACHE = Path("models", "index.json")
"""The file with what was read of model files, below the folder for caches."""

GGUF_ONLY = ("gguf",)


class _Look:
    """A scan that several share: taken when the first asks."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._turn = asyncio.Lock()
        self._found: ModelScan | None = None
        self.over = False
        """A task that outlives the look has it in its context, but must look for itself."""

    async def scan(self) -> ModelScan:
        async with self._turn:
            if self._found is None:
                self._found = await self.library.noted_scan()
            return self._found


_look: ContextVar[_Look | None] = ContextVar("look", default=None)


class Library:
    """The model files on this machine: folders, model packs, and files that were named.

    `scan` looks at the disk, in a thread; what has not changed is not read again.
    """

    def __init__(
        self,
        cache: Path,
        paths: ModelPaths,
        packs: Sequence[Path],
        bus: Bus,
        logger: logging.Logger,
    ) -> None:
        self.paths = paths
        self._logger = logger
        self.packs = tuple(packs)
        self._bus = bus
        self._named: set[Path] = set()
        self._index = ModelIndex(cache / CACHE)
        self._seen: ModelScan | None = None
        self._turn = asyncio.Lock()

    async def scan(self) -> ModelScan:
        """Return what is there now: models of every format, and what is wrong with other files."""
        look = _look.get()
        if look is not None and look.library is self and not look.over:
            return await look.scan()
        return await asyncio.to_thread(self._scan)

    def _scan(self) -> ModelScan:
        extra = [*self.packs, *sorted(self._named)]
        before = self._index.trouble
        found = self._index.scan(self.paths.roots(), extra, self.paths.kind_of)
        if self._index.trouble is not None and before is None:
            self._logger.warning("The cache of models cannot be written: %s", self._index.trouble)
        return found

    async def noted_scan(self) -> ModelScan:
        """Look at the disk for a listing that is given out."""
        async with self._turn:
            scan = await asyncio.to_thread(self._scan)
            # What is given out is what later looks are compared with: no change goes by untold.
            self._seen = self._seen or scan
        return scan

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Look at the disk once at most for all that is asked inside, hooks of plugins included."""
        present = _look.get()
        if present is not None and present.library is self and not present.over:
            yield
            return
        look = _Look(self)
        token = _look.set(look)
        try:
            yield
        finally:
            look.over = True
            _look.reset(token)

    async def local(self, formats: Collection[str] = GGUF_ONLY) -> tuple[LocalModel, ...]:
        """Return the models of these formats."""
        return tuple(each for each in (await self.scan()).models if each.format in formats)

    async def find(self, name: str, formats: Collection[str] = GGUF_ONLY) -> LocalModel:
        """Return the model of this name, or at this path.

        Raises `ModelNotFound`, and `InvalidModelFile` for one that is there but damaged.
        """
        found = (await self.check(name)).models
        return match_model(name, [each for each in found if each.format in formats])

    async def check(self, name: str) -> ModelScan:
        """Look at the disk; raise `InvalidModelFile` if it is that model which is damaged."""
        found = await self.scan()
        for problem in found.problems:
            if name in (str(problem.path), problem.path.name, problem.path.stem):
                raise InvalidModelFile(
                    problem.message, details={"path": str(problem.path), "reason": problem.reason}
                )
        return found

    def add(self, path: Path) -> None:
        """Take in a file outside the folders, because somebody named it."""
        self._named.add(path.expanduser().resolve())

    async def refresh(self) -> bool:
        """Look at the disk, and tell subscribers if models changed since they were last looked at.

        Returns whether they did; the first look has nothing to compare with.
        """
        async with self._turn:
            now = await asyncio.to_thread(self._scan)
            before, self._seen = self._seen, now
        if before is None or before == now:
            return False
        self._bus.publish(ModelsChanged(count=len(now.models)))
        return True

    async def plan_removal(self, name: str) -> Removal:
        """Say what removing a model means. Raises `ModelNotFound` and `FileOperationError`."""
        scan = await self.scan()
        return await asyncio.to_thread(
            plan_removal, match_model(name, scan.models), scan, self.paths
        )

    async def remove(self, removal: Removal) -> None:
        """Remove a model's files; it must not be in memory. Raises `FileOperationError`."""
        try:
            await asyncio.to_thread(removal.run)
        finally:
            await self.refresh()
