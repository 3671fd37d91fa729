"""The command line with attached endpoints and manifests: shown as what they are, without keys."""

from __future__ import annotations

import io
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.endpoints import Server, attach
from tests.fakes import SERVER
from tests.faults.test_kernel_kill import CHILDREN, program

from aiplayground.cli import main

KEY = "sk-a-key-that-nobody-else-may-see"


class Aipg:
    """`aipg` in a home of its own; keeps all that was ever printed."""

    def __init__(
        self, home: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.home = home
        self.printed = ""
        self._patch = patch
        self._capture = capture
        patch.setattr(sys, "stdin", io.StringIO())
        self.set(AIPG_HOME=str(home), AIPG_PLUGINS__ALLOW="[]")

    def set(self, **environ: str) -> None:
        for name, value in environ.items():
            self._patch.setenv(name, value)

    def __call__(self, *args: str, code: int = 0) -> str:
        returned = main(list(args))
        said = "".join(self._capture.readouterr())
        self.printed += said
        assert returned == code, said
        return said


@pytest.fixture
def aipg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Aipg]:
    tool = Aipg(tmp_path, monkeypatch, capsys)
    yield tool
    tool.printed += "".join(path.read_text() for path in (tmp_path / "logs").glob("*"))
    assert KEY not in tool.printed


def test_an_endpoint_from_the_first_setting_to_an_answer(aipg: Aipg) -> None:
    with Server(f"key={KEY}") as server:
        file = aipg.home / "config/config.toml"
        aipg("config", "set", "attach.far.url", f"{server.url}/v1")
        file.chmod(0o644)
        assert "api_key = **********" in aipg("config", "set", "attach.far.api_key", KEY)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert aipg("config", "get", "attach.far.api_key") == "**********\n"
        assert "**********" in aipg("config", "list")
        listed = json.loads(aipg("config", "list", "--json"))
        assert {row["key"]: row["value"] for row in listed}["attach.far.url"] == server.url
        assert f"far is attached to {server.url}" in aipg("services")
        (service,) = json.loads(aipg("services", "--json"))
        assert (service["attached"], service["baseUrl"]) == (True, server.url)
        assert aipg("chat", "-m", "m", "Hello") == "word word word \n"
        checks = json.loads(aipg("doctor", "--json"))["checks"]
        (check,) = (each for each in checks if each["check"] == "engine far")
        assert check["message"].startswith(f"attached to {server.url}: m answers")
        assert check["details"]["attached"] is True
        assert server.alive
        server.end()
        assert "the endpoint" in aipg("chat", "-m", "far/m", "Hello", code=1)
        assert "attach.far.ulr" in aipg("config", "set", "attach.far.ulr", "x", code=1)


def test_variables_are_enough(aipg: Aipg) -> None:
    with Server(f"key={KEY}") as server:
        aipg.set(AIPG_ATTACH__FAR_AWAY__URL=server.url, AIPG_ATTACH__FAR_AWAY__API_KEY=KEY)
        assert aipg("chat", "-m", "far-away/m", "Hello") == "word word word \n"
        aipg.set(AIPG_ATTACH__FAR_AWAY__VERIFY="perhaps")
        assert "AIPG_ATTACH__FAR_AWAY__VERIFY" in aipg("services", code=1)


def test_manifests_are_listed_set_and_used(aipg: Aipg) -> None:
    folder = aipg.home / "config/backends"
    folder.mkdir(parents=True)
    (folder / "small.toml").write_text(f"""
name = "small"
command = ["{{python}}", "-I", "-S", {SERVER!r}, "{{port}}", "chunks={{settings.chunks}}"]
models = ["m"]
[settings]
chunks = {{ default = 2, min = 1, description = "Words in an answer." }}
""")
    (folder / "bad.toml").write_text('name = "bad"\ncommand = ["x"]\n')
    aipg.set(AIPG_PLUGINS__ALLOW="small,bad")
    assert aipg("chat", "-m", "m", "Hello") == "word word \n"
    aipg("config", "set", "services.small.chunks", "4")
    assert aipg("chat", "-m", "m", "Hello") == "word word word word \n"
    assert "must be at least 1" in aipg("config", "set", "services.small.chunks", "0", code=1)
    assert "Words in an answer." in aipg("config", "list")
    found = json.loads(aipg("plugins", "--json"))
    assert found["plugins"][0]["source"] == str(folder / "small.toml")
    assert "bad.toml, line 2: nothing has the placeholder {port}" in found["failures"][0]["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_is_attached_outlives_a_killed_kernel(aipg: Aipg, tmp_path: Path) -> None:
    with Server("chunks=50") as server:
        settings = json.dumps(attach(server.url))
        argv = [str(CHILDREN / "kernel_host.py"), str(tmp_path / "home"), "-", "far", "m", settings]
        with program(tmp_path, *argv) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["open\n", "running\n"]
            process.kill()
            process.wait(10)
        assert server.alive
        aipg.set(AIPG_HOME=str(tmp_path / "home"), AIPG_ATTACH__FAR__URL=server.url)
        assert "word" in aipg("chat", "-m", "m", "Hello")
        assert server.alive, "nor does the next kernel take it for a leftover"
