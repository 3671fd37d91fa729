"""Workers over their life: loads, clients that leave, failures to start, the end."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from plugins.llamacpp.tests.tiny_model import write_model
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Launch, Worker

from aiplayground.serving.protocol import ERROR_PREFIX

pytestmark = pytest.mark.engine

ENGINES = BOTH
PYTHON_ALONE = {
    # What ends before there is an engine is the same code for both.
    "test_a_start_with_a_file_that_cannot_be_loaded",
    "test_a_start_with_wrong_settings",
    "test_a_port_that_is_taken",
    # A llama-server that lacks one is in test_setup.
    "test_a_start_without_the_shared_library",
}

LONG = json.dumps({"context_size": 200_000})
ENDLESS = {"ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def patient(launch: Launch, model_path: Path) -> Worker:
    """A worker whose answers take long: its context is far larger than the model's."""
    return launch("--model", str(model_path), "--name", "tiny", "--settings", LONG)


@pytest.fixture
def empty(launch: Launch) -> Worker:
    return launch()


def leave_after_first_bytes(worker: Worker, body: dict[str, Any]) -> None:
    with worker.client.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_bytes())


def leave_unanswered(worker: Worker, body: dict[str, Any]) -> None:
    with pytest.raises(httpx.ReadTimeout):
        worker.client.post("/v1/completions", json=body, timeout=0.5)


def test_a_client_that_leaves_ends_its_answer(patient: Worker) -> None:
    body = {"model": "tiny", "prompt": "Hello", "stream": True, **ENDLESS}
    leave_after_first_bytes(patient, body)
    patient.wait_idle()
    assert patient.chat(max_tokens=2).is_success


def test_a_client_that_leaves_an_answer_that_is_not_streamed_ends_it_too(patient: Worker) -> None:
    leave_unanswered(patient, {"model": "tiny", "prompt": "Hello", **ENDLESS})
    patient.wait_idle()
    assert patient.chat(max_tokens=2).is_success


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_its_prompt_is_read(patient: Worker, stream: bool) -> None:
    prompt = "a" * 150_000  # takes many times longer to read than the client waits
    leave_unanswered(patient, {"model": "tiny", "prompt": prompt, "stream": stream})
    patient.wait_idle()
    assert patient.chat(max_tokens=2).is_success


def test_a_client_that_leaves_the_queue(launch: Launch, model_path: Path) -> None:
    settings = json.dumps({"context_size": 200_000, "slots": 1})
    narrow = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    body = {"model": "tiny", "prompt": "Hello", "stream": True, **ENDLESS}
    with narrow.client.stream("POST", "/v1/completions", json=body) as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        leave_unanswered(narrow, body)
        assert narrow.client.get("/health").json()["active"] >= 1
    narrow.wait_idle()


def test_simultaneous_requests_all_get_their_own_answer(worker: Worker) -> None:
    def ask(number: int) -> str:
        answer = worker.chat(f"number {number % 4}", max_tokens=12, temperature=0)
        return str(answer.json()["choices"][0]["message"]["content"])

    alone = [ask(number) for number in range(4)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(32)))
    assert together == alone * 8


def test_a_model_that_is_unloaded_ends_its_answers_with_an_error(
    launch: Launch, model_path: Path
) -> None:
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", LONG)
    body = {"model": "tiny", "prompt": "Hello", "stream": True, **ENDLESS}
    with worker.client.stream("POST", "/v1/completions", json=body) as answer:
        pieces = answer.iter_text()
        received = next(pieces)
        assert worker.client.post("/models/unload", headers=worker.headers).is_success
        received += "".join(pieces)
    last = json.loads(received.rstrip().rsplit("data: ", 1)[1])
    assert last["code"] == -3
    assert "unloaded" in last["error"]["message"]
    assert "[DONE]" not in received
    refused = worker.chat()
    assert (refused.status_code, refused.json()["code"]) == (503, -3)


def test_load_and_unload_again_and_again(empty: Worker, model_path: Path) -> None:
    assert empty.client.get("/health").json() == {"status": "ok", "model": None, "active": 0}
    assert empty.client.get("/v1/models").json()["data"] == []
    texts = set()
    for number in range(12):
        assert empty.load(model_path, "tiny").json()["model"] == "tiny"
        texts.add(empty.chat(temperature=0, max_tokens=8).text.split('"content"')[1][:20])
        if number % 2:
            assert empty.client.post("/models/unload", headers=empty.headers).is_success
            assert empty.client.get("/health").json()["model"] is None
    assert len(texts) == 1


def test_a_model_is_replaced_only_if_that_is_wanted(
    empty: Worker, model_path: Path, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other.gguf", seed=9)
    assert empty.load(model_path, "tiny").is_success
    body = {"path": str(other), "name": "other", "replace": False}
    answer = empty.client.post("/models/load", json=body, headers=empty.headers)
    assert (answer.status_code, answer.json()["details"]["reason"]) == (503, "occupied")
    assert empty.load(other, "other").is_success
    assert empty.chat().status_code == 404
    assert empty.client.get("/health").json()["model"] == "other"


def broken(kind: str, model: Path, folder: Path) -> Path:
    """Write a file that cannot be loaded, or name one that is not there."""
    data = model.read_bytes()
    contents = {
        "text": b"Dear model, how are you?",
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "header": data[:100],
        "counts": data[:8] + b"\xff" * 16 + data[24:],
        "architecture": data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0xlama"),
        "tensor": data.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_no.weight"),
    }
    path = folder / f"{kind}.gguf"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(contents[kind])
    return path


BROKEN = [
    ("missing", "missing-file", "does not exist"),
    ("folder", "bad-model", "folder"),
    ("text", "bad-model", "not a GGUF file"),
    ("empty", "bad-model", "GGUF"),
    ("truncated", "bad-model", "truncated"),
    ("header", "bad-model", "header.gguf is"),
    ("counts", "bad-model", "counts.gguf is"),
    ("architecture", "bad-model", "xlama"),
    ("tensor", "bad-model", "damaged or incomplete"),
]


def test_files_that_cannot_be_loaded_leave_the_worker_as_it_is(
    empty: Worker, model_path: Path, tmp_path: Path
) -> None:
    for kind, failure, words in BROKEN:
        answer = empty.load(broken(kind, model_path, tmp_path), kind)
        body = answer.json()
        assert (answer.status_code, body["code"]) == (500, -5), (kind, body)
        assert body["details"]["failure"] == failure, (kind, body)
        assert words in body["message"], (kind, body)
        assert empty.client.get("/health").status_code == 200
    assert empty.load(model_path, "tiny").is_success
    assert not empty.load(tmp_path / "text.gguf", "text").is_success
    assert empty.chat(max_tokens=2).is_success  # the model that was there is there still


def failure_of(worker: Worker) -> dict[str, Any]:
    """Return what a worker that could not start told the kernel."""
    assert worker.process.wait(60) == 1, worker.stderr
    lines = [line for line in worker.stderr.splitlines() if line.startswith(ERROR_PREFIX)]
    assert len(lines) == 1, worker.stderr
    return dict(json.loads(lines[0].removeprefix(ERROR_PREFIX)))


@pytest.mark.parametrize(("kind", "failure", "words"), BROKEN)
def test_a_start_with_a_file_that_cannot_be_loaded(
    launch: Launch, model_path: Path, tmp_path: Path, kind: str, failure: str, words: str
) -> None:
    path = broken(kind, model_path, tmp_path)
    told = failure_of(launch("--model", str(path), ready=False))
    assert (told["code"], told["details"]["failure"]) == (-5, failure)
    assert words in told["message"]


def test_a_start_without_the_shared_library(launch: Launch, tmp_path: Path) -> None:
    told = failure_of(launch(env={"LLAMA_CPP_LIB_PATH": str(tmp_path)}, ready=False))
    assert (told["code"], told["details"]["failure"]) == (-3, "missing-library")
    assert "pip install" in told["message"]


def test_a_start_with_more_context_than_memory(launch: Launch, model_path: Path) -> None:
    settings = json.dumps({"context_size": 2**31 - 1})
    told = failure_of(launch("--model", str(model_path), "--settings", settings, ready=False))
    assert (told["code"], told["details"]["failure"]) == (-3, "out-of-memory")
    assert "context_size" in told["message"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('{"contxt": 1}', "contxt"),
        ('{"threads": "many"}', "threads"),
        ("[]", "object"),
        ("{", "JSON"),
    ],
)
def test_a_start_with_wrong_settings(launch: Launch, settings: str, words: str) -> None:
    told = failure_of(launch("--settings", settings, ready=False))
    assert told["code"] == -4
    assert words in told["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_worker(empty: Worker, number: int) -> None:
    empty.process.send_signal(number)
    assert empty.process.wait(20) == 0, empty.stderr
    assert "Traceback" not in empty.stderr


def test_sigterm_ends_a_worker_in_the_middle_of_an_answer(launch: Launch, model_path: Path) -> None:
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", LONG)
    body = {"model": "tiny", "prompt": "Hello", "stream": True, **ENDLESS}
    with worker.client.stream("POST", "/v1/completions", json=body) as answer:
        pieces = answer.iter_text()
        received = next(pieces)
        worker.process.send_signal(signal.SIGTERM)
        received += "".join(pieces)
    assert '"code":-3' in received
    assert "[DONE]" not in received
    assert worker.process.wait(20) == 0, worker.stderr
    assert "Traceback" not in worker.stderr


def test_sigterm_ends_a_worker_that_is_starting(launch: Launch, model_path: Path) -> None:
    for delay in (0.3, 0.6, 0.9):
        worker = launch("--model", str(model_path), ready=False)
        time.sleep(delay)
        assert worker.terminate() in (0, -signal.SIGTERM), worker.stderr
        assert ERROR_PREFIX not in worker.stderr


def test_a_file_without_a_template_is_chatted_with_in_chatml(
    launch: Launch, tmp_path: Path
) -> None:
    worker = launch("--model", str(write_model(tmp_path / "tiny.gguf", template=None)))
    answer = worker.chat("Hi", max_tokens=1).json()
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert answer["usage"]["prompt_tokens"] == len(prompt)


def test_a_file_with_a_broken_template_still_completes(launch: Launch, tmp_path: Path) -> None:
    worker = launch("--model", str(write_model(tmp_path / "tiny.gguf", template="{% for %}")))
    refused = worker.chat()
    assert (refused.status_code, refused.json()["code"]) == (400, -4)
    assert "chat template" in refused.json()["message"]
    body = {"model": "tiny", "prompt": "Hi", "max_tokens": 1}
    assert worker.client.post("/v1/completions", json=body).is_success


def test_a_file_may_say_how_it_is_sampled(launch: Launch, tmp_path: Path) -> None:
    worker = launch("--model", str(write_model(tmp_path / "tiny.gguf", temperature=0.0)))
    answers = {worker.chat(max_tokens=30).json()["choices"][0]["message"]["content"] for _ in "abc"}
    assert len(answers) == 1
    hot = [worker.chat(max_tokens=30, temperature=2).json()["choices"][0] for _ in "abc"]
    assert len({choice["message"]["content"] for choice in hot}) == 3


def test_a_port_that_is_taken(launch: Launch, worker: Worker) -> None:
    told = failure_of(launch("--port", str(worker.port), ready=False))
    assert (told["code"], told["details"]["failure"]) == (-3, "port-taken")
