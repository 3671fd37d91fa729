"""Pictures, speech, transcription and ranking: what answers depends on what a backend declares."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters, ServiceNotAvailable
from aiplayground.serving.wire import parse_object
from aiplayground.specs import Capability

from .requests import ROUTER
from .translation import check_known, given, refuse

if TYPE_CHECKING:
    from aiplayground.types import GenerateEvent

    from .dispatch import Dispatch
    from .exchange import Exchange

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_PACKAGES = {Capability.IMAGE: "aiplayground-comfyui"}


async def images(dispatch: Dispatch, exchange: Exchange) -> None:
    """`POST /v1/images/generations`."""
    fields = given(parse_object(await exchange.body()))
    check_known(fields, {"model", "prompt", "n", "size", "response_format", "user"})
    if fields.get("response_format", "b64_json") != "b64_json":
        raise refuse("response_format", "must be b64_json: pictures are not kept here")
    request = {"kind": "image", "prompt": fields.get("prompt"), "count": fields.get("n", 1)}
    request |= _size(fields.get("size", "auto"))
    events = await _events(dispatch, exchange, Capability.IMAGE, fields, request)
    data = [
        {"b64_json": base64.b64encode(await _bytes(each)).decode()}
        for each in events
        if each.kind == "image"
    ]
    await exchange.reply_json(200, {"created": 0, "data": data})


async def speech(dispatch: Dispatch, exchange: Exchange) -> None:
    """`POST /v1/audio/speech`."""
    fields = given(parse_object(await exchange.body()))
    check_known(fields, {"model", "input", "voice", "response_format"})
    request = {"kind": "speech", "text": fields.get("input"), "voice": fields.get("voice")}
    events = await _events(dispatch, exchange, Capability.SPEECH, fields, given(request))
    audio = [each for each in events if each.kind == "audio"]
    content = b"".join([await _bytes(each) for each in audio])
    kind = next((each.mime for each in audio if each.mime), "audio/wav")
    await exchange.reply(200, content, kind=kind.encode("latin-1"))


async def transcriptions(dispatch: Dispatch, exchange: Exchange) -> None:
    """`POST /v1/audio/transcriptions`: a form with the file, as OpenAI's clients send it."""
    _check_offered(dispatch, Capability.TRANSCRIPTION)
    fields = _form(exchange.headers.get("content-type", ""), await exchange.body())
    if "file" not in fields:
        raise refuse("file", "is missing")
    request = {"kind": "transcription", "audio": fields["file"]}
    request |= {"language": fields["language"]} if "language" in fields else {}
    events = await _events(dispatch, exchange, Capability.TRANSCRIPTION, fields, request)
    await exchange.reply_json(200, {"text": "".join(each.text for each in events)})


async def rerank(dispatch: Dispatch, exchange: Exchange) -> None:
    """`POST /v1/rerank`."""
    fields = given(parse_object(await exchange.body()))
    check_known(fields, {"model", "query", "documents", "top_n"})
    request = {"kind": "rerank", **{k: v for k, v in fields.items() if k != "model"}}
    events = await _events(dispatch, exchange, Capability.RERANK, fields, request)
    await exchange.reply_json(200, next((e.result for e in events if e.result is not None), {}))


async def _events(
    dispatch: Dispatch,
    exchange: Exchange,
    capability: Capability,
    fields: dict[str, Any],
    request: dict[str, Any],
) -> list[GenerateEvent]:
    """Return everything that a backend made of a request."""
    _check_offered(dispatch, capability)
    name = await _model(dispatch, capability, fields)
    model = await dispatch.find(exchange, {**fields, "model": name})
    full = {**request, "model": f"{model.service}/{model.name}"}

    exchange.facts |= {"backend": model.service, "model": model.name}
    with exchange.there():
        async with dispatch.place(exchange, fields, model.service):
            return await _collected(dispatch.kernel.generate(full))


async def _collected(events: AsyncGenerator[GenerateEvent, None]) -> list[GenerateEvent]:
    async with aclosing(events):
        return [each async for each in events]


def _check_offered(dispatch: Dispatch, capability: Capability) -> None:
    if not _services(dispatch, capability):
        package = _PACKAGES.get(capability)
        hint = f" Run: pip install {package}" if package else ""
        raise ServiceNotAvailable(
            f"No backend here does '{capability}'.{hint}",
            details={"capability": capability.value},
        )


def _services(dispatch: Dispatch, capability: Capability) -> list[str]:
    names = [each.name for each in dispatch.kernel.services()]
    return [name for name in names if capability in dispatch.kernel.backend(name).capabilities]


async def _model(dispatch: Dispatch, capability: Capability, fields: dict[str, Any]) -> Any:
    """Return the model that is named, or the first that a backend with the capability serves."""
    name = fields.get("model")
    if name is not None and name != ROUTER:
        return name
    able = _services(dispatch, capability)
    for each in await dispatch.kernel.models():
        if each.service in able:
            return f"{each.service}/{each.name}"
    raise ServiceNotAvailable(
        f"{', '.join(able)} could do '{capability}' but has no model for it yet.",
        details={"capability": capability.value},
    )


def _size(size: Any) -> dict[str, int]:
    if size == "auto":
        return {}
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise refuse("size", "must be like 1024x1024, in pixels")
    return {"width": int(match[1]), "height": int(match[2])}


async def _bytes(each: GenerateEvent) -> bytes:
    if each.data is not None:
        return each.data
    return await asyncio.to_thread(Path(each.path or "").read_bytes)


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """Read a form (RFC 7578); a file becomes a data URL."""
    if not content_type.lower().startswith("multipart/form-data"):
        raise InvalidParameters(
            "Send a form (multipart/form-data) with the field 'file'.", details={"field": "file"}
        )
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    fields: dict[str, str] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", "", header="content-disposition"))
        content = part.get_payload(decode=True)
        data = content if isinstance(content, bytes) else b""
        if part.get_filename() is None:
            fields[name] = data.decode("utf-8", "replace").strip()
        else:
            encoded = base64.b64encode(data).decode()
            fields[name] = f"data:{part.get_content_type()};base64,{encoded}"
    return fields
