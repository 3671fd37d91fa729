"""Settings of an endpoint that already runs: where it is, and how to be let in."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from aiplayground.specs import OPENAI_PARAMETERS, Capability

from ._section import Folder, Names, Section

_USUAL = (Capability.CHAT, Capability.COMPLETION, Capability.EMBEDDING, Capability.TOOLS)

AnyCapability = Annotated[Capability, Field(strict=False)]


def _base_url(text: str) -> str:
    """Return the URL as requests extend it: without `/v1` and without a slash at its end."""
    if "@" in text:
        raise ValueError("it has a user or password in it; put the key into `api_key`")
    if not _is_whole(text):
        raise ValueError("it must be like 'http://127.0.0.1:8080' or 'https://host/api/v1'")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _is_whole(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not (parts.query or parts.fragment or any(c.isspace() for c in text))
        )
    except ValueError:
        return False


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("it must begin with '/'")
    return text


def _key(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("it must be printable ASCII text without space around it")
    return secret


class AttachSettings(Section):
    """A server that already runs and speaks the OpenAI API, used in place of one of ours.

    The kernel never starts or stops it. The key is sent to this address alone and never shown.
    """

    url: Annotated[str, AfterValidator(_base_url)] | None = Field(
        default=None, description="Address of the server, with or without `/v1` at its end."
    )
    api_key: Annotated[SecretStr, AfterValidator(_key)] | None = Field(
        default=None, description="Key that is sent as `Authorization: Bearer`; never shown."
    )
    ready_path: Annotated[str, AfterValidator(_path)] = Field(
        default="/v1/models", description="Path that answers 200 when the server is well."
    )
    verify: bool = Field(default=True, description="Check the server's TLS certificate.")
    ca_file: Folder | None = Field(
        default=None, description="PEM file of the authorities to trust, instead of the usual."
    )
    client_cert: Folder | None = Field(
        default=None, description="PEM file with a certificate that the server asks of us."
    )
    client_key: Folder | None = Field(
        default=None, description="PEM file with its private key, if that is a file of its own."
    )

    @model_validator(mode="after")
    def _url_comes_first(self) -> Self:
        if self.url is None and self.model_fields_set - {"url"}:
            raise ValueError("it needs a `url`")
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("`client_key` needs a `client_cert`")
        return self


class EndpointSettings(AttachSettings):
    """A server that is a service of its own, without any plugin."""

    title: str = Field(default="", description="Its name for people; not set: the service's.")
    capabilities: Annotated[tuple[AnyCapability, ...], Field(strict=False)] = Field(
        default=_USUAL, description="What it can do."
    )
    parameters: Names = Field(
        default=tuple(sorted(OPENAI_PARAMETERS)),
        description="Request fields that it honours; another one answers -4.",
    )

    @model_validator(mode="after")
    def _has_url(self) -> Self:
        if self.url is None:
            raise ValueError("it needs a `url`")
        return self
