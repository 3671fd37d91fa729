"""The reference backend's engine: a small server that speaks enough of the OpenAI API.

Argument: the port. Answers count words: `max_tokens` of them, else `WORDS`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from typing import Any

WORDS = 12
PAUSE = 0.002
FORMATS = ("text", "json_object")


def answer(connection: socket.socket) -> None:
    """Answer one request and close."""
    with contextlib.suppress(OSError), connection:
        head, body = received(connection)
        path = head.split(b" ")[1].decode()
        if path == "/v1/chat/completions":
            chat(connection, json.loads(body))
        elif path == "/v1/embeddings":
            texts = json.loads(body)["input"]
            vectors = [{"embedding": [float(len(text)), 1.0]} for text in texts]
            reply(connection, {"data": vectors})
        else:
            reply(connection, {"status": "ok"})


def received(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return head and body of a request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += connection.recv(65536)
    return head, body


def reply(connection: socket.socket, body: Any, status: str = "200 OK") -> None:
    """Send a JSON body."""
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)


def chat(connection: socket.socket, request: dict[str, Any]) -> None:
    """Stream an answer, a word for each event; the last one has the reason and the counts."""
    kind = (request.get("response_format") or {"type": "text"})["type"]
    if kind not in FORMATS:
        reply(connection, {"error": {"message": f"no format '{kind}'"}}, "400 Bad Request")
        return
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n"
    connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
    limit = request.get("max_tokens")
    for number in range(limit or WORDS):
        send(connection, {"text": f"word{number} "})
        time.sleep(PAUSE)
    send(connection, {"finish": "length" if limit else "stop", "tokens": limit or WORDS})
    connection.sendall(b"0\r\n\r\n")


def send(connection: socket.socket, event: dict[str, Any]) -> None:
    """Send one event as one chunk."""
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    connection.sendall(b"%x\r\n" % len(data) + data + b"\r\n")


def main() -> None:
    """Serve until ended."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
