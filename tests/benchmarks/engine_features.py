"""What the engine makes of a prompt that it has seen the beginning of, and what a grammar costs."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from typing import Any

from .engine_client import body_of, run_all, send
from .engine_pairs import TOKENS, Pairs
from .measure import Row

PREFIX = 1000
SOONER = 5.0
STREAMS = 8
KEPT = 0.85
"""Least of the tokens per second that a grammar must leave."""

# Neither can come to its end within the tokens of an answer.
GRAMMAR = 'root ::= "[" ([a-z0-9]+ ", ")+ "]"'
SCHEMA = {
    "type": "object",
    "properties": {"words": {"type": "array", "items": {"type": "string"}, "minItems": 200}},
    "required": ["words"],
}


def rows(port: int, pairs: int) -> Iterator[Row]:
    """Measure on our server alone."""
    yield _prefix(port, pairs)
    yield _constrained(port, pairs, "a grammar", {"grammar": GRAMMAR})
    form = {"type": "json_schema", "json_schema": {"name": "words", "schema": SCHEMA}}
    yield _constrained(port, pairs, "a JSON schema", {"response_format": form})


def _prefix(port: int, pairs: int) -> Row:
    """Time two prompts that begin alike; the control is a third that begins otherwise."""
    found = Pairs()
    for number in range(-1, pairs):
        one, other = (f"{number} {word} ".ljust(PREFIX, ".") for word in ("first", "other"))
        first, second, third = (
            asyncio.run(send(port, body_of(prompt, 1))).first
            for prompt in (one + " What?", one + " Why?", other + " What?")
        )
        if number >= 0:
            found.add(1 / second, 1 / first, 1 / third)
    note = f"medians {1e3 / statistics.median(found.peer):.0f} and "
    note += f"{1e3 / statistics.median(found.ours):.0f} ms"
    what = f"second request with the same {PREFIX} tokens first: times as soon"
    return found.row(what, SOONER, at_least=True, note=note)


def _constrained(port: int, pairs: int, name: str, fields: dict[str, Any]) -> Row:
    """Compare tokens per second with a constraint and without; counted, for it may end early."""
    found = Pairs()
    for number in range(-1, pairs):
        prompts = [f"{number}.{stream}: say something" for stream in range(STREAMS)]
        plain = [body_of(prompt, TOKENS) for prompt in prompts]
        bound = [body_of(prompt, TOKENS, **fields) for prompt in prompts]
        peer, ours, again = (run_all(port, [bodies], TOKENS) for bodies in (plain, bound, plain))
        if number >= 0:
            found.add(ours.rate, peer.rate, again.rate)
    rates = f"medians {statistics.median(found.ours):.0f} and "
    rates += f"{statistics.median(found.peer):.0f} tokens/s"
    return found.row(f"{name}, {STREAMS} streams: tokens per second kept", KEPT,
                     at_least=True, note=rates)  # fmt: skip
