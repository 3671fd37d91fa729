"""Ports are held from the bind on, given way to, or reported with who has them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from aiplayground._processes import ports
from aiplayground._processes.ports import PortTaken, bind, choose, holder, listener_in_tree
from aiplayground.errors import FailureClass, ServiceNotAvailable

OTHER = """
import socket, sys
sock = socket.socket()
if sys.argv[1] == "reuse":
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", 0))
if sys.argv[2] == "listening":
    sock.listen()
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def other_program(*arguments: str) -> Iterator[tuple[int, psutil.Process]]:
    """Run a program that has a port; yield the port and the program."""
    argv = [sys.executable, "-I", "-c", OTHER, *arguments]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        yield int(popen.stdout.readline()), psutil.Process(popen.pid)
        popen.kill()


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def refuses(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def test_a_free_port_is_bound_and_does_not_accept_yet() -> None:
    port = choose(None)
    with bind(port) as sock:
        assert port_of(sock) == port
        assert refuses(port)
        assert not sock.get_inheritable()
        sock.listen()
        assert not refuses(port)


@pytest.mark.parametrize("option", ["plain", "reuse"])
@pytest.mark.parametrize("state", ["listening", "bound"])
def test_a_taken_port_is_given_way_to_or_reported(option: str, state: str) -> None:
    with other_program(option, state) as (port, process):
        with bind(port) as sock:
            assert port_of(sock) not in (0, port)
        with pytest.raises(PortTaken) as caught:
            bind(5000, fixed=port)
        # A socket that does not listen is in no table of the system's.
        known = f"{process.name()} (pid {process.pid})" if state == "listening" else None
    error = caught.value
    assert isinstance(error, ServiceNotAvailable)
    assert error.failure is FailureClass.PORT_TAKEN
    assert error.port == port
    assert error.holder == known
    assert (error.holder or "another program") in error.message


def test_a_port_that_we_hold_is_taken_for_the_next() -> None:
    with bind(None) as first:
        with bind(port_of(first)) as second:
            assert port_of(second) != port_of(first)
        with pytest.raises(PortTaken):
            bind(None, fixed=port_of(first))


def test_a_dead_servers_port_is_free_while_its_connections_wind_down() -> None:
    with bind(None) as server:
        port = port_of(server)
        server.listen()
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the side that closes first keeps TIME_WAIT
            assert client.recv(1) == b""
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))
    with bind(None, fixed=port) as again:
        again.listen()
        assert port_of(again) == port
        with pytest.raises(PortTaken):
            bind(None, fixed=port)


def test_a_refusal_for_another_reason_keeps_its_name() -> None:
    with pytest.raises(OSError, match="assign") as caught:
        bind(None, fixed=8080, host="192.0.2.1")
    assert not isinstance(caught.value, PortTaken)


def test_a_forbidden_preferred_port_is_given_way_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Permission denied")

    monkeypatch.setattr(ports, "_bind_unless_taken", refuse)
    with bind(80) as sock:
        assert port_of(sock) > 1023
    with pytest.raises(PermissionError):
        bind(None, fixed=80)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6() -> None:
    try:
        sock = bind(None, host="::1")
    except OSError:
        pytest.skip("no IPv6 loopback")
    with sock, pytest.raises(PortTaken):
        bind(None, fixed=port_of(sock), host="::1")


def test_the_listener_is_found_in_its_tree_and_in_no_other() -> None:
    with other_program("plain", "listening") as (port, process):
        assert listener_in_tree(port, [process]) is True
        assert listener_in_tree(port, [psutil.Process()]) is False
        assert listener_in_tree(port, []) is False
        assert holder(port) == f"{process.name()} (pid {process.pid})"
    assert listener_in_tree(port, [process]) is False
    assert holder(port) is None


def test_a_process_that_hides_its_sockets_leaves_the_question_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psutil.AccessDenied(os.getpid())

    monkeypatch.setattr(psutil.Process, "net_connections", refuse)
    assert listener_in_tree(80, [psutil.Process()]) is None
    monkeypatch.setattr(psutil, "net_connections", refuse)
    assert holder(80) is None
