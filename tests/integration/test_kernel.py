"""A kernel with backends in the test's own process: requests, life, and what it leaves behind."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import (
    Backend,
    Fake,
    ask,
    collect,
    eventually,
    everything,
    kernel,
    nothing_leaks,
    question,
)

from aiplayground.context import ServiceContext
from aiplayground.errors import (
    FailureClass,
    InvalidParameters,
    ModelNotFound,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.events import KernelStopped, KernelStopping
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import Capability, SetupProgress
from aiplayground.types import (
    CompletionRequest,
    Embeddings,
    EmbedRequest,
    GenerateEvent,
    ImageRequest,
)


async def test_a_chat_starts_the_service_loads_the_model_and_streams(tmp_path: Path) -> None:
    fake = Fake()
    async with kernel(tmp_path, fake) as k:
        chunks = await collect(k.chat(question()))
        assert [(each.text, each.finish_reason) for each in chunks] == [
            ("a", None),
            ("b", None),
            ("c", None),
            ("", "stop"),
        ]
        assert fake.calls == ["start", "load m", "chat m"]
        assert k.service("fake").models == ("m",)
        assert await ask(k) == "abc"
        assert fake.calls.count("start") == fake.calls.count("load m") == 1


async def test_closing_an_answer_closes_the_backends_generator_at_once(tmp_path: Path) -> None:
    fake = Fake()
    async with kernel(tmp_path, fake) as k:
        answer = k.chat(question())
        await anext(answer)
        assert fake.closed == 0
        await answer.aclose()
        assert fake.closed == 1


async def test_an_unknown_model_is_minus_two_with_a_suggestion(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake(models=["llama-3", "qwen"])) as k:
        with pytest.raises(
            ModelNotFound, match=r"no model 'lama-3'. Did you mean 'llama-3'"
        ) as caught:
            await ask(k, "lama-3")
        assert caught.value.code == -2
        assert caught.value.details["models"] == ["llama-3", "qwen"]
        assert k.service("fake").status == "Installed", "nothing was started for it"


class Absent(Backend):
    """A backend whose engine is not installed, or is broken."""

    error: ServiceFailed | None = None

    @hookimpl
    async def setup(self) -> AsyncGenerator[SetupProgress, None]:
        yield SetupProgress(stage="done", progress=100)

    @hookimpl
    async def installed_version(self) -> str | None:
        if self.error is not None:
            raise self.error
        return None


async def test_without_an_engine_it_says_what_to_set_up(tmp_path: Path) -> None:
    async with kernel(tmp_path, Absent("engine")) as k:
        for name in ("guide", None):
            with pytest.raises(ModelNotFound, match="Run: aipg setup engine"):
                await ask(k, name or await k.default_model())


async def test_a_broken_engine_says_why_its_models_are_not_there(tmp_path: Path) -> None:
    absent = Absent("engine")
    absent.error = ServiceFailed("A part is gone.", failure=FailureClass.MISSING_FILE)
    async with kernel(tmp_path, absent, Fake(models=["other"])) as k:
        with pytest.raises(ModelNotFound, match=r"Models here: other\..* engine: A part is gone\."):
            await ask(k, "guide")


async def test_model_names_are_found_whatever_their_case_and_suffix(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake(models=["Llama-3"])) as k:
        assert await ask(k, "llama-3.gguf") == "abc"


async def test_parameters_that_are_not_declared_are_minus_four(tmp_path: Path) -> None:
    fake = Fake(parameters=frozenset({"temperature"}))
    async with kernel(tmp_path, fake) as k:
        with pytest.raises(InvalidParameters, match="does not support seed, top_k") as caught:
            await ask(k, temperature=0.5, top_k=3, seed=1)
        assert caught.value.code == -4
        assert caught.value.details["parameters"] == ["seed", "top_k"]
        assert await ask(k, temperature=0.5, seed=None) == "abc"


class Everything(Fake):
    """A backend that does more than chat."""

    def __init__(self, **spec: Any) -> None:
        kinds = {Capability.CHAT, Capability.COMPLETION, Capability.EMBEDDING}
        super().__init__(capabilities=frozenset(kinds), **spec)

    @hookimpl
    async def generate(self, request: Any) -> AsyncIterator[GenerateEvent]:
        yield GenerateEvent(kind="text", text=request.prompt.upper(), finish_reason="stop")

    @hookimpl
    async def embed(self, request: EmbedRequest) -> Embeddings:
        return Embeddings(model=request.model, vectors=[[1.0]] * len(request.input))


async def test_completion_and_embedding(tmp_path: Path) -> None:
    async with kernel(tmp_path, Everything()) as k:
        (event,) = await collect(k.generate(CompletionRequest(model="m", prompt="once")))
        assert event.text == "ONCE"
        assert len((await k.embed(EmbedRequest(model="m", input=["a", "b"]))).vectors) == 2


async def test_what_a_backend_has_not_declared_is_minus_four(tmp_path: Path) -> None:
    async with kernel(tmp_path, Everything()) as k:
        with pytest.raises(InvalidParameters, match="does not do 'image'"):
            await collect(k.generate(ImageRequest(model="m", prompt="a cat")))
        with pytest.raises(InvalidParameters, match="does not support dimensions"):
            await k.embed(EmbedRequest(model="m", input=["a"], dimensions=8))
        picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
        with pytest.raises(InvalidParameters, match="reads text only"):
            await ask(k, messages=picture)
        with pytest.raises(InvalidParameters, match="Name a model"):
            await collect(k.generate(ImageRequest(prompt="a cat")))


async def test_one_name_on_two_backends_needs_the_backends_name(tmp_path: Path) -> None:
    one, two = Fake("one", words=["1"]), Fake("two", words=["2"])
    async with kernel(tmp_path, one, two) as k:
        with pytest.raises(InvalidParameters, match="Say which: one/m, two/m") as caught:
            await ask(k, "m")
        assert caught.value.details["choices"] == ["one/m", "two/m"]
        assert await ask(k, "two/m") == "2"
        await k.ensure_ready("one", "m")
        assert one.calls == ["start", "load m"]
        assert "chat m" in two.calls, "the backend is asked for its own name of the model"


async def test_models_say_whose_they_are_and_whether_they_are_loaded(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake("one", models=["a", "b"]), Fake("two", models=["c"])) as k:
        await ask(k, "b")
        listed = [(model.service, model.name, model.loaded) for model in await k.models()]
        assert listed == [("one", "a", False), ("one", "b", True), ("two", "c", False)]


async def test_a_failed_plugin_is_named_where_its_service_is_asked_for(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake()) as k:
        with pytest.raises(ServiceNotAvailable, match=r"no service 'fak'. Did you mean 'fake'"):
            await k.start("fak")


async def test_two_kernels_never_see_each_other(tmp_path: Path) -> None:
    one, two = Fake("one"), Fake("two")
    async with kernel(tmp_path / "1", one) as k1, kernel(tmp_path / "2", two) as k2:
        events = k2.subscribe()
        await ask(k1)
        assert [s.name for s in k1.services()] == ["one"]
        assert [s.name for s in k2.services()] == ["two"]
        assert two.calls == []
        with pytest.raises(ServiceNotAvailable):
            await k2.start("one")
        assert k1.log("one").tail()
        assert not k2.log("two").tail()
        assert k1.id != k2.id
    seen = await everything(events)
    assert {type(each).__name__ for each in seen} == {"Snapshot", "KernelStopping", "KernelStopped"}
    assert not (tmp_path / "2" / "logs" / "one.log").exists()


async def test_a_kernel_leaves_everything_as_it_was(tmp_path: Path) -> None:
    def state() -> Any:
        loop, root = asyncio.get_running_loop(), logging.getLogger()
        handlers = [signal.getsignal(each) for each in signal.valid_signals()]
        return (
            handlers,
            (root.level, list(root.handlers), set(logging.Logger.manager.loggerDict)),
            (loop.get_exception_handler(), loop.get_task_factory(), loop.get_debug()),
        )

    async with kernel(tmp_path / "warm", Fake()) as k:
        await ask(k)  # what Python itself imports or opens once
    before = state()
    with nothing_leaks():
        async with kernel(tmp_path / "home", Fake()) as k:
            await ask(k)
            assert state() == before
    assert state() == before


async def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with kernel(tmp_path, Fake()) as k:
        await ask(k)
    assert capfd.readouterr() == ("", "")


async def test_closing_twice_is_fine_and_opening_twice_is_not(tmp_path: Path) -> None:
    k = kernel(tmp_path, Fake())
    with pytest.raises(ServiceNotAvailable, match="not open"):
        await k.start("fake")
    async with k:
        with pytest.raises(RuntimeError, match="opens once"):
            await k.open()
        await asyncio.gather(k.close(), k.close())
        await k.close()
    with pytest.raises(RuntimeError, match="opens once"):
        await k.open()
    for refused in (k.start("fake"), ask(k), k.set_up("fake"), k.stop("fake")):
        with pytest.raises(ServiceNotAvailable):
            await refused


async def test_closing_waits_for_answers_in_progress(tmp_path: Path) -> None:
    fake = Fake()
    fake.answering = asyncio.Event()
    k = kernel(tmp_path, fake, settings={"timeouts": {"drain": 30.0}})
    await k.open()
    answering = asyncio.ensure_future(ask(k))
    await eventually(lambda: "chat m" in fake.calls)
    closing = asyncio.ensure_future(k.close())
    await eventually(lambda: k._closing)
    with pytest.raises(ServiceNotAvailable, match="shutting down"):
        await ask(k)
    with pytest.raises(ServiceNotAvailable, match="shutting down"):
        await k.start("fake")
    assert not closing.done()
    fake.answering.set()
    assert await answering == "abc"
    await closing
    assert fake.calls[-1] == "stop"


async def test_closing_ends_answers_that_take_too_long_with_an_error(tmp_path: Path) -> None:
    fake = Fake()
    fake.answering = asyncio.Event()
    k = kernel(tmp_path, fake, settings={"timeouts": {"drain": 0.01}})
    await k.open()
    answering = asyncio.ensure_future(ask(k))
    await eventually(lambda: "chat m" in fake.calls)
    await k.close()
    with pytest.raises(ServiceNotAvailable, match="was stopped while it answered"):
        await answering
    assert fake.closed == 1


async def test_a_stop_hook_that_hangs_delays_nobody_for_ever(tmp_path: Path) -> None:
    class Stuck(Fake):
        @hookimpl
        async def stop(self) -> None:
            await asyncio.Event().wait()

    other = Fake("other")
    k = kernel(tmp_path, Stuck("stuck"), other, settings={"timeouts": {"shutdown": 0.2}})
    with nothing_leaks():
        await k.open()
        events = k.subscribe(KernelStopping, KernelStopped, snapshot=False)
        await k.start("other")
        await k.start("stuck")
        await k.close()
        _, stopped = await everything(events)
    assert isinstance(stopped, KernelStopped)
    assert stopped.unfinished == ("stuck",)
    assert other.calls == ["start", "stop"]


async def test_a_close_that_is_cancelled_still_lets_go_of_everything(tmp_path: Path) -> None:
    fake = Fake()
    fake.answering = asyncio.Event()
    k = kernel(tmp_path, fake, settings={"timeouts": {"drain": 30.0}}, exclusive=True)
    await k.open()
    answering = asyncio.ensure_future(ask(k))
    await eventually(lambda: "chat m" in fake.calls)
    closing = asyncio.ensure_future(k.close())
    await eventually(lambda: k._closing)
    closing.cancel()
    await asyncio.wait({closing})
    answering.cancel()
    await asyncio.wait({answering})
    async with kernel(tmp_path, Fake(), exclusive=True):
        pass


async def test_an_exclusive_home_names_its_holder(tmp_path: Path) -> None:
    async with kernel(tmp_path, exclusive=True):
        async with kernel(tmp_path, Fake()) as beside:
            assert await ask(beside) == "abc"
        second = kernel(tmp_path, exclusive=True)
        with pytest.raises(ServiceNotAvailable, match=r"already runs .*process \d+.*AIPG_HOME"):
            await second.open()
    async with kernel(tmp_path, exclusive=True):
        pass


async def test_autostart_starts_and_one_that_cannot_harms_nobody(tmp_path: Path) -> None:
    class Fails(Fake):
        @hookimpl
        async def start(self, ctx: ServiceContext) -> None:
            raise OSError("no")

    fake = Fake()
    settings = {"services": {"fake": {"autostart": True}, "fails": {"autostart": True}}}
    async with kernel(tmp_path, Fails("fails"), fake, settings=settings) as k:
        await eventually(lambda: k.service("fake").status == "Running")
        await eventually(lambda: k.service("fails").runtime == "failed")
        await eventually(lambda: any("not be started" in x.text for x in k.log("fails").tail()))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "m", "messages": []}, "'messages'"),
        ({"messages": [{"role": "user", "content": "x"}]}, "'model' is missing"),
        ({"model": "m", "messages": "hello"}, "'messages'"),
        ({"model": "m", "messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"model": 3, "messages": [{"role": "user", "content": "x"}]}, "'model'"),
        (
            {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1},
            "'max_tokens'",
        ),
        (
            {"model": "m", "messages": [{"role": "user", "content": "x"}], "temprature": 1},
            "Did you mean 'temperature'?",
        ),
    ],
)
async def test_bad_requests_are_refused_in_one_sentence(
    tmp_path: Path, body: dict[str, Any], words: str
) -> None:
    async with kernel(tmp_path, Fake()) as k:
        with pytest.raises(InvalidParameters) as caught:
            await anext(k.chat(body))
        assert words in caught.value.message
        with pytest.raises(InvalidParameters):
            await anext(k.generate({"kind": "song", "prompt": "x"}))
        assert await ask(k) == "abc"
