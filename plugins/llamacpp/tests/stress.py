"""Many clients that do as clients do, and what each of them must find.

A greedy answer is compared with the one that its prompt got alone, token by token. Batches of
different sizes are rounded differently, so two logits that are almost equal may change places; at
the first token that differs, if any does, the likeliest must have been ahead by less than `NEAR`.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

CLIENTS = 64
LONGEST = 60
DEADLINE = 60.0
"""Seconds in which any single request must be answered."""

NEAR = 0.05
"""Difference of two logits that a batch of another size may turn around (measured on the tiny
model: up to 0.01)."""

SHARED = "What all of these have in common is a long beginning. " * 3
PROMPTS = [f"{number}: tell me more " + "and more " * (number % 5) for number in range(12)]
PROMPTS += [f"{SHARED}{number}" for number in range(12)]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "n": {"enum": [1, 2]}},
    "required": ["name", "n"],
    "additionalProperties": False,
}


class Token(NamedTuple):
    """A token of an answer: its bytes, and how far it was ahead of the next likeliest."""

    data: bytes
    lead: float


@dataclass
class Stress:
    """Clients of the worker at `url`. `alone` has the whole answer to each prompt."""

    url: str
    seed: int
    alone: dict[str, list[Token]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    parted: int = 0

    async def run(self, *, rounds: int = 10**9, seconds: float = 1e9) -> None:
        """Let all clients work until each has done so many rounds, or for so long."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=DEADLINE, limits=limits, trust_env=False
        ) as client:
            for prompt in [] if self.alone else PROMPTS:
                self.alone[prompt] = await self._greedy(client, prompt, LONGEST)
            end = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    source = random.Random(self.seed * 1000 + number)
                    group.create_task(self._work(client, source, rounds, end))

    async def _work(
        self, client: httpx.AsyncClient, source: random.Random, rounds: int, end: float
    ) -> None:
        kinds = {
            self._whole: 4, self._streamed: 3, self._stopped: 2, self._bound: 2, self._several: 2,
            self._seeded: 1, self._leave: 3, self._give_up: 1,
        }  # fmt: skip
        for _ in range(rounds):
            if time.monotonic() > end:
                return
            action = source.choices([*kinds], [*kinds.values()])[0]
            await action(client, source)
            self.done[action.__name__] += 1

    async def _whole(self, client: httpx.AsyncClient, source: random.Random) -> None:
        prompt, limit = source.choice(PROMPTS), source.randint(1, LONGEST)
        self._compare(prompt, await self._greedy(client, prompt, limit))

    async def _streamed(self, client: httpx.AsyncClient, source: random.Random) -> None:
        prompt, limit = source.choice(PROMPTS), source.randint(1, LONGEST)
        body = _greedy_body(prompt, limit, stream=True)
        tokens, ended = [], False
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                ended = ended or line == "data: [DONE]"
                if line.startswith("data: {"):
                    tokens += _tokens(json.loads(line[6:])["choices"][0])
        assert ended
        assert len(tokens) == limit
        self._compare(prompt, tokens)

    async def _stopped(self, client: httpx.AsyncClient, source: random.Random) -> None:
        prompt = source.choice(PROMPTS)
        known = self.alone[prompt]
        place = source.randint(1, LONGEST - 2)
        stop = known[place].data.decode("ascii", "ignore") or "zz"
        choice = await _ask(client, _greedy_body(prompt, LONGEST, stop=[stop]))
        assert stop not in choice["message"]["content"]
        self._compare(prompt, _tokens(choice))

    async def _bound(self, client: httpx.AsyncClient, source: random.Random) -> None:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        body = _body(source.choice(PROMPTS), 300, response_format=form, temperature=1)
        choice = await _ask(client, body)
        assert set(json.loads(choice["message"]["content"])) == {"name", "n"}

    async def _several(self, client: httpx.AsyncClient, source: random.Random) -> None:
        prompt, limit = source.choice(PROMPTS), source.randint(1, LONGEST)
        answer = await client.post("/v1/chat/completions", json=_greedy_body(prompt, limit, n=3))
        assert answer.status_code == 200, answer.text
        choices = answer.json()["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2]
        for choice in choices:
            self._compare(prompt, _tokens(choice))

    async def _seeded(self, client: httpx.AsyncClient, source: random.Random) -> None:
        limit = source.randint(1, LONGEST)
        body = _body(source.choice(PROMPTS), limit, seed=source.randrange(9), ignore_eos=True)
        assert (await _ask(client, body))["finish_reason"] == "length"

    async def _leave(self, client: httpx.AsyncClient, source: random.Random) -> None:
        """Go away in the middle of an answer that would go on for long."""
        body = _body(source.choice(PROMPTS), 10**6, ignore_eos=True, stream=True)
        pieces = source.randint(0, 6)
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_raw():
                pieces -= 1
                if pieces < 0:
                    break

    async def _give_up(self, client: httpx.AsyncClient, source: random.Random) -> None:
        """Go away before anything has come."""
        body = _body(source.choice(PROMPTS), 10**6, ignore_eos=True)
        try:
            await client.post("/v1/chat/completions", json=body, timeout=source.uniform(0.001, 0.1))
        except httpx.TimeoutException:
            return
        raise AssertionError("an answer without end has ended")

    async def _greedy(self, client: httpx.AsyncClient, prompt: str, limit: int) -> list[Token]:
        tokens = _tokens(await _ask(client, _greedy_body(prompt, limit)))
        assert len(tokens) == limit
        return tokens

    def _compare(self, prompt: str, tokens: Sequence[Token]) -> None:
        for mine, known in zip(tokens, self.alone[prompt], strict=False):
            if mine.data != known.data:
                assert min(mine.lead, known.lead) < NEAR, (prompt, mine, known)
                self.parted += 1
                return


def _body(prompt: str, limit: int, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "tiny", "messages": messages, "max_tokens": limit, **fields}


def _greedy_body(prompt: str, limit: int, **fields: Any) -> dict[str, Any]:
    told = {"logprobs": True, "top_logprobs": 2}
    return _body(prompt, limit, temperature=0, ignore_eos=True, **told, **fields)


async def _ask(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["choices"][0])


def _tokens(choice: dict[str, Any]) -> list[Token]:
    entries = (choice["logprobs"] or {}).get("content") or []
    return [
        Token(bytes(e["bytes"]), e["top_logprobs"][0]["logprob"] - e["top_logprobs"][1]["logprob"])
        for e in entries
    ]
