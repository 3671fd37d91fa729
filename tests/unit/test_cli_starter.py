"""The offer of a first model: once, on a terminal, where there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from aiplayground.cli import _starter
from aiplayground.cli._app import App

BEST = SimpleNamespace(
    size=10**9, about="Model 1B", licence="MIT", repo="a/b", files=("c.gguf",), memory=10**9
)

GUIDE = SimpleNamespace(name="guide", path="/package/guide.gguf")


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setattr(_starter, "is_terminal", lambda *_: True)
    monkeypatch.setattr(_starter, "find_spec", lambda _: True)
    monkeypatch.setattr(_starter, "_best", lambda _: BEST)
    monkeypatch.setattr(_starter, "run_with_any", lambda *_: [GUIDE])
    return App(home=str(tmp_path))


def answer(monkeypatch: pytest.MonkeyPatch, yes: bool) -> list[str]:
    asked: list[str] = []

    def confirm(text: str, **_: Any) -> bool:
        asked.append(text)
        return yes

    monkeypatch.setattr(click, "confirm", confirm)
    return asked


def test_it_asks_once_and_a_no_is_remembered(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, yes=False)
    _starter.offer(app)
    _starter.offer(app)
    assert asked == ["Download Model 1B (about 1.0 GB, MIT)?"]


def test_a_yes_downloads(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, yes=True)
    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda argv, **_: ran.append(argv))
    _starter.offer(app)
    assert ran[0][-3:] == ["pull", "a/b", "c.gguf"]


def test_never_in_a_pipe(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, yes=False)
    monkeypatch.setattr(_starter, "is_terminal", lambda *_: False)
    _starter.offer(app)
    assert asked == []


def test_never_where_there_is_a_model(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, yes=False)
    app.paths.models.mkdir(parents=True)
    (app.paths.models / "own.gguf").touch()
    _starter.offer(app)
    assert asked == []


def test_never_where_another_backend_has_a_model(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, yes=False)
    other = SimpleNamespace(name="remote", path=None)
    monkeypatch.setattr(_starter, "run_with_any", lambda *_: [GUIDE, other])
    _starter.offer(app)
    assert asked == []
