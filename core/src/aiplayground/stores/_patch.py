"""What became another in plain data, as operations, and the data with them applied.

The operations are those of JSON Patch (RFC 6902: `add`, `remove`, `replace`) with JSON Pointers
(RFC 6901) as paths, and one more: `append` adds `value` to the end of a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Operation = dict[str, Any]

_OVERHEAD = 32
"""Characters of an operation besides its path and value, about."""


class Unfit(ValueError):
    """Operations are not for this data."""


# Finding out --------------------------------------------------------------------------------


def diff(before: Any, after: Any, path: str, start: int = 0) -> Iterator[Operation]:
    """Yield the operations, in order, that make `after` of `before` at a path.

    Lists may be parts of longer ones that begin there at `start`.
    """
    if before is after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _diff_objects(before, after, path)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _diff_lists(before, after, path, start)
    elif isinstance(before, str) and isinstance(after, str):
        yield from _diff_texts(before, after, path)
    elif type(before) is not type(after) or before != after:
        yield {"op": "replace", "path": path, "value": after}


def _diff_objects(
    before: Mapping[str, Any], after: Mapping[str, Any], path: str
) -> Iterator[Operation]:
    for key in before:
        if key not in after:
            yield {"op": "remove", "path": f"{path}/{escape(key)}"}
    for key, value in after.items():
        at = f"{path}/{escape(key)}"
        if key in before:
            yield from diff(before[key], value, at)
        else:
            yield {"op": "add", "path": at, "value": value}


def _diff_lists(
    before: Sequence[Any], after: Sequence[Any], path: str, start: int
) -> Iterator[Operation]:
    """Compare what stands at the same place, counted from the nearer end."""
    shorter = min(len(before), len(after))
    first = _alike(before, after, shorter)
    last = _alike(before[::-1], after[::-1], shorter - first)
    kept = shorter - last  # so many from the beginning stand in both, then the difference comes
    for index in range(kept):
        yield from diff(before[index], after[index], f"{path}/{start + index}")
    for _ in range(len(before) - shorter):
        yield {"op": "remove", "path": f"{path}/{start + kept}"}
    for index in range(kept, kept + len(after) - shorter):
        yield {"op": "add", "path": f"{path}/{start + index}", "value": after[index]}
    for index in range(len(after) - last, len(after)):
        there = before[len(before) - len(after) + index]
        yield from diff(there, after[index], f"{path}/{start + index}")


def _alike(one: Sequence[Any], other: Sequence[Any], most: int) -> int:
    """Return how many are equal from the beginning on."""
    return next((index for index in range(most) if one[index] != other[index]), most)


def _diff_texts(before: str, after: str, path: str) -> Iterator[Operation]:
    if before and len(after) > len(before) and after.startswith(before):
        yield {"op": "append", "path": path, "value": after[len(before) :]}
    elif before != after:
        yield {"op": "replace", "path": path, "value": after}


def weight_of(operations: Iterable[Operation]) -> int:
    """Return how many characters of JSON operations take, about."""
    return sum(_OVERHEAD + len(each["path"]) + weigh(each.get("value", "")) for each in operations)


def weigh(value: Any, most: float = float("inf")) -> int:
    """Return how many characters of JSON a value takes, about; looks no further than `most`."""
    total, open_ = 0, [value]
    while open_ and total < most:
        each = open_.pop()
        if isinstance(each, str):
            total += len(each) + 2
        elif isinstance(each, dict):
            total += 2 + sum(len(key) + 4 for key in each)
            open_ += each.values()
        elif isinstance(each, list):
            total += 2 + len(each)
            open_ += each
        else:
            total += 4
    return total


# Applying -----------------------------------------------------------------------------------


def patched(document: Mapping[str, Any], operations: Iterable[Operation]) -> dict[str, Any]:
    """Return data with operations applied; what it was made of stays as it is.

    Raises `Unfit` where a path leads nowhere.
    """
    found: Any = dict(document)
    for each in operations:
        try:
            found = _applied(found, parts_of(each["path"]), each)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Unfit(f"{each.get('op')} {each.get('path')}: {error!r}") from error
    whole: dict[str, Any] = found
    return whole


def _applied(there: Any, parts: Sequence[str], operation: Operation) -> Any:
    copy: Any = list(there) if isinstance(there, list) else dict(there)
    key: Any = int(parts[0]) if isinstance(copy, list) else parts[0]
    if len(parts) > 1:
        copy[key] = _applied(copy[key], parts[1:], operation)
    else:
        _apply_here(copy, key, operation)
    return copy


def _apply_here(copy: Any, key: Any, operation: Operation) -> None:
    op: str = operation["op"]
    value: Any = operation.get("value")
    if op == "add" and isinstance(copy, list):
        if key > len(copy):
            raise IndexError(key)
        copy.insert(key, value)
    elif op == "add":
        copy[key] = value
    elif op == "remove":
        del copy[key]
    elif op in ("replace", "append"):
        there = copy[key]  # it must be there
        copy[key] = "".join((there, value)) if op == "append" else value
    else:
        raise ValueError(f"unknown operation {op!r}")


def escape(key: str) -> str:
    """Return a key as it stands in a path."""
    return key.replace("~", "~0").replace("/", "~1")


def parts_of(path: str) -> list[str]:
    """Return the keys of a path."""
    return [each.replace("~1", "/").replace("~0", "~") for each in path.split("/")[1:]]
