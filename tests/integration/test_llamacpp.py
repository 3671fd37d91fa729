"""The whole path on the real engine: kernel, hooks, supervised worker, llama.cpp."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from plugins.llamacpp.tests.kernels import SERVICE, home_with_model, options
from plugins.llamacpp.tests.tiny_bert import RANK, Bert
from plugins.llamacpp.tests.tiny_model import write_model
from plugins.llamacpp.tests.tiny_parts import picture, shown, write_projector
from tests.fakes import ask, question

from aiplayground import BlockingKernel, CompletionRequest, Kernel
from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    FileOperationError,
    InvalidModelFile,
    InvalidParameters,
    ModelNotFound,
    NotEnoughMemory,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.events import WebServiceExit
from aiplayground.types import ChatRequest

pytestmark = pytest.mark.engine


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return home_with_model(tmp_path)


@pytest.fixture
async def kernel(home: Path) -> AsyncIterator[Kernel]:
    async with Kernel(**options(home)) as kernel:
        yield kernel


@pytest.fixture
async def roomy(home: Path) -> AsyncIterator[Kernel]:
    """A kernel whose answers go on for so long that something can happen to them."""
    services = {SERVICE: {"context_size": 50_000}}
    async with Kernel(**options(home, services=services)) as kernel:
        yield kernel


def launches(kernel: Kernel) -> int:
    return sum(line.text == "starting" for line in kernel.log(SERVICE).tail())


async def test_documents_are_ranked_through_the_kernel(kernel: Kernel, home: Path) -> None:
    model = Bert(RANK, head=True)
    model.write(home / "models" / "judge.gguf")
    documents = ["one", "two hundred", "three"]
    request = {"kind": "rerank", "model": "judge", "query": "number", "documents": documents}
    (event,) = [each async for each in kernel.generate({**request, "top_n": 2})]
    assert event.result is not None
    best = event.result["results"][0]
    expected = [model.score("number", document) for document in documents]
    assert best["index"] == expected.index(max(expected))
    assert best["relevance_score"] == pytest.approx(max(expected), abs=2e-3)
    assert len(event.result["results"]) == 2
    with pytest.raises(InvalidParameters, match="reranker"):
        async for _ in kernel.generate({**request, "model": "tiny"}):
            pass


async def test_tools_formats_and_several_answers_through_the_kernel(kernel: Kernel) -> None:
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    tool = {"type": "function", "function": {"name": "switch", "parameters": schema}}
    request = question("tiny", tools=[tool], tool_choice="required", n=2, seed=1, logprobs=True)
    chunks = [chunk async for chunk in kernel.chat(request)]
    for index in (0, 1):
        own = [chunk for chunk in chunks if chunk.index == index]
        (call,) = [call for chunk in own for call in chunk.tool_calls or ()]
        assert call["function"]["name"] == "switch"
        assert json.loads(call["function"]["arguments"])["on"] in (True, False)
        assert own[-1].finish_reason == "tool_calls"
        assert all(entry["logprob"] <= 0 for chunk in own for entry in chunk.logprobs or ())
    assert chunks[-1].usage is not None
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    text = await ask(kernel, "tiny", response_format=form)
    assert json.loads(text)["on"] in (True, False)
    with pytest.raises(InvalidParameters, match="tool_choice"):
        await ask(kernel, "tiny", tools=[tool], tool_choice="always")


async def test_images_through_the_kernel(kernel: Kernel, home: Path) -> None:
    write_projector(home / "models" / "mmproj-tiny.gguf")
    write_model(home / "models" / "plain.gguf")
    listed = {model.name: model.vision for model in await kernel.models()}
    assert (listed["tiny"], listed["plain"]) == (True, False)
    fields: dict[str, Any] = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    parts = [shown("What is it?", picture(seed), "?") for seed in (1, 1, 2)]
    answers = [await ask(kernel, "tiny", messages=messages, **fields) for messages in parts]
    assert answers[0] == answers[1] != answers[2]
    with pytest.raises(InvalidParameters, match="mmproj"):
        await ask(kernel, "plain", messages=parts[0])


async def test_hundred_simultaneous_first_requests_start_one_worker(kernel: Kernel) -> None:
    answers = await asyncio.gather(
        *(ask(kernel, "tiny", max_tokens=3, temperature=0) for _ in range(100))
    )
    assert len(set(answers)) == 1
    assert launches(kernel) == 1
    (worker,) = kernel.service(SERVICE).workers
    assert (worker.restarts, worker.model) == (0, "tiny")


async def test_a_model_loads_into_the_empty_primary_and_a_second_beside_it(
    kernel: Kernel, home: Path
) -> None:
    await kernel.start(SERVICE)
    assert [worker.model for worker in kernel.service(SERVICE).workers] == [None]
    write_model(home / "models" / "other.gguf", seed=8)
    first = await ask(kernel, "tiny", max_tokens=8, temperature=0)
    second = await ask(kernel, "other", max_tokens=8, temperature=0)
    assert first != second
    assert {worker.model for worker in kernel.service(SERVICE).workers} == {"tiny", "other"}
    assert first == await ask(kernel, "tiny", max_tokens=8, temperature=0)
    await kernel.unload(SERVICE, "other")
    assert [worker.model for worker in kernel.service(SERVICE).workers] == ["tiny"]


async def test_the_least_recently_used_model_makes_room(home: Path) -> None:
    for seed, name in enumerate(("b", "c")):
        write_model(home / "models" / f"{name}.gguf", seed=seed)
    async with Kernel(**options(home, residency={"max_models": 2})) as kernel:
        for name in ("tiny", "b", "tiny", "c"):
            await ask(kernel, name, max_tokens=2)
        assert set(kernel.service(SERVICE).models) == {"tiny", "c"}
        await ask(kernel, "b", max_tokens=2)
        assert set(kernel.service(SERVICE).models) == {"c", "b"}


async def test_completion_seed_and_stop(kernel: Kernel) -> None:
    async def complete(**more: Any) -> str:
        request = CompletionRequest(model="tiny", prompt="Once", max_tokens=24, **more)
        return "".join([event.text async for event in kernel.generate(request)])

    assert await complete(seed=5) == await complete(seed=5)
    whole = await complete(temperature=0)
    stop = whole[3:5]
    assert await complete(temperature=0, stop=stop) == whole[: whole.index(stop)]


async def test_worker_killed_in_mid_stream(roomy: Kernel) -> None:
    await ask(roomy, "tiny", max_tokens=1)
    pid = roomy.service(SERVICE).workers[0].pid
    assert pid is not None
    events = roomy.subscribe(WebServiceExit, snapshot=False)

    async def kill_at_the_first_chunk() -> None:
        answer = roomy.chat(question("tiny", max_tokens=10**6, ignore_eos=True))
        await anext(answer)
        os.kill(pid, signal.SIGKILL)
        async for _ in answer:  # what had arrived before is still delivered
            pass

    with pytest.raises(ServiceNotAvailable) as caught:
        await kill_at_the_first_chunk()
    assert "SIGKILL" in caught.value.message
    exit_ = await asyncio.wait_for(anext(events), 20)
    assert isinstance(exit_, WebServiceExit)
    assert (exit_.service, exit_.exit_code) == (SERVICE, -signal.SIGKILL)
    assert await ask(roomy, "tiny", max_tokens=3)
    assert roomy.service(SERVICE).workers[0].pid != pid


async def test_an_abort_in_mid_step_ends_each_answer_with_an_error_and_the_next_one_works(
    roomy: Kernel,
) -> None:
    await ask(roomy, "tiny", max_tokens=1)
    pid = roomy.service(SERVICE).workers[0].pid
    assert pid is not None
    begun = asyncio.Barrier(9)

    async def answer(number: int) -> None:
        request = question("tiny", max_tokens=10**6, ignore_eos=True, seed=number)
        chunks = roomy.chat(request)
        await anext(chunks)
        await begun.wait()
        async for _ in chunks:
            pass

    async def abort() -> None:
        await begun.wait()
        os.kill(pid, signal.SIGABRT)  # what a failed assertion in native code ends with

    *ended, _ = await asyncio.gather(*map(answer, range(8)), abort(), return_exceptions=True)
    for error in ended:
        assert isinstance(error, ServiceNotAvailable), ended
        assert "SIGABRT" in error.message
    assert await ask(roomy, "tiny", max_tokens=3)
    worker = roomy.service(SERVICE).workers[0]
    assert worker.pid not in (None, pid)


async def test_a_caller_who_leaves_stops_the_engine(kernel: Kernel) -> None:
    answer = kernel.chat(question("tiny", max_tokens=500, ignore_eos=True))
    await anext(answer)
    await answer.aclose()
    # The one serial slot is free again at once: the next answer would wait for it otherwise.
    assert await asyncio.wait_for(ask(kernel, "tiny", max_tokens=2), 20)


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"model": "tinny"}, ModelNotFound, "Did you mean 'tiny'"),
        ({"model": "./nowhere.gguf"}, FileOperationError, "nowhere.gguf"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, InvalidParameters, "context"),
        ({"grammar_of": 1}, InvalidParameters, ""),
        ({"tools": [{}]}, InvalidParameters, "tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            InvalidParameters,
            "cannot see",
        ),
    ],
)
async def test_bad_requests_leave_the_worker_alone(
    kernel: Kernel, request_: dict[str, Any], error: type[Exception], words: str
) -> None:
    await kernel.ensure_ready(SERVICE, "tiny")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], **request_}
    with pytest.raises((error, ValueError)) as caught:
        await anext(kernel.chat(ChatRequest.model_validate(body)))
    assert words in str(caught.value)
    assert await ask(kernel, "tiny", max_tokens=2)
    assert launches(kernel) == 1


Break = Callable[[Path, dict[str, Any], pytest.MonkeyPatch], Any]


def no_file(home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "models" / "tiny.gguf").unlink()


def not_gguf(home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "models" / "tiny.gguf").write_text("<html>404</html>")


def truncated(home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "models" / "tiny.gguf"
    path.write_bytes(path.read_bytes()[:-1000])


def no_memory(home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings["services"] = {SERVICE: {"context_size": 2**31 - 1}}


def no_memory_unchecked(
    home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(home, settings, monkeypatch)
    settings["residency"] = {"memory_check": "off"}


def taken_port(home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    listener = socket.create_server(("127.0.0.1", 0))
    settings["services"] = {SERVICE: {"port": listener.getsockname()[1]}}
    return listener


def no_library(home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(home))


def crash(home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def no_package(home: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "site"
    (folder / "aiplayground_llamacpp").mkdir(parents=True)
    (folder / "aiplayground_llamacpp" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(folder))


FAILURES: list[tuple[Break, type[AIPlaygroundError], FailureClass | None, str]] = [
    (no_file, AIPlaygroundError, None, "tiny"),
    (not_gguf, AIPlaygroundError, None, "not a GGUF file"),
    (truncated, AIPlaygroundError, None, "truncated"),
    (no_memory, NotEnoughMemory, None, "Set context_size to"),
    (no_memory_unchecked, ServiceFailed, FailureClass.OUT_OF_MEMORY, "context_size"),
    (taken_port, ServiceFailed, FailureClass.PORT_TAKEN, "port"),
    (no_library, ServiceFailed, FailureClass.MISSING_LIBRARY, "pip install"),
    (crash, ServiceFailed, FailureClass.CRASH, "SIGSEGV"),
    (no_package, ServiceFailed, FailureClass.MISSING_LIBRARY, "package"),
]


@pytest.mark.parametrize(("break_it", "kind", "failure", "words"), FAILURES)
async def test_start_failures_say_why_and_leave_the_service_restartable(
    break_it: Break,
    kind: type[AIPlaygroundError],
    failure: FailureClass | None,
    words: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: dict[str, Any] = {}
    held = break_it(home, settings, monkeypatch)
    path = home / "models" / "tiny.gguf"
    async with Kernel(**options(home, **settings)) as kernel:
        with pytest.raises(kind) as caught:
            await ask(kernel, str(path), max_tokens=2)
        assert words in caught.value.message
        if failure is not None:
            assert isinstance(caught.value, ServiceFailed)
            assert caught.value.failure is failure
        assert kernel.service(SERVICE).set_up
        monkeypatch.undo()
        write_model(path)
        if held is not None:
            held.close()
        if "services" not in settings or held is not None:
            assert await ask(kernel, "tiny", max_tokens=2)
        else:  # the setting is the cause: the service itself can be started
            await kernel.start(SERVICE)
            assert kernel.service(SERVICE).status.value == "Running"


async def test_a_corrupt_model_takes_nothing_down(kernel: Kernel, home: Path) -> None:
    assert await ask(kernel, "tiny", max_tokens=2)
    bad = home / "models" / "bad.gguf"
    bad.write_bytes((home / "models" / "tiny.gguf").read_bytes()[:3000])
    with pytest.raises(InvalidModelFile):
        await ask(kernel, str(bad))
    assert await ask(kernel, "tiny", max_tokens=2)
    assert launches(kernel) == 1


async def test_a_model_that_breaks_after_it_was_listed(kernel: Kernel, home: Path) -> None:
    await kernel.start(SERVICE)
    await kernel.models()
    (home / "models" / "tiny.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(AIPlaygroundError):
        await ask(kernel, "tiny")
    assert kernel.service(SERVICE).status.value == "Running"
    write_model(home / "models" / "tiny.gguf")
    assert await ask(kernel, "tiny", max_tokens=2)


async def test_stop_during_a_start_leaves_no_process(kernel: Kernel) -> None:
    started = asyncio.ensure_future(kernel.start(SERVICE, "tiny"))
    while not kernel.service(SERVICE).workers:
        await asyncio.sleep(0)
    pid = kernel.service(SERVICE).workers[0].pid
    await kernel.stop(SERVICE)
    with pytest.raises(ServiceNotAvailable):
        await started
    assert kernel.service(SERVICE).status.value == "Stopped"
    if pid is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_blocking_facade(home: Path) -> None:
    with BlockingKernel(**options(home)) as kernel:
        chunks = list(kernel.chat(question("tiny", max_tokens=3)))
        assert chunks[-1].finish_reason == "length"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3


async def test_two_kernels_side_by_side(home: Path, tmp_path: Path) -> None:
    other_home = tmp_path / "other"
    (other_home / "models").mkdir(parents=True)
    write_model(other_home / "models" / "second.gguf", seed=3)
    async with Kernel(**options(home)) as one, Kernel(**options(other_home)) as two:
        answers: list[Awaitable[str]] = [ask(one, "tiny"), ask(two, "second")]
        assert all(await asyncio.gather(*answers))
        assert one.service(SERVICE).port != two.service(SERVICE).port
        with pytest.raises(ModelNotFound):
            await ask(one, "second")
