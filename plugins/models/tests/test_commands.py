"""`aipg pull` and `aipg config hf-token`, as people run them."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.hub_server import TOKEN, HubServer, Repository

from aiplayground.cli import main
from aiplayground.cli._app import App
from aiplayground.paths import Paths
from aiplayground.secrets import HF_TOKEN, Secrets
from aiplayground_models.commands.bar import Bar
from aiplayground_models.commands.pull import pull
from aiplayground_models.commands.token import command as token_command

MODEL = random.Random(4).randbytes(1_000_000)
REPO = "owner/model-GGUF"
FILES: dict[str, Any] = {"model-Q4_K_M.gguf": MODEL, "model-Q8_0.gguf": b"q8"}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer({REPO: Repository(dict(FILES))}) as server:
        yield server


class Aipg:
    """Runs `aipg` with this package alone, in a home of its own: here, or as a process."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys

    def run(self, *args: str, code: int = 0) -> tuple[str, str]:
        ended = main(args)
        said = self._capsys.readouterr()
        assert ended == code, said
        return said.out, said.err

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "aiplayground.cli", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def aipg(
    tmp_path: Path,
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Aipg:
    for name, value in {
        "AIPG_HOME": str(tmp_path),
        "AIPG_PLUGINS__ALLOW": '["models"]',
        "AIPG_HUB__ENDPOINT": hub.url,
        "AIPG_HUB__RETRY_WAIT": "0.01",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "NO_COLOR": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return Aipg(tmp_path, capsys)


def place(aipg: Aipg, name: str = "model-Q4_K_M.gguf") -> Path:
    return aipg.home / "models/llm" / REPO / name


def test_pull_prints_where_the_model_is(aipg: Aipg) -> None:
    out, err = aipg.run("pull", f"hf.co/{REPO}:Q4_K_M")
    assert out == f"{place(aipg)}  (1.0 MB)\n"
    assert place(aipg).read_bytes() == MODEL
    assert "complete" in err
    asked = ("pull", REPO, "model-Q8_0.gguf", "--to", "llm/x", "--json")
    told = json.loads(aipg.run(*asked)[0])
    assert told["path"] == str(aipg.home / "models/llm/x/model-Q8_0.gguf")
    assert told["total"] == 2


def test_failures_have_the_documented_exit_codes(aipg: Aipg) -> None:
    _, err = aipg.run("pull", f"{REPO}:Q5_K_M", code=1)
    assert "There are: Q4_K_M, Q8_0" in err
    out, _ = aipg.run("pull", "nothing", "--json", code=1)
    assert json.loads(out)["code"] == -4
    aipg.run("pull", code=2)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_keeps_what_came_and_says_so(aipg: Aipg, hub: HubServer) -> None:
    hub.faults.stall_at.append(600_000)
    with aipg.start("pull", REPO) as process:
        assert process.stderr is not None
        while "60 %" not in (line := process.stderr.readline()):
            assert line, "it ended"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "What came (600.0 kB) is kept: the same command goes on there" in err
    assert not place(aipg).exists()
    out, _ = aipg.run("downloads")
    assert re.search(
        r"owner/model-GGUF +model-Q4_K_M.gguf +600.0 kB +1.0 MB +kept since today", out
    )
    aipg.run("pull", REPO)
    assert place(aipg).read_bytes() == MODEL
    assert hub.bodies()[-1].headers["range"] == "bytes=600000-"


def test_what_is_left_is_listed_and_removed(aipg: Aipg, hub: HubServer) -> None:
    assert "nothing is left" in aipg.run("downloads")[0]
    assert "nothing to remove" in aipg.run("downloads", "--clear")[0]
    aipg.run("downloads", "--days", "3", code=2)
    hub.faults.drop_at.extend([600_000, *[0] * 9])
    aipg.run("pull", REPO, code=1)
    (left,) = json.loads(aipg.run("downloads", "--json")[0])["partial"]
    assert (left["repo"], left["file"], left["size"]) == (REPO, "model-Q4_K_M.gguf", 600_000)
    assert "nothing to remove" in aipg.run("downloads", "--clear", "--days", "1")[0]
    assert "600.0 kB are free again" in aipg.run("downloads", "--clear")[0]
    assert json.loads(aipg.run("downloads", "--json")[0]) == {"downloads": [], "partial": []}
    assert list(aipg.home.rglob("*.part")) == []


def test_the_token_is_stored_tested_and_cleared(
    aipg: Aipg, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def run(*args: str, text: str = "", code: int = 0) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        said.extend(aipg.run("config", "hf-token", *args, code=code))
        return "".join(said[-2:])

    assert "There is no token" in run("--test", code=1)
    run(text=f"{TOKEN}\n")
    assert Secrets(Paths.resolve(aipg.home), {}).get(HF_TOKEN) == TOKEN
    assert "as that of tester" in run("--test")
    hub.repositories[REPO].gated = True
    said.extend(aipg.run("pull", REPO))
    assert place(aipg).read_bytes() == MODEL
    run(text="hf_expired\n")
    assert "does not accept the token" in run("--test", code=1)
    assert "There is no token" in run("--clear")
    said += [each.read_text() for each in (aipg.home / "logs").iterdir()]
    assert not any(secret in text for text in said for secret in (TOKEN, "hf_expired"))


@pytest.mark.parametrize(("args", "text"), [([], "a b\n"), ([], "\n"), (["--test", "--clear"], "")])
def test_what_is_no_token_is_refused(
    tmp_path: Path, args: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    done = CliRunner().invoke(token_command, args, obj=App(home=str(tmp_path)), input=text)
    assert done.exit_code == 2


async def test_the_bar_follows_a_download_of_a_running_kernel() -> None:
    """`call` is what a client of a running kernel has."""
    states = [
        {"status": "queued", "progress": 0.0, "downloaded": 0},
        {"status": "waiting", "progress": 0.0, "downloaded": 0, "message": "[429]"},
        {"status": "downloading", "progress": 45.0, "downloaded": 45, "total": 100,
         "speed": "12.5 MB/s", "eta": "5 s"},
        {"status": "complete", "progress": 100.0, "downloaded": 100, "total": 100, "path": "/m"},
    ]  # fmt: skip
    left = [{"id": "1", "repo": REPO, "filename": "m[1].gguf", **each} for each in states]

    async def call(method: str, *params: Any) -> Any:
        state = left.pop(0)
        return state if method == "startDownload" else [state]

    assert (await pull(call, {"repo": REPO}, Bar()))["path"] == "/m"
    assert left == []
