"""The framework of stores: one writer, versions, readers that lag, actions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from tests.fakes import Fake, kernel

from aiplayground.errors import InvalidParameters, PluginError, ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.stores import Change, Store, StoreState, action, getter


class Note(BaseModel):
    text: str


class NotesState(StoreState):
    all_notes: tuple[Note, ...] = ()
    count: Annotated[int, Field(ge=0)] = 0
    chosen: str | None = None

    @getter
    def newest(self) -> Note | None:
        """The note that came last."""
        return self.all_notes[-1] if self.all_notes else None


class Notes(Store[NotesState]):
    """Notes of a test."""

    name = "notes"
    opened = 0

    async def open(self) -> None:
        type(self).opened += 1
        await asyncio.sleep(0)

    @action
    async def add_note(self, text: Annotated[str, Field(min_length=1)]) -> int:
        """Add a note; returns how many there are."""
        self._set(all_notes=(*self.state.all_notes, Note(text=text)), count=self.state.count + 1)
        return self.state.count

    @action(listing=True)
    async def find_notes(self, text: str) -> list[Note]:
        """Return the notes with this text in them."""
        return [each for each in self.state.all_notes if text in each.text]

    @action
    async def set_count(self, count: int) -> None:
        """Set the figure, wrong ones too."""
        self._set(chosen="x", count=count)


class Private(Notes):
    """Notes that are nobody else's."""

    name = "private"
    private = True


class Failing(Notes):
    """Does not open, the first time."""

    name = "failing"
    tries = 0

    async def open(self) -> None:
        type(self).tries += 1
        if type(self).tries == 1:
            raise ServiceNotAvailable("Not yet.")


class NoStore:
    """Is none."""


class Plugin:
    """Brings stores, good ones and bad ones."""

    @hookimpl
    def register_stores(self) -> Mapping[str, str]:
        names = {"notes": "Notes", "private": "Private", "failing": "Failing"}
        bad = {"noStore": "NoStore", "absent": "Absent", "other": "Notes"}
        return {name: f"{__name__}:{kind}" for name, kind in (names | bad).items()}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Kernel]:
    Notes.opened = Failing.tries = 0
    async with kernel(tmp_path, Fake(), Plugin()) as one:
        yield one


async def test_there_is_one_instance_in_a_kernel(running: Kernel) -> None:
    found = await asyncio.gather(*(running.store("notes") for _ in range(5)))
    assert len({id(each) for each in found}) == 1
    assert Notes.opened == 1


async def test_a_change_is_a_version_and_equal_values_are_none(running: Kernel) -> None:
    notes: Notes = await running.store("notes")
    before = notes.state
    assert await notes.add_note("one") == 1
    assert (notes.version, notes.state.newest) == (1, Note(text="one"))
    assert before.all_notes == ()
    notes._set(count=1)
    assert notes.version == 1


async def test_an_error_leaves_the_state_as_it_was(running: Kernel) -> None:
    notes: Notes = await running.store("notes")
    with pytest.raises(InvalidParameters, match=r"NotesState\.count"):
        await notes.set_count(-1)
    assert (notes.version, notes.state) == (0, NotesState())
    with pytest.raises(InvalidParameters, match="Did you mean 'count'"):
        notes._set(coumt=1)


async def test_readers_get_a_snapshot_and_then_each_change_in_order(running: Kernel) -> None:
    notes: Notes = await running.store("notes")
    await notes.add_note("one")
    async with notes.subscribe() as one, notes.subscribe() as other:
        await asyncio.gather(*(notes.add_note(str(each)) for each in range(20)))
        seen: list[list[Change[NotesState]]] = [
            [await anext(each) for _ in range(21)] for each in (one, other)
        ]
    assert seen[0][0].snapshot
    assert set(seen[0][0].changes) == {"all_notes", "count", "chosen"}
    assert [each.version for each in seen[0]] == [*range(1, 22)]
    assert [each.state for each in seen[0]] == [each.state for each in seen[1]]
    assert set(seen[0][1].changes) == {"all_notes", "count"}
    assert seen[0][1].before is seen[0][0].state


async def test_one_field_or_getter_can_be_followed(running: Kernel) -> None:
    notes: Notes = await running.store("notes")
    async with notes.subscribe("chosen") as chosen, notes.subscribe("newest") as newest:
        assert (await anext(chosen)).state.chosen is None
        assert (await anext(newest)).snapshot
        await notes.add_note("one")
        await notes.set_count(3)
        assert (await anext(chosen)).changes == {"chosen": "x", "count": 3}
        assert (await anext(newest)).state.newest == Note(text="one")
    with pytest.raises(InvalidParameters, match="no field 'chose'"):
        notes.subscribe("chose")


async def test_a_reader_that_lags_gets_where_everything_stands(running: Kernel) -> None:
    notes: Notes = await running.store("notes")
    async with notes.subscribe(maxsize=4) as changes:
        assert (await anext(changes)).snapshot
        for each in range(10):
            await notes.add_note(str(each))
        behind = await anext(changes)
        assert behind.snapshot
        assert (behind.version, behind.state) == (10, notes.state)
        assert changes.dropped == 10
        await notes.add_note("more")
        assert (await anext(changes)).version == 11


async def test_readers_end_with_the_kernel(tmp_path: Path) -> None:
    async with kernel(tmp_path, Plugin()) as running:
        notes: Notes = await running.store("notes")
        changes = notes.subscribe()
    assert [each.version async for each in changes] == [0]
    with pytest.raises(ServiceNotAvailable):
        await running.store("notes")


async def test_actions_are_called_by_their_outside_names(running: Kernel) -> None:
    answer = await running.call("stores:call", "notes", "addNote", ["one"])
    assert answer == {"version": 1, "result": 1}
    await running.call("stores:call", name="notes", action="addNote", params={"text": "two"})
    found = await running.call("stores:call", "notes", "findNotes", ["w"])
    assert found["result"] == [{"text": "two"}]
    assert await running.call("stores:get", "notes") == {
        "store": "notes",
        "version": 2,
        "state": {"allNotes": [{"text": "one"}, {"text": "two"}], "count": 2, "chosen": None},
        "getters": {"newest": {"text": "two"}},
    }


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (["notes", "addNote", [""]], "'text': string should have at least 1 character"),
        (["notes", "addNote", [1]], "'text': input should be a valid string"),
        (["notes", "addNote", {"txt": "a"}], "'text' is missing"),
        (["notes", "addNotes", []], "Did you mean 'addNote'"),
        (["note", "addNote", []], "Did you mean 'notes'"),
        (["notes", "open", []], "no action 'open'"),
    ],
)
async def test_wrong_calls_are_explained(running: Kernel, params: list[Any], message: str) -> None:
    with pytest.raises(InvalidParameters, match=message):
        await running.call("stores:call", *params)


async def test_the_list_of_stores_leaves_out_what_is_none(running: Kernel) -> None:
    found = {each["name"]: each for each in await running.call("stores:list")}
    assert {"notes", "private", "failing", "backendServices"} <= set(found)
    assert found["notes"] == {
        "name": "notes",
        "summary": "Notes of a test.",
        "private": False,
        "fields": ["allNotes", "count", "chosen"],
        "getters": ["newest"],
        "actions": [
            {"name": "addNote", "parameters": ["text"], "open": False},
            {"name": "findNotes", "parameters": ["text"], "open": True},
            {"name": "setCount", "parameters": ["count"], "open": False},
        ],
    }
    for name, why in (("noStore", "is no class"), ("absent", "imported"), ("other", "`name`")):
        assert name not in found
        with pytest.raises(PluginError, match=f"plugin: store '{name}'.*{why}"):
            await running.store(name)


async def test_a_store_that_did_not_open_is_tried_again(running: Kernel) -> None:
    with pytest.raises(ServiceNotAvailable, match="Not yet"):
        await running.store("failing")
    assert (await running.store("failing")).version == 0


async def test_what_needs_no_token(running: Kernel) -> None:
    methods = running.methods()
    get, call = methods["stores:get"], methods["stores:call"]
    assert get.opens(running, ["notes"])
    assert not get.opens(running, ["private"])
    assert call.opens(running, ["notes", "findNotes"])
    assert not call.opens(running, ["notes", "addNote"])
    assert not call.opens(running, ["private", "findNotes"])
