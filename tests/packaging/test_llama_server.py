"""Where the tests' llama-server comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import llama_server, llama_wheel
from scripts.bootstrap import ROOT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(llama_server.VARIABLE, raising=False)
    monkeypatch.setattr(llama_wheel, "_cache", lambda: tmp_path)
    llama_wheel.folder().mkdir(parents=True)
    return tmp_path


def test_one_that_is_named_comes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = cache / "mine"
    monkeypatch.setenv(llama_server.VARIABLE, str(program))
    with pytest.raises(SystemExit, match="no program"):
        llama_server.ready()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert llama_server.ready() == program.resolve()


def test_one_of_an_earlier_run_is_found(cache: Path) -> None:
    assert llama_server.cached() is None
    with pytest.raises(SystemExit, match="make llama-server"):
        llama_server.ready()
    llama_server.place().write_bytes(b"")
    assert llama_server.ready() == llama_server.place()
    assert llama_server.place().parent == llama_wheel.folder()


def test_both_engines_are_the_same_llama_cpp() -> None:
    version = llama_wheel.pinned((ROOT / "constraints.txt").read_text("utf-8"))
    assert version in llama_server.place().name
