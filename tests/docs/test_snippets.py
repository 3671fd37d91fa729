"""The Python examples in the documentation run as they stand."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.programs import output_of

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def snippets(page: str) -> list[str]:
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


EMBEDDING = snippets("docs/embedding.md")


def test_the_page_has_its_examples() -> None:
    assert len(EMBEDDING) == 5


@pytest.mark.engine
@pytest.mark.parametrize("number", range(len(EMBEDDING)))
def test_embedding_example_runs(number: int, tmp_path: Path) -> None:
    assert output_of(EMBEDDING[number], tmp_path / "home").strip()


GATEWAY = snippets("docs/gateway.md")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway on a port of its own; yields its address."""
    home = str(tmp_path_factory.mktemp("home"))
    aipg = [sys.executable, "-m", "aiplayground.cli", "--home", home]
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    subprocess.run([*aipg, "serve", "--detach", "--port", port], check=True, timeout=100)
    yield f"http://127.0.0.1:{port}"
    subprocess.run([*aipg, "stop"], check=True, timeout=100)


def test_the_gateway_s_page_has_its_examples() -> None:
    assert len(GATEWAY) == 3


@pytest.mark.engine
@pytest.mark.parametrize("number", range(len(GATEWAY)))
def test_gateway_example_runs(number: int, serving: str, tmp_path: Path) -> None:
    source = GATEWAY[number].replace("http://127.0.0.1:5000", serving)
    assert output_of(source, tmp_path / "home").strip()


CONVERSATIONS = snippets("docs/conversations.md")


def test_the_page_of_conversations_has_its_examples() -> None:
    assert len(CONVERSATIONS) == 3


@pytest.mark.engine
@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_conversations_example_runs(
    number: int, serving: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The one with a client is for the kernel that runs, the others have their own."""
    code = CONVERSATIONS[number]
    home = served_home(tmp_path_factory) if "Client()" in code else tmp_path / "home"
    assert output_of(code, home).strip()


def served_home(factory: pytest.TempPathFactory) -> Path:
    """Return the home of the gateway that `serving` has begun."""
    return next(
        path
        for path in factory.getbasetemp().glob("home*")
        if (path / "runtime/serve.json").exists()
    )
