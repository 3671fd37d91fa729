"""What plugins keep for a kernel, and events that they publish."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiplayground import Kernel
from aiplayground.errors import ServiceNotAvailable
from aiplayground.events import ModelDownloadProgress


class Part:
    """Notes in which order parts close."""

    closed: list[str]

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.closed = []

    async def aclose(self) -> None:
        self.closed.append(type(self).__name__)


class Broken(Part):
    """Does not close."""

    async def aclose(self) -> None:
        raise RuntimeError("stuck")


async def test_a_part_is_made_once_for_each_kernel_and_closed_with_it(tmp_path: Path) -> None:
    async with (
        Kernel(home=tmp_path / "a", discover=False) as one,
        Kernel(home=tmp_path / "b", discover=False) as other,
    ):
        part = one.part(Part)
        assert part.kernel is one
        assert one.part(Part) is part
        assert other.part(Part) is not part
        one.part(Broken)
        log = one.paths.logs
    assert part.closed == ["Part"]
    assert "Broken did not close: RuntimeError('stuck')" in "".join(
        each.read_text() for each in log.iterdir()
    )
    with pytest.raises(ServiceNotAvailable):
        one.part(Part)


async def test_a_plugin_publishes_events(tmp_path: Path) -> None:
    async with (
        Kernel(home=tmp_path, discover=False) as kernel,
        kernel.subscribe(ModelDownloadProgress, snapshot=False) as events,
    ):
        kernel.publish(ModelDownloadProgress(filename="m", progress=1, id="1"))
        kernel.publish(ModelDownloadProgress(filename="m", progress=2, id="2"))
        keys = {(await anext(events)).key for _ in range(2)}
    assert len(keys) == 2
