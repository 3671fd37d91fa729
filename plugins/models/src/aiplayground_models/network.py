"""How the Hub is reached, from the settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .fetcher.job import Network

if TYPE_CHECKING:
    from aiplayground.settings import HubSettings

ENDPOINT = "https://huggingface.co"


def endpoint_of(settings: HubSettings) -> str:
    """Return the address of the Hub."""
    return settings.endpoint or os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT


def network_of(settings: HubSettings, token: str | None) -> Network:
    """Return what a fetcher has to know."""
    return Network(
        endpoint=endpoint_of(settings),
        mirror=settings.mirror,
        proxy=settings.proxy.get_secret_value() if settings.proxy else None,
        ca_bundle=str(settings.ca_bundle) if settings.ca_bundle else None,
        timeout=settings.timeout,
        retries=settings.retries,
        retry_wait=settings.retry_wait,
        patience=settings.patience,
        xet=settings.xet,
        token=token,
    )
