"""A client of the IPC API, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Fake, eventually, kernel

from aiplayground.errors import AIPlaygroundError, ServiceNotAvailable
from aiplayground.events import LoopBlocked, ModelDownloadProgress, WebServiceExit
from aiplayground.kernel import Kernel
from aiplayground_ai_backend.ipc import session as sessions
from aiplayground_ai_backend.ipc.session import Gone, Own, Session


class Client:
    """The other end of a session: what it was sent, and a switch that keeps it from reading."""

    def __init__(self, on: Kernel, *, trusted: bool = True, own: Own | None = None) -> None:
        self.sent: list[Any] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = False
        self.defects: list[Exception] = []
        self.session = Session(
            on, self._take, trusted=trusted, own=own, on_defect=self.defects.append
        )

    async def _take(self, text: str) -> None:
        await self.reading.wait()
        if self.gone:
            raise Gone("gone")
        self.sent.append(json.loads(text))

    def send(self, message: Any) -> None:
        self.session.receive(message if isinstance(message, str) else json.dumps(message))

    async def ask(self, method: str, *params: Any, id_: Any = 1) -> Any:
        """Return the response to a call."""
        self.send({"jsonrpc": "2.0", "method": method, "params": list(params), "id": id_})
        return await self.response(id_)

    async def response(self, id_: Any) -> Any:
        def found() -> list[Any]:
            return [each for each in self.sent if isinstance(each, dict) and each.get("id") == id_]

        await eventually(found)
        [response] = found()
        self.sent.remove(response)
        return response.get("result", response.get("error"))

    def notified(self) -> list[tuple[str, int]]:
        return [
            (each["method"], each["params"]["seq"])
            for each in self.sent
            if "method" in each and "id" not in each
        ]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Kernel]:
    async with kernel(tmp_path, Fake()) as one:
        yield one


@pytest.fixture
async def connect(running: Kernel) -> AsyncIterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(**options: Any) -> Client:
        clients.append(Client(running, **options))
        return clients[-1]

    yield make
    for each in clients:
        await each.session.close()


async def test_calls_are_answered(connect: Callable[..., Client]) -> None:
    client = connect()
    assert await client.ask("sendStartSignal", "fake") == "Running"
    client.send(
        {"jsonrpc": "2.0", "method": "sendStopSignal", "params": {"serviceName": "fake"}, "id": "x"}
    )
    assert await client.response("x") == "Stopped"


async def test_a_slow_call_does_not_keep_others_waiting(
    connect: Callable[..., Client], running: Kernel
) -> None:
    client = connect()
    never = asyncio.Event()

    class Window:
        async def mini_window(self) -> None:
            await never.wait()

    running.attach_shell(Window())
    client.send({"jsonrpc": "2.0", "method": "miniWindow", "id": "slow"})
    assert len(await client.ask("getServices")) == 1
    assert not client.sent


async def test_a_batch_is_answered_as_one(connect: Callable[..., Client]) -> None:
    client = connect()
    client.send(
        [
            {"jsonrpc": "2.0", "method": "getServices", "id": 1},
            {"jsonrpc": "2.0", "method": "getServices"},
            {"jsonrpc": "2.0", "method": "nothing", "id": 2},
            7,
        ]
    )
    await eventually(lambda: client.sent)
    [answers] = client.sent
    codes = [(each["id"], each.get("error", {}).get("code")) for each in answers]
    assert codes == [(1, None), (2, -32601), (None, -32600)]


async def test_notifications_are_done_and_not_answered(
    connect: Callable[..., Client], running: Kernel
) -> None:
    client = connect()
    start = {"jsonrpc": "2.0", "method": "sendStartSignal", "params": ["fake"]}
    client.send([start, start])
    await eventually(lambda: running.service("fake").status == "Running")
    assert (await client.ask("nothing"))["code"] == -32601
    assert client.sent == []


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("nothing", [], -32601),
        ("sendStartSignal", [], -4),
        ("sendStartSignal", ["nobody"], -3),
        ("miniWindow", [], -3),
        ("subscribe", [["nothing"]], -4),
        ("subscribe", ["all"], -4),
        ("subscribe", [[], 1], -4),
        ("registerShell", [["exit"]], -4),
    ],
)
async def test_errors_have_the_documented_codes(
    connect: Callable[..., Client], method: str, params: list[Any], code: int
) -> None:
    refused = await connect().ask(method, *params)
    assert refused["code"] == code
    assert refused["message"]
    assert "data" in refused or code == -32601


async def test_a_defect_is_logged_and_answered_without_its_text(
    connect: Callable[..., Client], running: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RuntimeError("a secret")

    client = connect()
    monkeypatch.setattr(running, "services", broken)
    refused = await client.ask("getServices")
    assert refused["code"] == -1
    assert "secret" not in json.dumps(refused)
    assert [str(each) for each in client.defects] == ["a secret"]


async def test_without_trust_listing_alone_is_allowed(
    connect: Callable[..., Client], running: Kernel
) -> None:
    client = connect(trusted=False)
    for name, method in running.methods().items():
        answer = await client.ask(name)
        unauthorized = isinstance(answer, dict) and answer.get("data") == {"reason": "unauthorized"}
        assert unauthorized is not method.is_open, name
    assert (await client.ask("registerShell"))["data"] == {"reason": "unauthorized"}
    assert (await client.ask("subscribe"))["seq"] == 0
    assert running.service("fake").runtime == "stopped"


async def test_too_many_calls_are_refused(
    connect: Callable[..., Client], running: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_CALLS", 2)
    client = connect()
    client.reading.clear()
    for number in range(4):
        client.send({"jsonrpc": "2.0", "method": "getServices", "id": number})
    await asyncio.sleep(0)
    client.reading.set()
    await eventually(lambda: len(client.sent) == 4)
    refused = [each["id"] for each in client.sent if "error" in each]
    assert len(refused) == 2
    assert all(each["error"]["code"] == -3 for each in client.sent if "error" in each)


# Events ---------------------------------------------------------------------------------------


async def test_a_snapshot_comes_before_the_events_that_follow(
    connect: Callable[..., Client], running: Kernel
) -> None:
    client = connect()
    told = await client.ask("subscribe")
    assert told["kernel"] == running.id
    assert told["seq"] == 0
    assert [each["currentStatus"] for each in told["services"]] == ["Installed"]
    await running.start("fake")
    await eventually(lambda: len(client.sent) >= 2)
    assert client.notified()[:2] == [("serviceInfoUpdate", 1), ("serviceInfoUpdate", 2)]
    last = client.sent[-1]["params"]["data"]
    assert [each["currentStatus"] for each in last] == ["Running"]


async def test_each_event_has_its_documented_shape(
    connect: Callable[..., Client], running: Kernel
) -> None:
    client = connect()
    await client.ask("subscribe", ["webServiceExit", "modelDownloadProgress"])
    await running.start("fake")
    running._bus.publish(LoopBlocked(plugin="p", hook="h", seconds=1))
    running._bus.publish(WebServiceExit(service="fake", worker="main", exit_code=-11))
    running._bus.publish(ModelDownloadProgress(filename="m", progress=7, eta="1 s"))
    await eventually(lambda: len(client.sent) == 2)
    assert client.notified() == [("webServiceExit", 1), ("modelDownloadProgress", 2)]
    assert client.sent[0]["params"]["data"] == {"serviceName": "fake", "code": -11}
    assert client.sent[1]["params"]["data"] == {"filename": "m", "progress": 7.0, "eta": "1 s"}


async def test_subscribing_again_begins_anew(
    connect: Callable[..., Client], running: Kernel
) -> None:
    client = connect()
    await client.ask("subscribe", id_=1)
    await running.start("fake")
    await eventually(lambda: client.sent)
    await client.ask("subscribe", id_=2)
    client.sent.clear()
    running._bus.publish(WebServiceExit(service="fake", worker="main", exit_code=1))
    await eventually(lambda: client.sent)
    assert client.notified() == [("webServiceExit", 1)]
    await client.ask("unsubscribe", id_=3)
    running._bus.publish(WebServiceExit(service="fake", worker="main", exit_code=1))
    await client.ask("getServices", id_=4)
    assert len(client.sent) == 1


async def test_events_that_are_lost_become_a_snapshot(
    connect: Callable[..., Client], running: Kernel
) -> None:
    slow, fast = connect(), connect()
    await slow.ask("subscribe")
    await fast.ask("subscribe")
    slow.reading.clear()
    for code in range(3 * sessions.QUEUE):
        running._bus.publish(WebServiceExit(service="fake", worker="main", exit_code=code))
        if code % 50 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: len(fast.sent) == 3 * sessions.QUEUE)
    assert [each["params"]["data"]["code"] for each in fast.sent] == list(range(len(fast.sent)))
    slow.reading.set()
    await eventually(lambda: len(slow.sent) >= 2)
    numbers = slow.notified()
    assert [seq for _, seq in numbers] == list(range(1, len(numbers) + 1))
    snapshot = next(each["params"] for each in slow.sent if each["method"] == "snapshot")
    assert snapshot["lost"] > sessions.QUEUE
    assert [each["name"] for each in snapshot["services"]] == ["fake"]


async def test_a_client_that_went_away_ends_quietly(
    connect: Callable[..., Client], running: Kernel
) -> None:
    client = connect()
    await client.ask("subscribe")
    client.gone = True
    running._bus.publish(WebServiceExit(service="fake", worker="main", exit_code=1))
    client.send({"jsonrpc": "2.0", "method": "getServices", "id": 9})
    await eventually(lambda: not client.session._tasks)
    assert client.defects == []


# The window at the other end --------------------------------------------------------------------


async def shell(client: Client, *methods: str) -> None:
    assert await client.ask("registerShell", *([list(methods)] if methods else [])) is None


async def test_a_client_can_be_the_window(connect: Callable[..., Client]) -> None:
    window, page = connect(), connect()
    await shell(window)
    page.send({"jsonrpc": "2.0", "method": "showOpenDialog", "params": [{"title": "T"}], "id": 5})
    await eventually(lambda: window.sent)
    [asked] = window.sent
    assert (asked["method"], asked["params"]) == ("showOpenDialog", [{"title": "T"}])
    window.send({"jsonrpc": "2.0", "id": asked["id"], "result": ["/a.png"]})
    assert await page.response(5) == ["/a.png"]

    page.send({"jsonrpc": "2.0", "method": "miniWindow", "id": 6})
    await eventually(lambda: len(window.sent) == 2)
    refusal = {"code": -5, "message": "no", "data": {"a": 1}}
    window.send({"jsonrpc": "2.0", "id": window.sent[1]["id"], "error": refusal})
    assert await page.response(6) == refusal


async def test_what_a_window_does_not_do_is_missing(connect: Callable[..., Client]) -> None:
    window, page = connect(), connect()
    await shell(window, "miniWindow")
    assert (await page.ask("exitApp"))["data"] == {"reason": "no-shell"}


async def test_a_window_that_goes_away_is_told(connect: Callable[..., Client]) -> None:
    window, page = connect(), connect()
    await shell(window)
    page.send({"jsonrpc": "2.0", "method": "showOpenDialog", "id": 5})
    await eventually(lambda: window.sent)
    await window.session.close()
    assert (await page.response(5))["code"] == -3
    assert (await page.ask("miniWindow", id_=6))["data"] == {"reason": "no-shell"}


async def test_a_result_that_is_none_is_a_defect_of_the_window(
    connect: Callable[..., Client],
) -> None:
    window, page = connect(), connect()
    await shell(window)
    page.send({"jsonrpc": "2.0", "method": "showSaveDialog", "id": 5})
    await eventually(lambda: window.sent)
    window.send({"jsonrpc": "2.0", "id": "shell-99", "result": None})  # nobody asked
    window.send({"jsonrpc": "2.0", "id": window.sent[0]["id"], "result": {"path": 1}})
    assert (await page.response(5))["code"] == -1


# The service that carries the connection ------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "operation"),
    [("sendStopSignal", "Stopping", "stop"), ("restartService", "Starting", "restart")],
)
async def test_ending_what_carries_the_connection_answers_first(
    connect: Callable[..., Client], method: str, status: str, operation: str
) -> None:
    later: list[str] = []
    client = connect(own=Own(service="fake", later=later.append))
    client.reading.clear()
    client.send({"jsonrpc": "2.0", "method": method, "params": ["fake"], "id": 1})
    await asyncio.sleep(0.01)
    assert later == []
    client.reading.set()
    assert await client.response(1) == status
    await eventually(lambda: later == [operation])


async def test_a_closed_kernel_answers(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake()) as one:
        client = Client(one)
        await client.ask("subscribe")
    answer = await client.ask("sendStartSignal", "fake")
    assert answer["code"] == -3
    await client.session.close()
    assert issubclass(Gone, AIPlaygroundError)
    assert issubclass(Gone, ServiceNotAvailable)
