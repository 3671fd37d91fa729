"""The settings of ai-backend; the reference in the docs is made from these fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Names = Annotated[tuple[str, ...], Field(strict=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """How the gateway serves. Changes hold from its next start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        description=(
            "Address to listen on. Beyond loopback (0.0.0.0, a LAN address) every request needs "
            "the API key (`aipg config api-key`)."
        ),
    )
    allowed_hosts: Names = Field(
        default=(),
        description=(
            "Further host names that requests may be addressed to, without a port. This computer's "
            "loopback names always may."
        ),
    )
    allowed_origins: Names = Field(
        default=(),
        description=(
            "Web pages that may call the gateway, as origins: `https://example.com`, "
            "`http://localhost:3000`. Pages that the gateway itself serves always may."
        ),
    )
    start_on_demand: bool = Field(
        default=True,
        description="Start the backend of a model that a request names, if it does not run.",
    )
    active: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=256,
        description="Requests that are passed to one backend at the same time; others wait.",
    )
    waiting: Annotated[int, Field(ge=0, le=65536)] = Field(
        default=1024,
        description="Requests that wait for one backend at most; further ones are answered 429.",
    )
    max_body: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32, description="MiB of a request's body at most; more is answered 413."
    )
    max_headers: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=64, description="KiB of a request's headers at most; more is answered 431."
    )
    max_connections: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=4096, description="Open connections at most; further ones are answered 503."
    )
    max_ipc: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=1024, description="Programs and pages on the IPC door at most."
    )
    header_timeout: Seconds = Field(
        default=10.0, description="Seconds in which a client must have sent its headers."
    )
    body_timeout: Seconds = Field(
        default=30.0, description="Seconds that a client may send nothing of a body it began."
    )
    send_timeout: Seconds = Field(
        default=60.0, description="Seconds that a client may read nothing of its answer."
    )
    heartbeat: Seconds = Field(
        default=15.0,
        description="Seconds of silence after which a comment is sent into an event stream.",
    )
    access_log: bool = Field(
        default=True, description="Write a line of JSON for each request to the service's log."
    )
