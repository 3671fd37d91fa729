"""A small OpenAI-speaking server that behaves, or misbehaves as it is told.

Arguments: the port, then any of: `count=FILE` (add our process id to it), `say=TEXT` (log a line),
`garbage` (log what is no text),
`exit=CODE`, `signal=NUMBER` (end by it), `chatter=N` (log N lines, slowly, before listening),
`hold` (never listen), `stubborn` (ignore SIGTERM), `port=N` (listen elsewhere), `chunks=N`,
`grandchild=FILE` (start a process that holds our pipes, and note its id there),
`stall=N` (say nothing more after N chunks), `cut=N` (crash after N bytes of a stream),
`die=SECONDS` (after it began to listen), `key=KEY` (asked of every request, and told to those who
come with another), `prefix=PATH` (all else is not found), `models=A,B` (names that it lists),
`loading=SECONDS` (in which it answers 503).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

PAUSE = 0.05
SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
BEGAN = time.monotonic()


def options() -> dict[str, str]:
    """Return what was asked for after the port."""
    return {name: value for name, _, value in (each.partition("=") for each in sys.argv[2:])}


def misbehave(told: dict[str, str]) -> None:
    """Do what is to be done before listening; may not return."""
    if "stubborn" in told:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "count" in told:
        with Path(told["count"]).open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    if "garbage" in told:
        os.write(1, b"\x00\xff\xfe\x1b[31m AIPG-ERROR {\xc3\r\n" * 50 + b"x" * 100_000)
    if "grandchild" in told:
        sleeper = subprocess.Popen([sys.executable, "-I", "-S", "-c", SLEEP])
        with Path(told["grandchild"]).open("a", encoding="ascii") as file:
            file.write(f"{sleeper.pid}\n")
    for number in range(int(told.get("chatter", "0"))):
        print("loading layer", number, flush=True)
        time.sleep(PAUSE)
    if "say" in told:
        print(told["say"], file=sys.stderr, flush=True)
    if "signal" in told:
        os.kill(os.getpid(), int(told["signal"]))
    if "exit" in told:
        sys.exit(int(told["exit"]))
    while "hold" in told:
        time.sleep(3600)


def answer(connection: socket.socket, told: dict[str, str]) -> None:
    """Answer one request and close."""
    with contextlib.suppress(OSError), connection:
        request = receive(connection)
        if not request:
            return
        path = request.split()[1].decode()
        given = next((line for line in request.split(b"\r\n") if b"Bearer " in line), b"").decode()
        prefix = told.get("prefix", "")
        if "key" in told and given.partition("Bearer ")[2] != told["key"]:
            reply(connection, "401 Unauthorized", {"error": {"message": f"wrong key: {given}"}})
        elif time.monotonic() < BEGAN + float(told.get("loading", "0")):
            reply(connection, "503 Loading", {"error": {"message": "Loading model"}})
        elif not path.startswith(prefix):
            reply(connection, "404 Not Found", {"error": {"message": f"no {path}"}})
        elif path == f"{prefix}/v1/chat/completions":
            stream(connection, told)
        elif path == f"{prefix}/v1/embeddings":
            reply(connection, "200 OK", {"data": [{"embedding": [0.5, 0.25]}]})
        else:
            names = told.get("models", "m").split(",")
            reply(connection, "200 OK", {"data": [{"id": name} for name in names]})


def receive(connection: socket.socket) -> bytes:
    """Read one request, body and all: what is left unread at a close makes the system reset it."""
    request, whole = b"", 1
    while len(request) < whole:
        if not (part := connection.recv(65536)):
            return b""
        request += part
        head, found, _ = request.partition(b"\r\n\r\n")
        if found:
            lengths = [
                each for each in head.split(b"\r\n") if each[:15].lower() == b"content-length:"
            ]
            whole = len(head) + 4 + (int(lengths[0][15:]) if lengths else 0)
        else:
            whole = len(request) + 1
    return request


def reply(connection: socket.socket, status: str, value: object) -> None:
    """Send a JSON body."""
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def stream(connection: socket.socket, told: dict[str, str]) -> None:
    """Send server-sent events, one every `PAUSE` seconds."""
    left = int(told.get("cut", "-1"))

    def send(data: bytes) -> None:
        nonlocal left
        if 0 <= left <= len(data):
            connection.sendall(data[:left])
            os._exit(9)
        left -= len(data) if left > 0 else 0
        connection.sendall(data)

    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n"
    send(head + b"Transfer-Encoding: chunked\r\n\r\n")
    for number in range(int(told.get("chunks", "3"))):
        while number == int(told.get("stall", "-1")):
            time.sleep(3600)
        send(event(b'{"choices": [{"delta": {"content": "word "}}]}'))
        time.sleep(PAUSE)
    send(event(b'{"choices": [{"delta": {}, "finish_reason": "stop"}]}'))
    send(event(b"[DONE]"))
    send(b"0\r\n\r\n")


def event(data: bytes) -> bytes:
    """Return one server-sent event as one chunk of HTTP."""
    text = b"data: " + data + b"\n\n"
    return b"%x\r\n" % len(text) + text + b"\r\n"


def main() -> None:
    """Serve until ended."""
    told = options()
    misbehave(told)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(told.get("port", sys.argv[1]))))
    listener.listen(128)
    if "die" in told:
        threading.Timer(float(told["die"]), os._exit, (1,)).start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, told), daemon=True).start()


if __name__ == "__main__":
    main()
