"""What a fetcher is told to do, as it crosses the pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How to reach the Hub. Times in seconds."""

    endpoint: str
    mirror: str | None = None
    proxy: str | None = None
    ca_bundle: str | None = None
    timeout: float = 30.0
    retries: int = 5
    retry_wait: float = 1.0
    patience: float = 300.0
    xet: bool = True
    token: str | None = None

    def __repr__(self) -> str:
        """Without the token and the proxy's password."""
        return f"Network(endpoint={self.endpoint!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One download: what of which repository, and where to. Paths are absolute.

    `folder` is what the files go into; `base` is the folder of ours around it, which keeps what is
    not complete; other parts that did not change for `keep_days` are removed there (0: none).
    """

    network: Network
    repo: str
    revision: str | None = None
    quant: str | None = None
    paths: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    folder: str
    base: str
    connections: int = 4
    keep_days: float = 0.0

    def dump(self) -> bytes:
        """Return it as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def load(cls, line: str | bytes) -> Job:
        """Read it from a line."""
        fields: dict[str, Any] = json.loads(line)
        network: Mapping[str, Any] = fields.pop("network")
        for name in ("paths", "include", "exclude"):
            fields[name] = tuple(fields[name])
        return cls(network=Network(**network), **fields)
