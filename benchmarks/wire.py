"""A lean HTTP load client: one process, one epoll loop, raw sockets that are kept open.

On a machine with few cores a slow client measures itself. This one fills templates, and reads of an answer only its
status and its length.
"""

from __future__ import annotations

import select
import socket
import statistics
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WARM_S = 1.0
SILENCE_S = 10.0
READ_BYTES = 65_536


@dataclass(frozen=True)
class Load:
    """What is sent: a template, its ``%d`` or ``%010d`` a number that counts up from ``first``, modulo ``repeat``."""

    port: int
    template: bytes
    first: int = 0
    repeat: int | None = None
    connections: int = 32
    seconds: float = 5.0

    def requests(self) -> Iterator[bytes]:
        """Give one request after the other."""
        number = 0
        while True:
            yield self.template % (self.first + number) if b"%" in self.template else self.template
            number = number + 1 if self.repeat is None else (number + 1) % self.repeat


@dataclass
class Sample:
    """What was measured after the warm-up. Latencies are in seconds, sorted."""

    seconds: float
    latencies: list[float]
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile_ms(self, percent: int) -> float:
        """Give a percentile of the time to the answer."""
        return percentile(self.latencies, percent) * 1000


def percentile(values: list[float], percent: int) -> float:
    """Give a percentile, between the two nearest values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def get(path: str) -> bytes:
    """Write a GET request; ``%d`` in the path is the number."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path: str, body: str, number_length: int) -> bytes:
    """Write a POST request whose number always has so many digits, so that the length is known."""
    length = len(body) - len("%d") + number_length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}"
    return f"{head}\r\n\r\n{body}".encode()


def measure(load: Load) -> Sample:
    """Run the load in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(hammer, load).result()


class _Connection:
    """One request in flight on one socket."""

    __slots__ = ("_read", "_wanted", "sent_at", "sock", "status")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(None)  # The epoll loop watches the time; a timeout here costs a system call each way.
        self._read = b""
        self._wanted = 0

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.sock.sendall(request)

    def receive(self) -> bool:
        """Take what came. True: the answer is complete."""
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError("The service closed a connection that was in use.")
        if self._wanted:
            self._wanted -= len(data)
            return self._wanted == 0
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._read[:end].lower()
        self.status = int(head[9:12])
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        self._wanted = end + 4 + length - len(self._read)
        self._read = b""
        return self._wanted == 0


def hammer(load: Load) -> Sample:
    """Keep every connection busy; each sends its next request as soon as it has its answer."""
    requests = load.requests()
    poll = select.epoll()
    connections = {}
    for _ in range(load.connections):
        connection = _Connection(load.port)
        connections[connection.sock.fileno()] = connection
        poll.register(connection.sock, select.EPOLLIN)
        connection.send(next(requests))
    begin = time.perf_counter() + WARM_S
    end = begin + load.seconds
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    now = time.perf_counter()
    while now < end:
        ready = poll.poll(SILENCE_S)
        if not ready:
            raise TimeoutError(f"No answer from port {load.port} in {SILENCE_S:g} s.")
        for descriptor, _ in ready:
            connection = connections[descriptor]
            if connection.receive():
                now = time.perf_counter()
                if now >= begin:
                    latencies.append(now - connection.sent_at)
                    statuses[connection.status] += 1
                connection.send(next(requests))
    for connection in connections.values():
        connection.sock.close()
    return Sample(load.seconds, sorted(latencies), statuses)
