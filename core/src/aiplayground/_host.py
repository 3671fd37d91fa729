"""What a service needs of its kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ._bus import Bus
from ._launch import Launcher
from ._logs import LogHub
from ._router import Router
from .errors import InvalidModelFile
from .models import LocalModel, ModelIndex, ModelScan, match_model

if TYPE_CHECKING:
    import httpx

    from ._processes.ledger import Ledger
    from .admission import Admission
    from .kernel import Kernel
    from .paths import Paths
    from .settings import KernelSettings, Layers


class Library:
    """The model files on this machine: folders, model packs, and files that were named."""

    def __init__(self, roots: Sequence[Path], packs: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self.packs = tuple(packs)
        self._named: set[Path] = set()
        self._index = ModelIndex()

    async def scan(self) -> ModelScan:
        """Look at the disk, in a thread; what has not changed is not read again."""
        extra = [*self.packs, *sorted(self._named)]
        return await asyncio.to_thread(self._index.scan, self.roots, extra)

    async def find(self, name: str) -> LocalModel:
        """Return the model of this name, or at this path.

        Raises `ModelNotFound`, and `InvalidModelFile` for one that is there but damaged.
        """
        return match_model(name, (await self.check(name)).models)

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


@dataclass(slots=True, kw_only=True)
class Host:
    """The kernel as its services see it; `keys` are those of workers that ask for one, by URL."""

    kernel: Kernel
    settings: KernelSettings
    layers: Layers
    paths: Paths
    router: Router
    bus: Bus
    logs: LogHub
    library: Library
    middleware: Sequence[object]
    http: Callable[[], httpx.AsyncClient]
    announce: Callable[[str], None]
    hide: Callable[[str], str]
    admission: Admission
    ledger: Ledger | None = None
    keys: dict[str, str] = field(default_factory=dict)
    launcher: Callable[..., Launcher] = Launcher
