"""Ports: bound by the kernel and passed on, so that nothing can take one in between.

The kernel binds without listening; the worker that inherits the descriptor listens. So a port
neither changes hands during a start nor accepts connections before somebody serves them.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aiplayground.errors import FailureClass, ServiceFailed

if TYPE_CHECKING:
    import psutil

_LISTEN = 0x0A  # Linux: include/net/tcp_states.h


class PortTaken(ServiceFailed):
    """The port that the user fixed belongs to another program; `holder` names it if known."""

    def __init__(self, port: int, holder: str | None) -> None:
        super().__init__(
            f"Port {port} is in use by {holder or 'another program'}. End that program, or choose "
            "another port in the settings.",
            failure=FailureClass.PORT_TAKEN,
            details={"port": port, "holder": holder},
        )
        self.port = port
        self.holder = holder


def bind(
    preferred: int | None, *, fixed: int | None = None, host: str = "127.0.0.1"
) -> socket.socket:
    """Return a TCP socket that is bound to `host` and not listening; the caller closes it.

    `preferred` gives way to a free port if it is taken. `fixed` does not: raises PortTaken then,
    and OSError where the system refuses it for another reason (a port below 1024, a host that is
    not this machine's).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if fixed is not None:
        sock = _bind_unless_taken(family, host, fixed)
        if sock is None:
            raise PortTaken(fixed, holder(fixed))
        return sock
    if preferred is not None:
        with contextlib.suppress(PermissionError):
            sock = _bind_unless_taken(family, host, preferred)
            if sock is not None:
                return sock
    return _bind(family, host, 0, reuse=False)


def choose(preferred: int | None, *, fixed: int | None = None, host: str = "127.0.0.1") -> int:
    """Return a port for a program that binds it by itself; raises as `bind` does.

    Nothing holds it until the program does: the caller checks `listener_in_tree` afterwards.
    """
    with bind(preferred, fixed=fixed, host=host) as sock:
        return int(sock.getsockname()[1])


def listener_in_tree(port: int, processes: Iterable[psutil.Process]) -> bool | None:
    """Whether one of the processes listens on the TCP port; None where it cannot be told."""
    import psutil

    hidden = False
    for process in processes:
        try:
            found = process.net_connections(kind="tcp")
            if any(_listens(one.status, one.laddr, port) for one in found):
                return True
        except psutil.AccessDenied:
            hidden = True
        except psutil.NoSuchProcess:
            continue
    return None if hidden else False


def listens_on(port: int, inode: int) -> bool | None:
    """Whether the socket with this inode is what listens on the port; None where unknowable.

    Source: proc(5), /proc/net/tcp: field 10 is the inode.
    """
    if sys.platform != "linux":
        return None
    rows = [row for row in _tcp_rows() if row.port == port and row.state == _LISTEN]
    return any(row.inode == inode for row in rows) if rows else None


def holder(port: int) -> str | None:
    """Return who listens on the TCP port, as "nginx (pid 812)"; None where it cannot be told."""
    import psutil

    try:
        found = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS without root
        return None
    pids = [one.pid for one in found if _listens(one.status, one.laddr, port) and one.pid]
    if not pids:
        return None
    try:
        return f"{psutil.Process(pids[0]).name()} (pid {pids[0]})"
    except psutil.Error:
        return None


def _listens(status: str, address: Any, port: int) -> bool:
    # psutil gives an empty tuple for no address.
    return status == "LISTEN" and bool(address) and address.port == port


def _bind_unless_taken(family: socket.AddressFamily, host: str, port: int) -> socket.socket | None:
    """Bind a certain port; None where a program has it, even one that does not listen yet."""
    try:
        return _bind(family, host, port, reuse=sys.platform not in ("linux", "win32"))
    except OSError as error:
        if not _is_taken(error):
            raise
    if sys.platform != "linux" or not _only_winding_down(port):
        return None
    try:
        return _bind(family, host, port, reuse=True)
    except OSError as error:
        if not _is_taken(error):
            raise
        return None


def _is_taken(error: OSError) -> bool:
    # Windows answers EACCES for a port that is held with SO_EXCLUSIVEADDRUSE.
    windows = sys.platform == "win32" and error.errno == errno.EACCES
    return error.errno == errno.EADDRINUSE or windows


def _bind(family: socket.AddressFamily, host: str, port: int, *, reuse: bool) -> socket.socket:
    """Bind a socket; with `reuse` over connections of a dead server (TIME_WAIT).

    On Linux SO_REUSEADDR also lets two sockets bind one port while neither listens. So it is set
    before binding only where nobody has the port, and always afterwards: the connections that the
    server accepts inherit it, and a later server can bind only over those that have it.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        elif reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _only_winding_down(port: int) -> bool:
    """Whether all that has the port are connections: no listener, and no socket that is only bound.

    A socket that is bound and not listening is in no table: an empty answer means that there is
    one. Source: proc(5), /proc/net/tcp: fields 2 (address:port, hexadecimal) and 4 (state).
    """
    states = {row.state for row in _tcp_rows() if row.port == port}
    return bool(states) and _LISTEN not in states


class _TcpRow(NamedTuple):
    port: int
    state: int
    inode: int


def _tcp_rows() -> Iterator[_TcpRow]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                port = int(fields[1].rpartition(":")[2], 16)
                yield _TcpRow(port, int(fields[3], 16), int(fields[9]))
