"""What a service needs of its kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._bus import Bus
from ._launch import Launcher
from ._library import Library
from ._logs import LogHub
from ._router import Router

if TYPE_CHECKING:
    import httpx

    from ._processes.ledger import Ledger
    from .admission import Admission
    from .kernel import Kernel
    from .paths import Paths
    from .settings import KernelSettings, Layers


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
