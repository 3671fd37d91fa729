"""Small changes of long fields: found, told, applied."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from aiplayground.stores import StoreState
from aiplayground.stores._observe import Change
from aiplayground.stores._patch import Unfit, diff, patched, weigh
from aiplayground.stores.wire import update

CASES: list[tuple[Any, Any, list[dict[str, Any]]]] = [
    ("so", "so far", [{"op": "append", "path": "/f", "value": " far"}]),
    ("so far", "so", [{"op": "replace", "path": "/f", "value": "so"}]),
    ("", "x", [{"op": "replace", "path": "/f", "value": "x"}]),
    (1, True, [{"op": "replace", "path": "/f", "value": True}]),
    (None, None, []),
    ([1, 2, 3], [1, 3], [{"op": "remove", "path": "/f/1"}]),
    ([1, 3], [1, 2, 3], [{"op": "add", "path": "/f/1", "value": 2}]),
    ([1], [], [{"op": "remove", "path": "/f/0"}]),
    (
        {"a": 1},
        {"b": 2},
        [{"op": "remove", "path": "/f/a"}, {"op": "add", "path": "/f/b", "value": 2}],
    ),
    ({"a/~": [0]}, {"a/~": [1]}, [{"op": "replace", "path": "/f/a~1~0/0", "value": 1}]),
    (
        [{"a": 1}, "x"],
        [{"a": True}, "y", "x"],
        [
            {"op": "replace", "path": "/f/0/a", "value": True},
            {"op": "add", "path": "/f/1", "value": "y"},
        ],
    ),
]


@pytest.mark.parametrize(("before", "after", "operations"), CASES)
def test_what_became_another(before: Any, after: Any, operations: list[dict[str, Any]]) -> None:
    assert list(diff(before, after, "/f")) == operations
    assert patched({"f": before}, operations) == {"f": after}


def some(chance: random.Random, depth: int) -> Any:
    """Return some JSON."""
    kind = chance.randrange(7 if depth else 5)
    if kind == 5:
        return [some(chance, depth - 1) for _ in range(chance.randrange(5))]
    if kind == 6:
        return {chance.choice(["a", "b/", "~c", ""]): some(chance, depth - 1) for _ in range(4)}
    return [None, chance.random() < 0.5, chance.randrange(3), "ab" * chance.randrange(3), 1.5][kind]


def other(chance: random.Random, value: Any) -> Any:
    """Return the value with some of it changed."""
    if chance.random() < 0.1:
        return some(chance, 2)
    if isinstance(value, dict):
        return {key: other(chance, each) for key, each in value.items() if chance.random() < 0.9}
    if isinstance(value, list):
        kept = [other(chance, each) for each in value if chance.random() < 0.9]
        return [*kept, some(chance, 1)] if chance.random() < 0.3 else kept
    return value


def test_any_change_arrives_whole() -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(500):
        before = some(chance, 4)
        after = other(chance, before)
        kept = copy.deepcopy(before)
        operations = json.loads(json.dumps(list(diff(before, after, "/f"))))
        found = patched({"f": before}, operations)
        assert json.dumps(found, sort_keys=True) == json.dumps({"f": after}, sort_keys=True), seed
        assert before == kept, seed


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "append", "path": "/gone", "value": "x"},
        {"op": "append", "path": "/n", "value": "x"},
        {"op": "remove", "path": "/l/5"},
        {"op": "replace", "path": "/l/x", "value": 1},
        {"op": "replace", "path": "/n/0", "value": 1},
        {"op": "add", "path": "/gone/0", "value": 1},
        {"op": "move", "path": "/n"},
        {"op": "add", "path": "/l/2", "value": 1},
        {"op": "replace", "path": "/gone", "value": 1},
    ],
)
def test_what_does_not_fit_is_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(Unfit):
        patched({"n": 1, "l": [1]}, [operation])


class Talk(StoreState):
    messages: tuple[dict[str, Any], ...] = ()
    count: int = 0


def told(before: Talk, **fields: Any) -> dict[str, Any]:
    after = before.model_copy(update=fields)
    change = Change(store="talk", version=2, state=after, changes=fields, before=before)
    return update(change)


def test_a_long_field_is_told_of_in_part_and_a_short_one_whole() -> None:
    long = tuple({"id": str(each), "content": "word " * 20} for each in range(50))
    grown = (*long[:-1], {"id": "49", "content": "word " * 20 + "more"})
    assert told(Talk(messages=long), messages=grown, count=1) == {
        "store": "talk",
        "version": 2,
        "changes": {"count": 1},
        "patches": [{"op": "append", "path": "/messages/49/content", "value": "more"}],
        "getters": {},
    }
    short = told(Talk(), messages=({"id": "1"},))
    assert short["changes"] == {"messages": [{"id": "1"}]}
    assert "patches" not in short
    emptied = told(Talk(messages=long), messages=())
    assert emptied["changes"] == {"messages": []}


def test_a_long_list_of_which_little_is_new_is_told_of_in_part() -> None:
    texts = tuple({"content": f"{n} " * 400} for n in range(5))
    added = told(Talk(messages=texts), messages=(*texts, {"id": "new"}))
    assert added["patches"] == [{"op": "add", "path": "/messages/5", "value": {"id": "new"}}]
    removed = told(Talk(messages=texts), messages=texts[1:])
    assert removed["patches"] == [{"op": "remove", "path": "/messages/0"}]


def test_weight_is_looked_at_no_further_than_needed() -> None:
    assert weigh({"a": ["x", 1, None]}) == 23
    assert weigh(["x" * 100] * 1000, 50) < 2000 + 200
