"""Deprecations: one table, one warning that names who uses what, and nothing outlives its end."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.fakes import Fake

import aiplayground
from aiplayground import __version__, _deprecations
from aiplayground._deprecations import (
    DEPRECATIONS,
    AIPlaygroundDeprecationWarning,
    Deprecation,
    distribution_of,
    outlived,
)
from aiplayground._hooks import HOOKS
from aiplayground._loader import load_plugins

OLD = Deprecation(
    name="aiplayground.Chunk", since="0.1", removal="0.3", instead="aiplayground.types.ChatChunk"
)
HOOK = Deprecation(
    name="aiplayground.hookspecs.stop", since="0.1", removal="0.3", instead="the hook 'start'"
)


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_deprecations, "DEPRECATIONS", (*DEPRECATIONS, OLD, HOOK))
    yield
    vars(aiplayground).pop("Chunk", None)


def test_nothing_outlives_its_removal() -> None:
    assert outlived(__version__, DEPRECATIONS) == [], "remove it, and its line in the table"


def test_entries_are_whole_and_about_things_that_are_there() -> None:
    names = [each.name for each in DEPRECATIONS]
    assert len(set(names)) == len(names)
    for each in DEPRECATIONS:
        assert each.name.startswith("aiplayground.")
        assert all(re.fullmatch(r"\d+(\.\d+)+", one) for one in (each.since, each.removal))
        assert outlived(each.removal, [each]), "it goes with that version, not after it"
        assert not outlived(each.since, [each])
        hook = each.name.removeprefix("aiplayground.hookspecs.")
        assert hook == each.name or hook in HOOKS
        assert each.instead


@pytest.mark.parametrize(
    ("version", "due"), [("0.1.0", 0), ("0.2.9", 0), ("0.3", 2), ("0.3.0", 2), ("0.10.0", 2)]
)
def test_versions_are_compared_as_numbers(version: str, due: int) -> None:
    assert len(outlived(version, [OLD, HOOK])) == due


def run(source: str, name: str) -> None:
    exec(compile(source, f"{name}.py", "exec"), {"__name__": name})


def test_an_old_name_still_works_and_says_who_uses_it() -> None:
    with pytest.warns(AIPlaygroundDeprecationWarning) as caught:
        run("import aiplayground; found = aiplayground.Chunk", "my_backend.plugin")
    (warning,) = caught
    assert str(warning.message) == (
        "my_backend.plugin uses aiplayground.Chunk, which is deprecated since AI Playground 0.1 "
        "and goes with 0.3; use aiplayground.types.ChatChunk instead."
    )
    assert Path(warning.filename).name == "my_backend.plugin.py", "the place is the caller's"


def test_each_place_is_warned_once() -> None:
    source = "import aiplayground\nfor _ in range(3): aiplayground.Chunk"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        run(source, "my_backend.plugin")
        assert len(caught) == 1


def test_what_it_stands_for_is_returned() -> None:
    from aiplayground.types import ChatChunk

    with pytest.warns(AIPlaygroundDeprecationWarning):
        assert aiplayground.Chunk is ChatChunk


def test_an_installed_caller_is_named_by_its_distribution() -> None:
    assert distribution_of("pluggy._manager") == "pluggy (pluggy._manager)"
    assert distribution_of("nowhere.plugin") == "nowhere.plugin"
    assert distribution_of("") == "a program"


def test_a_deprecated_hook_is_told_to_its_plugin_alone() -> None:
    module = ModuleType("silent")
    vars(module)["model_files"] = _model_files()
    found = load_plugins([("one", Fake("one")), ("silent", module)], discover=False)
    notes = {each.name: each.notes for each in found.loaded}
    assert notes["silent"] == ()
    (note,) = notes["one"]
    assert note.startswith("one (the embedding program) uses aiplayground.hookspecs.stop,")
    assert note.endswith("use the hook 'start' instead.")


def _model_files() -> object:
    from aiplayground.hookspecs import hookimpl

    @hookimpl
    def model_files() -> list[Path]:
        return []

    return model_files
