"""The bus: order, numbers, snapshots, and what each policy does when a subscriber is slow."""

from __future__ import annotations

import asyncio

import pytest
from tests.fakes import everything

from aiplayground._bus import Bus, Overflow, Subscription
from aiplayground.events import (
    Event,
    KernelStopped,
    KernelStopping,
    ServiceSetUpProgress,
    Snapshot,
    WebServiceExit,
)


def make_bus() -> Bus:
    taken: list[int] = []

    def snapshot() -> Snapshot:
        taken.append(1)
        return Snapshot(extra={"taken": len(taken)})

    return Bus(snapshot)


def step(progress: float, service: str = "a") -> ServiceSetUpProgress:
    return ServiceSetUpProgress(service=service, stage="x", progress=progress)


def exit_of(worker: str) -> WebServiceExit:
    return WebServiceExit(service="a", worker=worker, exit_code=1)


async def rest(bus: Bus, *subscriptions: Subscription) -> list[list[Event]]:
    bus.close()
    return [await everything(each) for each in subscriptions]


async def test_each_subscriber_gets_a_snapshot_then_all_events_in_order() -> None:
    bus = make_bus()
    first = bus.subscribe()
    bus.publish(step(1))
    second = bus.subscribe()
    for progress in (2, 3):
        bus.publish(step(progress))
    one, two = await rest(bus, first, second)
    assert [type(each) for each in one] == [Snapshot, *[ServiceSetUpProgress] * 3]
    assert [each.seq for each in one] == [0, 1, 2, 3]
    assert [each.seq for each in two] == [1, 2, 3]
    assert isinstance(two[0], Snapshot)


async def test_publish_returns_the_numbered_event_and_numbers_have_no_gap() -> None:
    bus = make_bus()
    assert [bus.publish(step(0)).seq for _ in range(5)] == [1, 2, 3, 4, 5]
    assert bus.seq == 5
    assert bus.snapshot().seq == 5


async def test_kinds_and_no_snapshot() -> None:
    bus = make_bus()
    picky = bus.subscribe(WebServiceExit, KernelStopping, snapshot=False)
    for event in (step(1), exit_of("w"), step(2), KernelStopping()):
        bus.publish(event)
    assert [type(each) for each in (await rest(bus, picky))[0]] == [WebServiceExit, KernelStopping]


async def test_resync_replaces_everything_by_one_fresh_snapshot() -> None:
    bus = make_bus()
    slow = bus.subscribe(maxsize=4)
    for _ in range(10):
        bus.publish(exit_of("w"))
    event = await anext(slow)
    assert isinstance(event, Snapshot)
    assert event.seq == 10, "the snapshot is taken when it is read"
    assert slow.dropped == 1 + 10
    bus.publish(exit_of("after"))
    (after,) = (await rest(bus, slow))[0]
    assert isinstance(after, WebServiceExit)
    assert after.worker == "after"
    assert after.seq == 11, "nothing is missing after a snapshot"


async def test_coalesce_keeps_the_newest_of_each_key_and_all_that_has_none() -> None:
    bus = make_bus()
    slow = bus.subscribe(overflow=Overflow.COALESCE, maxsize=8, snapshot=False)
    for progress in range(100):
        bus.publish(step(progress, "a"))
        bus.publish(step(progress, "b"))
    bus.publish(exit_of("w"))
    events = (await rest(bus, slow))[0]
    assert [getattr(each, "progress", None) for each in events] == [99, 99, None]
    assert [each.seq for each in events] == sorted(each.seq for each in events)
    assert slow.dropped == 198


async def test_coalesce_resyncs_when_what_cannot_be_coalesced_overflows() -> None:
    bus = make_bus()
    slow = bus.subscribe(overflow=Overflow.COALESCE, maxsize=4, snapshot=False)
    for number in range(6):
        bus.publish(exit_of(str(number)))
    assert [type(each) for each in (await rest(bus, slow))[0]] == [Snapshot]


async def test_drop_oldest_keeps_the_newest_and_counts() -> None:
    bus = make_bus()
    slow = bus.subscribe(overflow=Overflow.DROP_OLDEST, maxsize=3, snapshot=False)
    for number in range(10):
        bus.publish(exit_of(str(number)))
    events = (await rest(bus, slow))[0]
    assert [each.seq for each in events] == [8, 9, 10], "the gap in the numbers shows the loss"
    assert slow.dropped == 7


async def test_a_slow_subscriber_costs_the_others_nothing() -> None:
    bus = make_bus()
    slow = bus.subscribe(maxsize=2)
    quick = bus.subscribe(snapshot=False)
    seen = []
    for number in range(50):
        bus.publish(exit_of(str(number)))
        seen.append((await anext(quick)).seq)
    assert seen == list(range(1, 51))
    assert quick.dropped == 0
    assert slow.dropped > 0


async def test_a_waiting_subscriber_wakes_and_can_be_cancelled_without_loss() -> None:
    bus = make_bus()
    subscription = bus.subscribe(snapshot=False)
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    bus.publish(step(1))
    assert (await anext(subscription)).seq == 1
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    bus.publish(step(2))
    assert (await waiting).seq == 2


async def test_closing_delivers_what_is_queued_and_ends_those_who_wait() -> None:
    bus = make_bus()
    idle, behind = bus.subscribe(snapshot=False), bus.subscribe(snapshot=False)
    waiting = asyncio.ensure_future(everything(idle))
    await asyncio.sleep(0)
    bus.publish(KernelStopped())
    bus.close()
    assert [type(each) for each in await waiting] == [KernelStopped]
    assert [type(each) for each in await everything(behind)] == [KernelStopped]
    late = bus.subscribe()
    assert [type(each) for each in await everything(late)] == [Snapshot]
    assert bus.publish(step(1)).seq == 2, "publishing never raises, not even after the end"


async def test_leaving_the_block_ends_the_subscription_alone() -> None:
    bus = make_bus()
    async with bus.subscribe(snapshot=False) as left:
        bus.publish(step(1))
    bus.publish(step(2))
    stays = bus.subscribe(snapshot=False)
    bus.publish(step(3))
    assert [[each.seq for each in events] for events in await rest(bus, left, stays)] == [[1], [3]]


@pytest.mark.parametrize("overflow", Overflow)
async def test_no_policy_ever_holds_more_than_its_limit(overflow: Overflow) -> None:
    bus = make_bus()
    slow = bus.subscribe(overflow=overflow, maxsize=5)
    for number in range(200):
        bus.publish(step(number, str(number)))
        assert len(slow._pending) <= 5


async def test_a_second_reader_is_told_that_there_can_be_one() -> None:
    bus = Bus(Snapshot)
    subscription = bus.subscribe(snapshot=False)
    first = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader"):
        await anext(subscription)
    bus.close()
    with pytest.raises(StopAsyncIteration):
        await first
