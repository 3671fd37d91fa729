"""The Hub through `huggingface_hub`: its client, and what a repository holds.

Of the library only what it exports is used. Its own `hf_hub_download` neither resumes a file after
the process ended nor shows the bytes, so the bytes are fetched with the library's client (`get`).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import (
    HfApi,
    close_session,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    is_offline_mode,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # loaded lazily

from aiplayground.errors import InvalidSettings, ServiceNotAvailable
from aiplayground_models.selection import RemoteFile

from .faults import PROXY_REFUSES, Later, explain, gave_up, not_trusted, proxy_refuses
from .job import Network


class Hub:
    """One repository at one endpoint."""

    def __init__(self, network: Network, repo: str) -> None:
        self.network = network
        self.repo = repo
        self._origin = origin(network.endpoint)
        if is_offline_mode():
            raise ServiceNotAvailable(
                "The Hub is not asked: HF_HUB_OFFLINE is set. Unset it to download.",
                details={"reason": "offline"},
            )
        self._verify = authorities(network.ca_bundle)
        set_client_factory(self._client)

    def listing(self, revision: str | None) -> tuple[str, list[RemoteFile]]:
        """Return the commit that a revision is now, and its files."""
        api = HfApi(endpoint=self.network.endpoint, token=self.network.token or False)
        with self.faults():
            info = api.model_info(
                self.repo, revision=revision, files_metadata=True, timeout=self.network.timeout
            )
        files = [
            RemoteFile(
                path=each.rfilename,
                size=each.lfs.size if each.lfs else each.size,
                sha256=each.lfs.sha256 if each.lfs else None,
                sha1=None if each.lfs else each.blob_id,
            )
            for each in info.siblings or ()
        ]
        return info.sha or revision or "main", files

    def metadata(self, path: str, commit: str) -> Any:
        """Return what the Hub's headers say of a file (`HfFileMetadata`)."""
        with self.faults(path):
            return get_hf_file_metadata(
                self.url(path, commit),
                token=self.network.token or False,
                timeout=self.network.timeout,
                endpoint=self.network.endpoint,
            )

    def url(self, path: str, commit: str, *, mirror: bool = False) -> str:
        """Return the address of a file."""
        at = self.network.mirror if mirror and self.network.mirror else self.network.endpoint
        return hf_hub_url(self.repo, path, revision=commit, endpoint=at.rstrip("/"))

    def headers(self) -> dict[str, str]:
        """Return the headers of a request; the token goes to the endpoint alone (`_guard`)."""
        return {
            **build_hf_headers(token=self.network.token or False, library_name="aiplayground"),
            # As it is: a compressed transfer would have other places to go on from.
            "Accept-Encoding": "identity",
        }

    @contextmanager
    def get(self, url: str, path: str, start: int) -> Iterator[httpx2.Response]:
        """Ask for a file from a byte on. Raises what `faults` does, also while it is read."""
        headers = self.headers() | ({"Range": f"bytes={start}-"} if start else {})
        with (
            self.faults(path),
            get_session().stream(
                "GET", url, headers=headers, timeout=self.network.timeout, follow_redirects=True
            ) as answer,
        ):
            yield answer

    def refusal(self, answer: httpx2.Response, path: str) -> Exception:
        """Return the error for an answer that is none of what was asked for."""
        return explain(
            answer.status_code,
            answer.headers,
            repo=self.repo,
            endpoint=self.network.endpoint,
            path=path,
            token=self.network.token is not None,
        )

    @contextmanager
    def faults(self, path: str = "") -> Iterator[None]:
        """Turn the library's errors into ours, or into `Later`."""
        try:
            yield
        except HfHubHTTPError as error:
            raise self.refusal(error.response, path) from error
        except HFValidationError as error:
            raise ServiceNotAvailable(f"The Hub does not take this name: {error}") from error
        except httpx2.TimeoutException as error:
            raise Later(f"nothing came for {self.network.timeout:g} s") from error
        except httpx2.ProxyError as error:
            if str(error).startswith(str(PROXY_REFUSES)):
                raise proxy_refuses() from error
            # Its text may hold the proxy's address, and so a password.
            raise Later("the proxy refuses the connection") from error
        except httpx2.HTTPError as error:
            text = str(error) or type(error).__name__
            _, untrusted, why = text.partition("CERTIFICATE_VERIFY_FAILED] ")
            if untrusted:
                host = error.request.url.host
                raise not_trusted(host, why.partition(" (_ssl")[0]) from error
            raise Later(text) from error

    def _client(self) -> httpx2.Client:
        network = self.network
        return httpx2.Client(
            follow_redirects=True,
            timeout=network.timeout,
            proxy=network.proxy,
            verify=self._verify,
            event_hooks={"request": [self._guard]},
        )

    def _guard(self, request: httpx2.Request) -> None:
        """Let the token go to the endpoint alone, wherever a request is sent on to."""
        if origin(str(request.url)) != self._origin:
            request.headers.pop("authorization", None)


def whoami(network: Network) -> str:
    """Return whose token it is. Raises `ServiceNotAvailable` for one that the Hub does not know."""
    hub = Hub(network, "")
    try:
        with hub.faults():
            said = HfApi(endpoint=network.endpoint, token=network.token).whoami()
    except Later as later:
        raise gave_up(later, endpoint=network.endpoint, token=True, attempts=1) from later
    finally:
        close_session()
    return str(said.get("name", "somebody"))


def authorities(ca_bundle: str | None) -> ssl.SSLContext | bool:
    """Return whom to trust: the system's authorities, or those of a file.

    Raises `InvalidSettings` for a file that cannot be used.
    """
    if ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidSettings(
            f"The setting 'hub.ca_bundle' names {ca_bundle}, which cannot be used: "
            f"{error.strerror or error}. It must be a file with certificates in PEM.",
            details={"field": "hub.ca_bundle"},
        ) from error


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of an address."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port
