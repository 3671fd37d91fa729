"""The middleware of the documentation, in a kernel: what it logs, counts and refuses."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from docs.examples import prompt_logger, token_budget
from docs.examples.prompt_logger import LIMIT, AppendingHandler, PromptLogger, prompt_of
from docs.examples.token_budget import (
    BudgetExceeded,
    FileLedger,
    Ledger,
    MemoryLedger,
    Meter,
    TokenBudget,
)
from tests.fakes import Backend, ask, kernel, question

from aiplayground._loader import load_plugins
from aiplayground.errors import InvalidParameters, PluginError
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.middleware import Middleware, RequestCall, compose_request
from aiplayground.specs import Capability
from aiplayground.types import ChatChunk, ChatRequest, Embeddings, EmbedRequest, Usage

TODAY = date(2026, 3, 31)


class Engine(Backend):
    """Says three words, counting as an engine does; `held` keeps it from ending."""

    def __init__(self) -> None:
        abilities = frozenset({Capability.CHAT, Capability.EMBEDDING})
        super().__init__("engine", capabilities=abilities)
        self.words = ["one ", "two ", "three"]
        self.usage: Usage | None = Usage(prompt_tokens=10, completion_tokens=3)
        self.held: asyncio.Event | None = None
        self.error: Exception | None = None
        self.closed = 0

    @hookimpl
    async def chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        try:
            for word in self.words:
                yield ChatChunk(text=word)
            if self.held is not None:
                await self.held.wait()
            if self.error is not None:
                raise self.error
            yield ChatChunk(finish_reason="stop", usage=self.usage)
        finally:
            self.closed += 1

    @hookimpl
    async def embed(self, request: EmbedRequest) -> Embeddings:
        vectors = [[0.0] for _ in request.input]
        return Embeddings(model=request.model, vectors=vectors, usage=Usage(prompt_tokens=7))


class Brings:
    """A plugin with middleware that the test made."""

    def __init__(self, *middleware: object) -> None:
        self.middleware = middleware

    @hookimpl
    def register_middleware(self) -> Sequence[object]:
        return self.middleware


class Lines(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def logs(lines: Lines) -> PromptLogger:
    logger = logging.Logger("prompts", logging.INFO)
    logger.addHandler(lines)
    return PromptLogger(logger)


@pytest.fixture(params=["memory", "file"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return MemoryLedger() if request.param == "memory" else FileLedger(tmp_path / "budget.db")


def budget(limit: int, ledger: Ledger | None = None) -> TokenBudget:
    return TokenBudget(limit, ledger or MemoryLedger(), today=lambda: TODAY)


async def first(on: Kernel, **parameters: Any) -> Any:
    answer = on.chat(question(**parameters))
    await anext(answer)
    return answer


# As plugins ---------------------------------------------------------------------------------


def test_both_are_plugins_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROMPT_LOG", "TOKEN_BUDGET", "TOKEN_BUDGET_FILE"):
        monkeypatch.delenv(name, raising=False)
    given = [("logger", prompt_logger), ("budget", token_budget)]
    found = load_plugins(given, discover=False)
    assert [each.hooks for each in found.loaded] == [("register_middleware",)] * 2
    assert len(prompt_logger.register_middleware()) == 1
    assert token_budget.register_middleware() == []
    monkeypatch.setenv("TOKEN_BUDGET", "100")
    monkeypatch.setenv("TOKEN_BUDGET_FILE", str(tmp_path / "budget.db"))
    assert len(token_budget.register_middleware()) == 1
    assert (tmp_path / "budget.db").exists()


async def test_the_environment_sets_them_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPT_LOG", str(tmp_path / "prompts.log"))
    monkeypatch.setenv("TOKEN_BUDGET", "13")
    plugins = {"engine": Engine(), "logger": prompt_logger, "budget": token_budget}
    home = tmp_path / "home"
    async with Kernel(home=home, plugins=plugins, discover=False, environ={}) as running:
        assert await ask(running) == "one two three"
        with pytest.raises(BudgetExceeded) as refused:
            await ask(running)
    written = (tmp_path / "prompts.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition(" engine ")[2] for line in written] == [
        "chat m prompt: 'Hello'",
        "chat m answer (13 tokens, stop): 'one two three'",
        "chat m prompt: 'Hello'",
        f"chat m answer (0 tokens, failed: {refused.value.message}): ''",
    ]


# The prompt logger --------------------------------------------------------------------------


async def test_prompt_and_answer_are_logged(
    tmp_path: Path, logs: PromptLogger, lines: Lines
) -> None:
    async with kernel(tmp_path, Engine(), Brings(logs)) as running:
        await ask(running)
        await running.embed(EmbedRequest(model="m", input=["a", "b"]))
    assert lines.lines == [
        "engine chat m prompt: 'Hello'",
        "engine chat m answer (13 tokens, stop): 'one two three'",
        "engine embed m prompt: 'a b'",
        "engine embed m answer (7 tokens, complete): ''",
    ]


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("write to ada.l+x@mail.example.org, please", "write to [e-mail], please"),
        ("my key is sk-proj-0123456789abcdef.", "my key is [key]."),
        ("ghp_0123456789abcdefABCD", "[key]"),
        ("Authorization: Bearer abc.def-123", "Authorization: [token]"),
        ("a @ b, sk-short, bearer of news", "a @ b, sk-short, bearer of news"),
        ("x" * LIMIT + " rest", " …"),
        (f"{'x ' * (LIMIT // 2 - 4)}ada@example.org", f"{'x ' * (LIMIT // 2 - 4)}".strip() + " …"),
    ],
)
def test_secrets_are_taken_out(logs: PromptLogger, text: str, logged: str) -> None:
    assert logs.redact(text) == logged


async def test_a_secret_that_comes_in_pieces_is_taken_out(
    tmp_path: Path, logs: PromptLogger, lines: Lines
) -> None:
    engine = Engine()
    engine.words = ["ada@", "exam", "ple.org", " sk-0123", "456789abcdef"]
    engine.error = InvalidParameters("ask ada@example.org")
    async with kernel(tmp_path, engine, Brings(logs)) as running:
        with pytest.raises(InvalidParameters, match="ada@example"):
            await ask(running)
    assert lines.lines[1] == (
        "engine chat m answer (0 tokens, failed: ask [e-mail]): '[e-mail] [key]'"
    )


async def test_a_line_of_the_log_is_one_line(
    tmp_path: Path, logs: PromptLogger, lines: Lines
) -> None:
    engine = Engine()
    engine.words = ["a\n", "\x1b[31mb"]
    async with kernel(tmp_path, engine, Brings(logs)) as running:
        await ask(running)
    assert lines.lines[1].endswith(r"'a\n\x1b[31mb'")


async def test_an_answer_that_is_given_up_is_logged_at_once(
    tmp_path: Path, logs: PromptLogger, lines: Lines
) -> None:
    engine = Engine()
    async with kernel(tmp_path, engine, Brings(logs)) as running:
        answer = await first(running)
        await answer.aclose()
        assert engine.closed == 1
        assert lines.lines[1].endswith("(0 tokens, given up by the caller): 'one '")


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "a"),
        ({"messages": [{"role": "assistant", "content": None}]}, ""),
        ({"messages": [{"role": "user", "content": [{"text": "a"}, {"image": 1}]}]}, "a "),
    ],
)
def test_the_prompt_of_a_conversation(request_: dict[str, Any], text: str) -> None:
    assert prompt_of(ChatRequest.model_validate({"model": "m", **request_})) == text


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AppendingHandler(tmp_path).emit(logging.makeLogRecord({"msg": "hello"}))
    assert "IsADirectoryError" in capsys.readouterr().err


# The token budget ---------------------------------------------------------------------------


async def test_a_model_is_refused_when_its_tokens_are_spent(tmp_path: Path, ledger: Ledger) -> None:
    engine = Engine()
    engine.models = ("m", "other")
    async with kernel(tmp_path, engine, Brings(budget(20, ledger))) as running:
        await ask(running)
        assert ledger.spent(TODAY, "m") == 13
        await ask(running)
        with pytest.raises(BudgetExceeded) as caught:
            await ask(running)
        assert await ask(running, "other"), "each model has its own"
    assert caught.value.to_dict() == {
        "code": -3,
        "message": "The budget of 20 tokens a day for 'm' is spent (26 used). It is renewed on "
        "2026-04-01; use another model until then, or raise TOKEN_BUDGET.",
        "details": {
            "reason": "budget", "model": "m", "limit": 20, "used": 26, "resets": "2026-04-01"
        },
    }  # fmt: skip
    assert engine.closed == 3, "the engine never saw the request that was refused"


async def test_the_next_day_is_a_new_one(tmp_path: Path) -> None:
    days = iter([TODAY, TODAY, date(2026, 4, 1)])
    limit = TokenBudget(13, MemoryLedger(), today=lambda: next(days))
    async with kernel(tmp_path, Engine(), Brings(limit)) as running:
        await ask(running)
        with pytest.raises(BudgetExceeded):
            await ask(running)
        await ask(running)


async def test_embeddings_count(tmp_path: Path, ledger: Ledger) -> None:
    async with kernel(tmp_path, Engine(), Brings(budget(20, ledger))) as running:
        await running.embed(EmbedRequest(model="m", input=["a"]))
    assert ledger.spent(TODAY, "m") == 7


async def closed(answer: Any) -> None:
    await answer.aclose()


async def cancelled(answer: Any) -> None:
    async def read() -> None:
        async with aclosing(answer):
            async for _ in answer:
                pass

    task = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("end", "pieces"), [(closed, 1), (cancelled, 3)])
async def test_a_partial_answer_is_counted_however_it_ends(
    tmp_path: Path, ledger: Ledger, end: Callable[[Any], Any], pieces: int
) -> None:
    engine = Engine()
    engine.held = asyncio.Event()
    limit = budget(1000, ledger)
    async with kernel(tmp_path, engine, Brings(limit)) as running:
        answer = await first(running)
        prompt = limit.used(TODAY, "m") - 1
        assert prompt > 0, "an answer in progress counts already"
        assert ledger.spent(TODAY, "m") == 0
        await end(answer)
        assert engine.closed == 1
    assert ledger.spent(TODAY, "m") == prompt + pieces == limit.used(TODAY, "m")


async def test_answers_in_progress_leave_no_room_for_others(tmp_path: Path) -> None:
    engine = Engine()
    engine.held = asyncio.Event()
    async with kernel(tmp_path, engine, Brings(budget(5))) as running:
        answer = await first(running)
        with pytest.raises(BudgetExceeded):
            await ask(running)
        engine.held.set()
        await answer.aclose()


async def test_a_refusal_of_the_engine_costs_nothing(tmp_path: Path, ledger: Ledger) -> None:
    engine = Engine()
    engine.words, engine.error = [], InvalidParameters("no")
    async with kernel(tmp_path, engine, Brings(budget(20, ledger))) as running:
        with pytest.raises(InvalidParameters, match="no"):
            await ask(running)
    assert ledger.spent(TODAY, "m") == 0


def test_several_answers_to_one_request_are_counted_each() -> None:
    meter = Meter(question())
    meter.add(ChatChunk(index=0, text="a"))
    meter.add(ChatChunk(index=1, text="b"))
    meter.add(ChatChunk(index=0, finish_reason="stop", usage=Usage(prompt_tokens=10)))
    meter.add(ChatChunk(index=1, text="c"))
    assert meter.tokens == 10 + 2, "the engine's figure for one, pieces for the other"


def test_several_programs_share_a_file(tmp_path: Path) -> None:
    one, two = FileLedger(tmp_path / "x.db"), FileLedger(tmp_path / "x.db")
    one.book(TODAY, "m", 3)
    two.book(TODAY, "m", 4)
    assert one.spent(TODAY, "m") == two.spent(TODAY, "m") == 7


async def test_a_file_that_is_no_ledger_leaves_the_plugin_out_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.db").write_text("this is no database, but long enough to look at" * 3)
    monkeypatch.setenv("TOKEN_BUDGET", "10")
    monkeypatch.setenv("TOKEN_BUDGET_FILE", str(tmp_path / "x.db"))
    with pytest.raises(sqlite3.DatabaseError):
        token_budget.register_middleware()


# Together -----------------------------------------------------------------------------------


async def test_closing_the_consumer_closes_the_engine_through_both(
    tmp_path: Path, logs: PromptLogger, lines: Lines, ledger: Ledger
) -> None:
    engine = Engine()
    async with kernel(tmp_path, engine, Brings(logs, budget(1000, ledger))) as running:
        answer = await first(running)
        assert (engine.closed, len(lines.lines)) == (0, 1)
        await answer.aclose()
        assert (engine.closed, len(lines.lines)) == (1, 2)
        assert ledger.spent(TODAY, "m") > 0


async def test_the_outer_one_sees_what_the_inner_one_refuses(
    tmp_path: Path, logs: PromptLogger, lines: Lines
) -> None:
    async with kernel(tmp_path, Engine(), Brings(logs, budget(0))) as running:
        with pytest.raises(BudgetExceeded):
            await ask(running)
    assert len(lines.lines) == 2
    async with kernel(tmp_path, Engine(), Brings(budget(0), logs)) as running:
        with pytest.raises(BudgetExceeded):
            await ask(running)
    assert len(lines.lines) == 2, "the other way round it is never asked"


async def test_the_order_of_plugins_is_that_of_layers(tmp_path: Path) -> None:
    seen: list[str] = []

    class Notes(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        def chunk(self, call: RequestCall, item: ChatChunk) -> ChatChunk:
            seen.append(self.name)
            return item

    class BringsFirst(Brings):
        @hookimpl(tryfirst=True)
        def register_middleware(self) -> Sequence[object]:
            return self.middleware

    engine = Engine()
    engine.words = []
    plugins = {
        "engine": engine,
        "z": Brings(Notes("z1"), Notes("z2")),
        "a": Brings(Notes("a")),
        "first": BringsFirst(Notes("first")),
    }
    async with Kernel(home=tmp_path, plugins=plugins, discover=False, environ={}) as running:
        await ask(running)
    assert seen == ["a", "z2", "z1", "first"], "an answer passes the innermost first"


async def test_a_defect_of_one_names_it_and_still_books(tmp_path: Path, ledger: Ledger) -> None:
    class Broken(PromptLogger):
        def redact(self, text: str) -> str:
            raise ZeroDivisionError("redact")

    broken = Broken(logging.Logger("x"))
    async with kernel(tmp_path, Engine(), Brings(broken, budget(50, ledger))) as running:
        with pytest.raises(PluginError, match=r"PromptLogger\.request' raised ZeroDivisionError"):
            await ask(running)
    assert ledger.spent(TODAY, "m") == 0


async def test_neither_is_asked_for_what_it_does_not_look_at(logs: PromptLogger) -> None:
    from aiplayground.middleware import LifecycleCall, compose_lifecycle

    async def run() -> None: ...

    assert compose_lifecycle([logs, budget(1)], LifecycleCall("s", "start"), run) is run
    call = RequestCall("s", "chat", question())
    assert compose_request([], call, run) is run  # type: ignore[arg-type,comparison-overlap]  # any callable
