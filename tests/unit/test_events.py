"""Event types: frozen, keyed where only the newest matters, named as the reference names them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from aiplayground import events
from aiplayground.events import (
    Event,
    ModelDownloadProgress,
    ModelsChanged,
    ServiceSetUpProgress,
)

KINDS = [
    each
    for each in vars(events).values()
    if isinstance(each, type) and issubclass(each, Event) and each is not Event
]
SAMPLES: dict[str, Any] = {
    "service": "s", "services": (), "stage": "x", "progress": 1.0, "worker": "w", "exit_code": -9,
    "filename": "f", "model": "m", "reason": "idle", "plugin": "p", "hook": "h", "seconds": 0.2,
    "count": 3,
}  # fmt: skip


def make(kind: type[Event]) -> Event:
    needed = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return kind(**{name: SAMPLES[name] for name in needed})


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_frozen_keyword_only_values(kind: type[Event]) -> None:
    event = make(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.seq = 7  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        kind(1, 2)  # type: ignore[call-arg]  # that is the point
    assert dataclasses.replace(event, seq=7).seq == 7
    assert not hasattr(event, "__dict__")


def test_the_four_names_of_the_reference() -> None:
    named = {kind.outside for kind in KINDS if kind.outside is not None}
    assert named == {
        "serviceSetUpProgress",
        "serviceInfoUpdate",
        "webServiceExit",
        "modelDownloadProgress",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_only_progress_is_coalesced_and_it_is_no_lifecycle_event(kind: type[Event]) -> None:
    progress = kind in (ServiceSetUpProgress, ModelDownloadProgress, ModelsChanged)
    assert (make(kind).key is not None) == progress
    assert not (progress and kind.lifecycle)


def test_progress_is_keyed_by_what_progresses() -> None:
    def step(service: str, progress: float) -> Event:
        return ServiceSetUpProgress(service=service, stage="x", progress=progress)

    assert step("a", 1).key == step("a", 2).key
    assert step("a", 1).key != step("b", 1).key
    download = ModelDownloadProgress(filename="a", progress=1)
    assert download.key != step("a", 1).key
