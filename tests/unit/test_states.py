"""Both state machines, pair by pair, against the design's rules written out anew."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from typing import Any

import pytest

from aiplayground.errors import ErrorCode, InvalidTransition
from aiplayground.states import (
    INSTALLATION,
    RUNTIME,
    BackendStatus,
    Installation,
    Runtime,
    backend_status,
    check_transition,
    is_set_up,
)

INSTALLATION_EDGES = """
    absent installing
    installing installed
    installing absent
    installing broken
    installed upgrading
    installed absent
    installed broken
    upgrading installed
    upgrading broken
    broken installing
    broken installed
    broken absent
"""

RUNTIME_EDGES = """
    stopped starting
    starting running
    starting stopping
    starting failed
    starting backoff
    running stopping
    running failed
    running backoff
    stopping stopped
    stopping failed
    backoff starting
    backoff stopping
    backoff failed
    failed starting
    failed stopping
"""


def edges(text: str) -> set[tuple[str, str]]:
    return {(line.split()[0], line.split()[1]) for line in text.strip().splitlines()}


MACHINES = [
    (kind, table, edges(text), pair)
    for kind, table, text in (
        (Installation, INSTALLATION, INSTALLATION_EDGES),
        (Runtime, RUNTIME, RUNTIME_EDGES),
    )
    for pair in product(kind, kind)
]


@pytest.mark.parametrize(("kind", "table", "allowed", "pair"), MACHINES)
def test_each_pair_is_allowed_or_refused_as_designed(
    kind: type[StrEnum],
    table: Mapping[StrEnum, frozenset[StrEnum]],
    allowed: set[tuple[str, str]],
    pair: tuple[StrEnum, StrEnum],
) -> None:
    old, new = pair
    if (old.value, new.value) in allowed:
        assert check_transition("svc", table, old, new) is new
        return
    with pytest.raises(InvalidTransition) as caught:
        check_transition("svc", table, old, new)
    assert caught.value.details == {"service": "svc", "from": old.value, "to": new.value}
    assert caught.value.message == f"svc: no transition from '{old}' to '{new}'."
    assert caught.value.code == ErrorCode.GENERIC


@pytest.mark.parametrize(("kind", "table"), [(Installation, INSTALLATION), (Runtime, RUNTIME)])
def test_tables_are_complete_closed_and_read_only(
    kind: type[StrEnum], table: Mapping[Any, frozenset[Any]]
) -> None:
    assert set(table) == set(kind)
    assert all(targets <= set(kind) for targets in table.values())
    assert not any(state in targets for state, targets in table.items())
    with pytest.raises(TypeError):
        table[next(iter(kind))] = frozenset()  # type: ignore[index]  # that is the point


@pytest.mark.parametrize(
    ("table", "start"), [(INSTALLATION, Installation.ABSENT), (RUNTIME, Runtime.STOPPED)]
)
def test_each_state_is_reachable_from_the_first_and_leads_back(
    table: Mapping[Any, frozenset[Any]], start: StrEnum
) -> None:
    def reachable(origin: StrEnum) -> set[StrEnum]:
        seen, queue = {origin}, [origin]
        while queue:
            for target in table[queue.pop()] - seen:
                seen.add(target)
                queue.append(target)
        return seen

    assert reachable(start) == set(table)
    assert all(start in reachable(state) for state in table)


def expected_status(installation: str, runtime: str, start_tried: bool) -> str:
    """DESIGN §4, sentence by sentence."""
    up = {"starting": "Starting", "backoff": "Starting", "running": "Running"}
    up |= {"stopping": "Stopping"}
    down = "Stopped" if start_tried else "Installed"
    return {
        "absent": "NotInstalled",
        "broken": "NotInstalled",
        "installing": "Installing",
        "upgrading": up.get(runtime, "Installing"),
        "installed": up.get(runtime, down),
    }[installation]


@pytest.mark.parametrize("start_tried", [False, True])
@pytest.mark.parametrize("runtime", Runtime)
@pytest.mark.parametrize("installation", Installation)
def test_the_outside_name_of_each_pair(
    installation: Installation, runtime: Runtime, start_tried: bool
) -> None:
    status = backend_status(installation, runtime, start_tried=start_tried)
    assert status.value == expected_status(installation.value, runtime.value, start_tried)


def test_the_seven_names_are_the_references_and_each_occurs() -> None:
    reference = ["NotInstalled", "Installing", "Installed"]
    reference += ["Starting", "Running", "Stopping", "Stopped"]
    assert [status.value for status in BackendStatus] == reference
    triples = product(Installation, Runtime, (False, True))
    seen = {backend_status(i, r, start_tried=tried).value for i, r, tried in triples}
    assert seen == set(reference)


@pytest.mark.parametrize("installation", Installation)
def test_set_up_means_installed_or_upgrading(installation: Installation) -> None:
    assert is_set_up(installation) == (installation.value in ("installed", "upgrading"))


def test_a_failed_start_leaves_the_service_set_up() -> None:
    status = backend_status(Installation.INSTALLED, Runtime.FAILED, start_tried=True)
    assert status is BackendStatus.STOPPED
    assert Runtime.STARTING in RUNTIME[Runtime.FAILED]
