"""The ledger of a load: what came of every request, as the client saw it. Tests take their expectations from it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Literal, Self

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["create", "update", "invalid", "malformed"]
Outcome = Literal["published", "spooled", "refused", "unknown", "invalid", "no_answer"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger: one request, or one message put straight on the topic. Times are seconds since 1970.

    ``kind`` is create, update, invalid (a request that is wrong on purpose) or malformed (a message that is).
    ``sets`` is the status that the order has after it. ``outcome``: published, spooled, refused (it will never appear),
    unknown (it may be on the topic, the service says), invalid (answered with 4xx), no_answer (the connection broke or
    was silent: it may be on the topic). What is not known is null.
    """

    kind: Kind
    order_id: str | None
    event_id: str | None
    sets: str | None
    outcome: Outcome
    status: int | None
    partition: int | None
    offset: int | None
    sent_at: float
    answered_at: float
    idempotency_key: str | None
    error: str | None


class Ledger:
    """JSON lines, each written out at once: what was answered stays known, however this process ends. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("ab", buffering=0) if path else None
        self._lock = threading.Lock()
        self.counts: Counter[tuple[Kind, Outcome]] = Counter()
        self.latencies_s: list[float] = []

    def add(self, entry: Entry) -> None:
        """Write and count one entry."""
        with self._lock:
            if self._file:
                self._file.write(msgspec.json.encode(entry) + b"\n")
            self.counts[entry.kind, entry.outcome] += 1
            if entry.outcome != "no_answer":
                self.latencies_s.append(entry.answered_at - entry.sent_at)

    @property
    def total(self) -> int:
        """How many entries there are."""
        return self.counts.total()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()


def read_ledger(path: Path) -> list[Entry]:
    """Read a ledger; a last line that was cut short is left out."""
    return [msgspec.json.decode(line, type=Entry) for line in path.read_bytes().split(b"\n")[:-1]]
