"""Where images stand in the work of a step: pure."""

from __future__ import annotations

from typing import Any

import pytest

from aiplayground_llamacpp.scheduler import Part, Slot, next_parts
from aiplayground_llamacpp.sight import Image
from aiplayground_llamacpp.viewer import up_to_images


class Work:
    """As much of a branch as counts here: 10 tokens, an image of 6, 4 tokens."""

    def __init__(self, *starts: int) -> None:
        self.tokens = list(range(20))
        self.images = tuple(Image(start, 6, 6, None, None) for start in starts)
        self.order = 0


def slot(held: int, *starts: int) -> Slot[Any]:
    return Slot(0, list(range(held)), Work(*starts))


@pytest.mark.parametrize(
    ("held", "size", "starts", "expected"),
    [
        (0, 20, (10,), (10, False)),
        (0, 10, (10,), (10, False)),
        (4, 16, (10,), (6, False)),
        (4, 3, (10,), (3, False)),
        (10, 10, (10,), None),
        (16, 4, (10,), (4, True)),
        (0, 20, (0, 10), None),
        (6, 14, (0, 10), (4, False)),
        (0, 20, (), (20, True)),
    ],
)
def test_parts_end_where_an_image_begins(
    held: int, size: int, starts: tuple[int, ...], expected: tuple[int, bool] | None
) -> None:
    where = slot(held, *starts)
    part = Part(where, size, held + size == 20)
    found = [(cut.size, cut.final) for cut in up_to_images([part])]
    assert found == ([] if expected is None else [expected])


def test_a_single_token_before_an_image_is_not_the_last_one() -> None:
    where = slot(9, 10)
    (part,) = up_to_images(next_parts([where], 64, 64))
    assert (part.size, part.final) == (1, False)
    last = slot(19, 10)
    (part,) = up_to_images(next_parts([last], 64, 64))
    assert (part.size, part.final) == (1, True)
