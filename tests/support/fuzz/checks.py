"""What must have come of a fuzzed topic: row by row, and in the worker's log."""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support import store
from tests.support.fuzz.log import INVALID_CONTROL
from tests.support.raw_batches import Raw

if TYPE_CHECKING:
    from orderflow.stack import Stack
    from tests.support.fuzz.log import Fuzz, Json, Sent
    from tests.support.raw_batches import Header
    from tests.support.topic import Place

WORKER = "order-consumer"

#: What a skip says of itself, at most, whatever the record holds: characters.
DETAIL_MAX = 500


@dataclass(frozen=True)
class Kept:
    """A row of skipped_messages."""

    reason: str
    state: str
    key: bytes | None
    value: bytes | None
    headers: str
    detail: str


def check(stack: Stack, fuzz: Fuzz) -> Counter[str]:
    """Assert that each record came to what it must; count the skips by reason."""
    wanted = {(p, offset): sent for p, log in enumerate(fuzz.logs) for offset, sent in enumerate(log)}
    assert store.epochs(stack.settings) == 1, "the log was taken for lost"
    assert store.positions(stack.settings) == {p: len(log) for p, log in enumerate(fuzz.logs) if log}
    kept = check_skips(stack, {place: sent for place, sent in wanted.items() if sent.reasons})
    check_effects(stack, {place: sent for place, sent in wanted.items() if not sent.reasons})
    check_orders(stack, fuzz)
    return Counter(row.reason for row in kept.values())


def check_skips(stack: Stack, wanted: dict[Place, Sent]) -> dict[Place, Kept]:
    rows = store.query(
        stack.settings, "SELECT partition, offset, reason, state, key, value, headers, detail FROM skipped_messages"
    )
    kept = {(partition, offset): Kept(*row) for partition, offset, *row in rows}
    assert len(kept) == len(rows), "a record is kept twice"
    lost, strangers = wanted.keys() - kept.keys(), kept.keys() - wanted.keys()
    assert not lost, [(place, wanted[place]) for place in sorted(lost)[:3]]
    assert not strangers, [(place, kept[place]) for place in sorted(strangers)[:3]]
    for place, sent in wanted.items():
        row = kept[place]
        assert row.reason in sent.reasons, (place, row, sent)
        assert row.state == sent.state, (place, row, sent)
        assert 0 < len(row.detail) <= DETAIL_MAX, (place, row.detail[:1_000])
        bare = Raw(None, None) if sent.lost else sent.raw
        assert (row.key, row.value) == (bare.key, bare.value), (place, row, sent)
        assert json.loads(row.headers) == [list(shown(header)) for header in bare.headers], (place, row, sent)
    return kept


def shown(header: Header) -> tuple[str, str | None]:
    """A header as it is kept: what is no UTF-8 in its name is escaped."""
    name, value = header
    return name.decode(errors="backslashreplace"), None if value is None else base64.b64encode(value).decode()


def check_effects(stack: Stack, wanted: dict[Place, Sent]) -> None:
    """Assert that all good events were applied, and nothing else; and that each good control has its verdict."""
    history = {place: row.outcome for place, row in store.history(stack.settings).items()}
    verdicts = store.query(stack.settings, "SELECT partition, offset, verdict FROM controls")
    found = {place: outcome for place, outcome in history.items() if outcome != "skipped"}
    found |= {(partition, offset): one for partition, offset, one in verdicts if one != INVALID_CONTROL}
    mended = store.query(stack.settings, "SELECT partition, offset FROM skipped_messages WHERE state = 'repaired'")
    for place in mended:
        assert found.pop(place) == "applied"
    assert found == {place: sent.outcome for place, sent in wanted.items()}


def check_orders(stack: Stack, fuzz: Fuzz) -> None:
    rows = store.query(stack.settings, "SELECT order_id, status, total_minor, shipping_minor FROM orders")
    assert {order_id: row for order_id, *row in rows} == {
        order.order_id: [order.status, order.cents, (order.cents * 2 + 50) // 100]
        for order in (*fuzz.orders, *fuzz.mended)
    }


def log_lines(stack: Stack) -> list[Json]:
    """All that the worker has logged, older files first; a line that is no JSON is none of its own."""
    name = f"{WORKER}.log"
    files = sorted(stack.settings.log_dir.glob(f"{name}*"), key=lambda path: path.name, reverse=True)
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    strangers = [line for line in text.splitlines() if not line.startswith("{")]
    assert not strangers, strangers[:20]
    return [json.loads(line) for line in text.splitlines()]


def check_log(stack: Stack, fuzz: Fuzz) -> None:
    """Assert that each skip was told once, and that no error was but alerts."""
    lines = log_lines(stack)
    errors = [
        line
        for line in lines
        if "logger" not in line  # a client that is closed complains of its connection
        and ("exception" in line or (line["level"] == "error" and line["event"] != "alert.opened"))
    ]
    assert not errors, errors[:3]
    told = Counter((line["partition"], line["offset"]) for line in lines if line["event"] == "message.skipped")
    skipped = [(p, offset) for p, log in enumerate(fuzz.logs) for offset, sent in enumerate(log) if sent.reasons]
    assert told == Counter(skipped)


def read_all(stack: Stack, fuzz: Fuzz) -> bool:
    positions = store.positions(stack.settings)
    return all(positions.get(partition, 0) >= len(log) for partition, log in enumerate(fuzz.logs))
