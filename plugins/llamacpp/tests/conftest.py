"""The tiny model, and workers that serve it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from plugins.llamacpp.tests.tiny_model import write_model
from plugins.llamacpp.tests.workers import Launch, Worker, end_worker, start_worker


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module that names `ENGINES` with each of them, but for `PYTHON_ALONE`.

    Those in `SLOW_TWICE` take long: the second engine has its turn with the long tests.
    """
    name, module = metafunc.function.__name__, metafunc.module
    engines: list[Any] = list(getattr(module, "ENGINES", ()))
    if name in getattr(module, "PYTHON_ALONE", ()):
        engines = engines[:1]
    if name in getattr(module, "SLOW_TWICE", ()):
        engines[1:] = [pytest.param(each, marks=pytest.mark.full) for each in engines[1:]]
    if engines and "launch" in metafunc.fixturenames:
        metafunc.parametrize("launch", engines, indirect=True, scope="session")


@pytest.fixture(scope="session")
def launch(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Launch]:
    """Start workers as the kernel does, on a bound socket; all are ended with the session."""
    engine = getattr(request, "param", "python")
    with ExitStack() as stack:

        def start(
            *arguments: str, env: Mapping[str, str] | None = None, ready: bool = True
        ) -> Worker:
            log = tmp_path_factory.mktemp("worker") / "stderr"
            worker = start_worker(arguments, env or {}, log, engine)
            stack.callback(end_worker, worker)
            if ready:
                worker.wait_ready()
            return worker

        yield start


@pytest.fixture(scope="session")
def worker(launch: Launch, model_path: Path) -> Worker:
    """A worker with the tiny model, shared by the tests that leave it as it was."""
    return launch("--model", str(model_path), "--name", "tiny")
