"""An endpoint that already runs: its HTTP client, and the worker that only watches it.

The kernel neither starts nor ends what is behind it. The key goes to the endpoint's own origin and
nowhere else: a redirect to another host is refused, not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from ._client import LIMITS, add_trace
from ._clock import now, wall
from ._worker import Report, Worker
from .errors import AIPlaygroundError, FailureClass, ServiceFailed
from .policy import Liveness
from .specs import LaunchSpec
from .states import Runtime

if TYPE_CHECKING:
    from ._launch import Launcher
    from .policy import RestartPolicy
    from .settings import AttachSettings

LOADING_INTERVAL = 0.25
"""Seconds between looks at an endpoint that is loading."""

NAME = "endpoint"
"""The name of an attached service's only worker."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with an endpoint.

    `sure`: it is not merely slow or busy. `loading`: it says that it will be there soon.
    """

    error: ServiceFailed
    sure: bool
    loading: bool = False


class Attachment:
    """The endpoint of one service. `timeout` (seconds) bounds a probe."""

    def __init__(self, service: str, settings: AttachSettings, timeout: float) -> None:
        self.service = service
        self.base_url = settings.url or ""
        self.ready_path = settings.ready_path
        self._settings = settings
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None

    @property
    def port(self) -> int:
        """The port of its URL, which may be the scheme's own."""
        url = httpx.URL(self.base_url)
        return url.port or (443 if url.scheme == "https" else 80)

    @property
    def http(self) -> httpx.AsyncClient:
        """The client that talks to it."""
        if self._client is None:
            raise self._failed("its client is not open", FailureClass.UNREACHABLE)
        return self._client

    async def open(self) -> None:
        """Read the certificates. Raises `ServiceFailed` that names the file which is wrong."""
        if self._client is not None:
            return
        url = httpx.URL(self.base_url)
        # In a thread: it reads the authorities of the whole system.
        context = await asyncio.to_thread(self._tls)
        key = self._settings.api_key
        self._client = httpx.AsyncClient(
            auth=_Key(url, key.get_secret_value()) if key else None,
            event_hooks={"request": [add_trace], "response": [self._refuse_to_leave]},
            follow_redirects=True,
            limits=LIMITS,
            # A proxy of the environment has no business between us and this machine.
            trust_env=not _is_loopback(url.host),
            verify=context,
        )

    async def close(self) -> None:
        """Close the connections; the endpoint itself stays as it is."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def explain(self, error: Exception) -> ServiceFailed:
        """Say why a request to it failed."""
        return self._failed(_broken(error), FailureClass.UNREACHABLE)

    async def probe(self) -> Trouble | None:
        """Ask the ready path once; None: it is well."""
        try:
            answer = await self.http.get(self.base_url + self.ready_path, timeout=self._timeout)
        except httpx.TimeoutException:
            what = f"gave no answer within {self._timeout:g} s. It may be busy or gone."
            return Trouble(self._failed(what, FailureClass.TIMEOUT), sure=False)
        except httpx.HTTPError as error:
            return Trouble(self.explain(error), sure=True)
        except ServiceFailed as error:
            return Trouble(error, sure=True)
        if answer.status_code == httpx.codes.OK:
            return None
        return self._refused(answer.status_code)

    def _refused(self, status: int) -> Trouble:
        setting = "api_key"
        if status in (401, 403):
            has_key = self._settings.api_key is not None
            what = "refuses the key" if has_key else "asks for a key"
            advice = f"Set `{setting}` in its settings."
        elif status == httpx.codes.NOT_FOUND:
            what = f"has no {self.ready_path}"
            advice = "Check the URL, or set `ready_path` in its settings."
        else:
            what, advice = f"answered {self.ready_path} with {status}", "Its own log may say why."
        error = self._failed(f"{what} (HTTP {status}). {advice}", FailureClass.UNREACHABLE)
        loading = status == httpx.codes.SERVICE_UNAVAILABLE
        return Trouble(error, sure=status < 500, loading=loading)

    def _failed(self, what: str, failure: FailureClass) -> ServiceFailed:
        details = {"service": self.service, "url": self.base_url}
        message = f"{self.service}: the endpoint {self.base_url} {what}"
        return ServiceFailed(message, failure=failure, details=details)

    async def _refuse_to_leave(self, answer: httpx.Response) -> None:
        if not answer.has_redirect_location:
            return
        here, there = answer.request.url, answer.request.url.join(answer.headers["location"])
        if there.host != here.host or (_origin(there) != _origin(here) and not _upgrade(there)):
            await answer.aclose()
            target = there.copy_with(userinfo=b"", query=None, fragment=None)
            raise self._failed(
                f"redirects to {target}, which is another server. Nothing was sent there. "
                f"If that is the right one, set its address as `url`.",
                FailureClass.UNREACHABLE,
            )

    def _tls(self) -> ssl.SSLContext:
        own = self._settings
        try:
            context = ssl.create_default_context(cafile=own.ca_file) if own.ca_file else _usual()
            if own.client_cert is not None:
                # A password would be asked for on the terminal, where nobody may be.
                context.load_cert_chain(own.client_cert, own.client_key, password=_no_password)
        except (OSError, ValueError) as error:
            files = [str(f) for f in (own.ca_file, own.client_cert, own.client_key) if f]
            cause = getattr(error, "strerror", None) or error
            raise self._failed(
                f"cannot be reached, because a certificate file cannot be used ({cause}): "
                f"{', '.join(files)}. Give PEM files, and a key without a password.",
                FailureClass.MISSING_FILE,
            ) from error
        if not own.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class AttachedWorker(Worker):
    """A worker that is somebody else's: probed, never launched or ended.

    When it goes the worker has failed; it goes on looking, and runs again when it is back.
    """

    attached = True

    def __init__(
        self,
        attachment: Attachment,
        launcher: Launcher,
        restart: RestartPolicy,
        liveness: tuple[float, float, float],
        report: Report,
    ) -> None:
        spec = LaunchSpec(argv=(), name=NAME, ready_path=attachment.ready_path)
        super().__init__(spec, launcher, restart, liveness, report)
        self._attachment = attachment

    @property
    def base_url(self) -> str:
        """Where it answers, whether or not it does now."""
        return self._attachment.base_url

    @property
    def port(self) -> int:
        """The port of its URL."""
        return self._attachment.port

    async def loss(self) -> ServiceFailed | None:
        """After a broken connection: ask it, and return why it is away, None if it is there."""
        trouble = await self._attachment.probe()
        self.retry_now()
        return trouble.error if trouble is not None else None

    async def _run(self) -> None:
        try:
            while True:
                self._set(Runtime.STARTING)
                trouble = await self._arrive()
                if trouble is None:
                    self.error = None
                    self._set(Runtime.RUNNING)
                    trouble = await self._until_gone()
                self.error = trouble.error
                self._set(Runtime.FAILED)
                await self._until_back()
        finally:
            self._stopped()

    async def _arrive(self) -> Trouble | None:
        """Look for it; one that says that it is loading gets the time that a start has."""
        deadline = now() + self._launcher.timeout
        while (trouble := await self._look()) is not None:
            if not trouble.loading or now() > deadline:
                break
            await asyncio.sleep(LOADING_INTERVAL)
        return trouble

    async def _look(self) -> Trouble | None:
        try:
            return await self._attachment.probe()
        except AIPlaygroundError:
            raise
        except Exception as error:  # noqa: BLE001  # an endpoint that is not watched must not seem to run
            return Trouble(self._defect(error), sure=True)

    async def _until_gone(self) -> Trouble:
        liveness = Liveness(limit=self._probe_limit, patience=self._patience)
        while True:
            await self._pause(self._probe_interval)
            trouble = await self._look()
            hung = liveness.observe(now=now(), wall=wall(), ok=trouble is None, cpu=0, lines=0)
            if trouble is not None and (trouble.sure or hung):
                return trouble

    async def _until_back(self) -> None:
        while True:
            await self._pause(self._probe_interval)
            trouble = await self._look()
            if trouble is None:
                return
            self.error = trouble.error


class _Key(httpx.Auth):
    """Adds the key to requests to one origin."""

    def __init__(self, url: httpx.URL, key: str) -> None:
        self._origin = _origin(url)
        self._value = f"Bearer {key}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = self._value
        yield request


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _upgrade(url: httpx.URL) -> bool:
    """Whether a redirect within one host leads from HTTP to HTTPS at the usual port."""
    return _origin(url) == ("https", url.host, 443)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _usual() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _no_password() -> str:
    raise ValueError("its key has a password")


def _broken(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        cause = text.partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0]
        return (
            f"has a certificate that is not trusted ({cause or text}). Name the file of its "
            f"authority as `ca_file` in its settings."
        )
    if isinstance(error, httpx.ConnectError):
        return f"cannot be reached ({text}). Start that server, or check the URL."
    return f"broke the connection ({type(error).__name__}: {text})."
