"""Middleware that gives each model a number of tokens a day, and refuses requests beyond it.

A plugin as it stands: name this module in the entry point group `aiplayground.plugins`. Set
`TOKEN_BUDGET=100000` in the environment; `TOKEN_BUDGET_FILE` says where the count is kept, so that
it holds from one run to the next (default: in memory).
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

from aiplayground.errors import ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.middleware import Middleware, Proceed, RequestCall

AIPG_HOOK_API = 1

CHARACTERS = 4
"""Characters to a token, where a prompt must be counted and the engine did not say."""


@hookimpl
def register_middleware() -> Sequence[Middleware]:
    """Bring the budget if there is one."""
    limit = os.environ.get("TOKEN_BUDGET")
    file = os.environ.get("TOKEN_BUDGET_FILE")
    if limit is None:
        return []
    return [TokenBudget(int(limit), FileLedger(Path(file)) if file else MemoryLedger())]


class BudgetExceeded(ServiceNotAvailable):
    """Code -3: a model's tokens for today are spent.

    `details`: `reason` ("budget"), `model`, `limit` and `used` in tokens, and `resets`, the date
    of the next day.
    """

    def __init__(self, model: str, limit: int, used: int, today: date) -> None:
        resets = (today + timedelta(days=1)).isoformat()
        super().__init__(
            f"The budget of {limit} tokens a day for '{model}' is spent ({used} used). "
            f"It is renewed on {resets}; use another model until then, or raise TOKEN_BUDGET.",
            details={
                "reason": "budget",
                "model": model,
                "limit": limit,
                "used": used,
                "resets": resets,
            },
        )


class Ledger(Protocol):
    """Where tokens are counted, by day and model. Both methods return at once."""

    def spent(self, day: date, model: str) -> int:
        """Return the tokens that were booked."""

    def book(self, day: date, model: str, tokens: int) -> None:
        """Add tokens."""


class TokenBudget(Middleware):
    """Refuses a request when its model's tokens of the day are spent.

    Answers in progress count with what they have cost so far. One that has begun is not cut off,
    so the last of a day may go over.
    """

    def __init__(self, limit: int, ledger: Ledger, today: Callable[[], date] = date.today) -> None:
        self._limit = limit
        self._ledger = ledger
        self._today = today
        self._open: dict[Meter, tuple[date, str]] = {}

    async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
        """Check the budget, pass the answer on, book what it cost: all of it or a part."""
        day, model = self._today(), call.request.model or call.service
        used = self.used(day, model)
        if used >= self._limit:
            raise BudgetExceeded(model, self._limit, used, day)
        meter = Meter(call.request)
        self._open[meter] = day, model
        try:
            async with aclosing(proceed(call.request)) as items:
                async for item in items:
                    meter.add(item)
                    yield item
        finally:
            # Nothing is awaited here: a cancellation cannot come between the answer and its cost.
            del self._open[meter]
            self._ledger.book(day, model, meter.tokens)

    def used(self, day: date, model: str) -> int:
        """Return the tokens of a day, answers in progress included."""
        running = sum(meter.tokens for meter, key in self._open.items() if key == (day, model))
        return self._ledger.spent(day, model) + running


class Meter:
    """What one request has cost so far.

    The engine's own figures come with the last chunk of each answer (`index`). Until then, or if
    that never comes, each piece counts as a token and the prompt is estimated from its length.
    """

    def __init__(self, request: Any) -> None:
        self._prompt = -(-len(request.model_dump_json()) // CHARACTERS)
        self._pieces: Counter[int] = Counter()
        self._counted: dict[int, int] = {}

    def add(self, item: Any) -> None:
        """Count an item: a `ChatChunk`, `GenerateEvent` or `Embeddings`."""
        index = getattr(item, "index", 0)
        self._pieces[index] += bool(getattr(item, "text", "") or getattr(item, "reasoning", ""))
        usage = getattr(item, "usage", None)
        if usage is not None and usage.total_tokens:
            self._counted[index] = usage.total_tokens

    @property
    def tokens(self) -> int:
        """The tokens, of prompt and answers together."""
        guessed = sum(n for index, n in self._pieces.items() if index not in self._counted)
        prompt = 0 if self._counted or not self._pieces else self._prompt
        return prompt + guessed + sum(self._counted.values())


class MemoryLedger:
    """Counts for as long as the program runs."""

    def __init__(self) -> None:
        self._tokens: Counter[tuple[date, str]] = Counter()

    def spent(self, day: date, model: str) -> int:
        """Return the tokens that were booked."""
        return self._tokens[day, model]

    def book(self, day: date, model: str, tokens: int) -> None:
        """Add tokens."""
        self._tokens[day, model] += tokens


class FileLedger:
    """Counts in an SQLite file, which several programs may share."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS spent (day TEXT, model TEXT, tokens INTEGER, "
                "PRIMARY KEY (day, model))"
            )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=1)
        # A count that a power cut loses does no harm; waiting for the disk would hold the loop.
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    def spent(self, day: date, model: str) -> int:
        """Return the tokens that were booked, by any program."""
        with closing(self._connect()) as connection:
            rows = connection.execute(
                "SELECT tokens FROM spent WHERE day = ? AND model = ?", (day.isoformat(), model)
            )
            row = rows.fetchone()
        return int(row[0]) if row else 0

    def book(self, day: date, model: str, tokens: int) -> None:
        """Add tokens."""
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT (day, model) "
                "DO UPDATE SET tokens = tokens + excluded.tokens",
                (day.isoformat(), model, tokens),
            )
