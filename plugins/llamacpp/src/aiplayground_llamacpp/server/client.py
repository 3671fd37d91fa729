"""What the worker asks of `llama-server` over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

import httpx

from aiplayground.errors import FailureClass, ServiceFailed

from .answer import refusal

CONNECT_TIMEOUT = 5.0
CALL_TIMEOUT = 60.0
"""Seconds for calls that compute nothing: turning a text into tokens, facts of the model."""

MOST_CONNECTIONS = 512

KEEP_ALIVE = 2.0
"""Seconds for which an idle connection is used again. llama-server closes it after five: a request
that is on its way just then would be lost."""

_HINTS = ("<", "[", "|", "\uff5c", "\u2581")


class Tokenizer:
    """Turns text into tokens, by asking; from any thread but the event loop's.

    Implements `prompt.Tokenizer`. `texts` are those of the request that it is for: among them the
    control tokens are looked for, since llama-server does not list them.
    """

    def __init__(self, http: httpx.Client, bos_text: str, texts: Sequence[str] = ()) -> None:
        self._http = http
        self.bos_text = bos_text
        self._texts = texts

    def with_texts(self, texts: Sequence[str]) -> Tokenizer:
        """Return one for a request with these texts."""
        return Tokenizer(self._http, self.bos_text, texts)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Turn text into tokens. Raises `ServiceFailed` if llama-server is gone."""
        return [each["id"] for each in self._pieces(text, add_special, parse_special)]

    def control_texts(self) -> tuple[str, ...]:
        """Return the texts of the control tokens that occur in the request's texts.

        Such a text is one token where control tokens count, and something else where they do not.
        """
        text = "\n".join(each for each in self._texts if any(hint in each for hint in _HINTS))
        if not text:
            return ()
        plain = {each["id"] for each in self._pieces(text, False, False)}
        found = {
            each["piece"]: each["id"]
            for each in self._pieces(text, False, True)
            if each["id"] not in plain and isinstance(each["piece"], str) and each["piece"]
        }
        return tuple(piece for piece, token in found.items() if self._is_control(piece, token))

    def _is_control(self, piece: str, token: int) -> bool:
        return self.tokenize(piece, add_special=False, parse_special=False) != [token]

    def _pieces(self, text: str, add_special: bool, parse_special: bool) -> list[dict[str, Any]]:
        body = {
            "content": text,
            "add_special": add_special,
            "parse_special": parse_special,
            "with_pieces": True,
        }
        try:
            answer = self._http.post("/tokenize", json=body)
        except httpx.TransportError as error:
            raise lost(error) from error
        return list(_checked(answer)["tokens"])


class Client:
    """Talks to one llama-server at `base_url`, which wants `key`; `close` it in the end."""

    def __init__(self, base_url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=KEEP_ALIVE)
        calls = httpx.Timeout(CALL_TIMEOUT, connect=CONNECT_TIMEOUT)
        answers = httpx.Timeout(None, connect=CONNECT_TIMEOUT)
        self.http = httpx.AsyncClient(
            base_url=base_url, headers=headers, limits=limits, timeout=answers, trust_env=False
        )
        self.blocking = httpx.Client(
            base_url=base_url, headers=headers, limits=limits, timeout=calls, trust_env=False
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.http.aclose()
        self.blocking.close()

    async def get(self, path: str) -> dict[str, Any]:
        """Ask for facts."""
        try:
            return _checked(await self.http.get(path, timeout=CALL_TIMEOUT))
        except httpx.TransportError as error:
            raise lost(error) from error

    async def embeddings(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return a vector of length 1 for each text, given as tokens."""
        body = {"input": [list(text) for text in texts], "encoding_format": "float"}
        try:
            data = _checked(await self.http.post("/v1/embeddings", json=body))["data"]
        except httpx.TransportError as error:
            raise lost(error) from error
        return [each["embedding"] for each in sorted(data, key=lambda each: int(each["index"]))]

    async def rerank(self, query: str, documents: Sequence[str]) -> tuple[list[float], int]:
        """Return a score for each document, and the tokens of all pairs together."""
        body = {"query": query, "documents": list(documents)}
        try:
            told = _checked(await self.http.post("/rerank", json=body))
        except httpx.TransportError as error:
            raise lost(error) from error
        found = sorted(told["results"], key=lambda each: int(each["index"]))
        scores = [float(each["relevance_score"]) for each in found]
        return scores, int(told["usage"]["prompt_tokens"])

    async def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of an answer; closing it ends the work on it."""
        try:
            async with self.http.stream("POST", "/completion", json=body) as answer:
                if answer.status_code != httpx.codes.OK:
                    await answer.aread()
                    _checked(answer)
                async for data in _events(answer):
                    yield data
        except httpx.TransportError as error:
            raise lost(error) from error


def lost(error: Exception) -> ServiceFailed:
    """Say that llama-server is not there any more; its owner knows better why."""
    return ServiceFailed(
        f"The connection to llama-server broke ({type(error).__name__}). Try again.",
        failure=FailureClass.CRASH,
    )


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    rest = b""
    async for data in answer.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b":")
            if name in (b"data", b"error"):
                event = json.loads(value)
                yield event if name == b"data" else {"error": event.get("error", event)}


def _checked(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = {"error": answer.text[:300]}
    body = body if isinstance(body, dict) else {"error": str(body)[:300]}
    if answer.is_error:
        raise refusal(answer.status_code, body)
    return body
