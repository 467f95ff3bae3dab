"""A service that answers as it is told: for answers, and broken connections, that a real one gives seldom."""

from __future__ import annotations

import json
import socket
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A scripted answer that breaks the connection instead.
BREAK = None


class Script(ThreadingHTTPServer):
    """A real HTTP server that gives the answers of a script, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, Any, dict[str, str]] | None] = []
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.held: dict[int, threading.Event] = {}
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the client has hung up
            super().handle_error(request, client_address)

    def will_answer(self, status: int, body: object, **headers: str) -> None:
        self.answers.append((status, body, headers))

    def will_answer_when(self, released: threading.Event, status: int, body: object) -> None:
        self.held[len(self.answers)] = released
        self.will_answer(status, body)

    def will_break(self) -> None:
        self.answers.append(BREAK)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, json.loads(body) if body else None))
        if (released := self.server.held.get(len(self.server.asked) - 1)) is not None:
            released.wait(10)
        answer = self.server.answers.pop(0)
        if answer is BREAK:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status, given, extra = answer
        raw = given if isinstance(given, bytes) else json.dumps(given).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in extra.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    do_POST = do_PUT = do_GET  # noqa: N815 (named by the standard library)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted() -> Iterator[Script]:
    """A service on a free port."""
    with Script() as script:
        threading.Thread(target=script.serve_forever, args=(0.01,)).start()
        yield script
        script.shutdown()
