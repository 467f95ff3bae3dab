"""Reading one record: what it decodes to, the id it goes by, and the place that it has in an order's history."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from orderflow import controls, events
from orderflow.broker import partition_of
from orderflow.errors import InvalidEvent
from orderflow.events import DAMAGED, Event, SkipReason
from orderflow.orders import is_order_id
from orderflow.store.rows import HistoryRow, SkippedRow
from orderflow.tracing import trace_id_of

if TYPE_CHECKING:
    from orderflow.records import Record


#: Of what an error says, and of its trace, so many characters are kept.
DETAIL_MAX, TRACE_MAX = 500, 20_000

#: Skips whose record is a JSON object, so that an event id in it can be believed.
CLAIMING = frozenset({SkipReason.INVALID_EVENT, SkipReason.UNKNOWN_TYPE, SkipReason.INVALID_CONTROL})

#: What a record comes to, and the reason where it is skipped.
Outcome = tuple[str, SkipReason | None]


@dataclass(slots=True)
class Read:
    """A record and what it decodes to; the id it goes by."""

    record: Record
    event: Event | InvalidEvent
    text: str = ""
    event_id: str = ""
    misplaced: SkipReason | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a record is skipped: the reason, its sentence for this record, and the error where there was one."""

    reason: SkipReason
    detail: str
    exception: str | None = None
    attempts: int = 1
    trace: str | None = None


def told(text: str, at_most: int = DETAIL_MAX) -> str:
    """Make text that a table takes of what an error says, which may be long and is not always valid."""
    return text[:at_most].encode(errors="backslashreplace").decode()


def read(record: Record, topic_id: str) -> Read:
    """Decode a record, and find out whose it is."""
    if record.damage is not None:
        return Read(record, InvalidEvent(SkipReason.UNREADABLE_RECORD, record.damage))
    try:
        text = events.text_of(record.value)
        event = events.decode_text(text)
    except InvalidEvent as error:
        return Read(record, error)
    event_id = event.event_id or events.derived_event_id(
        topic_id, record.partition, record.offset, record.key or b"", record.value or b""
    )
    return Read(record, event, text, event_id, _misplaced(record, event))


def _misplaced(record: Record, event: Event) -> SkipReason | None:
    if record.key is None:
        return SkipReason.MISSING_KEY
    if record.key != event.order_id.encode():
        return SkipReason.KEY_MISMATCH
    if partition_of(record.key) != record.partition:
        return SkipReason.WRONG_PARTITION
    return None


def history_row(read: Read, event: Event, epoch: int, fingerprint: bytes, outcome: Outcome) -> HistoryRow:
    """Give the row of a record that decodes."""
    record = read.record
    return HistoryRow(
        epoch, record.partition, record.offset, None if read.misplaced else event.order_id, read.event_id,
        events.TYPES[type(event)], read.text, fingerprint, record.logged_at, trace_id_of(record.traceparent), *outcome,
    )  # fmt: skip


def skipped_row(read: Read, epoch: int, cause: Cause) -> SkippedRow:
    """Give the row of a record that is not applied, as it came."""
    record = read.record
    if isinstance(read.event, InvalidEvent):
        damaged = read.event.reason in DAMAGED and not (cause.trace and controls.is_control(record.value))
        order_id = _order_of_key(record) if damaged else None
        placed, event_id = order_id is not None, _known_event_id(record, cause.reason)
    else:
        order_id, placed, event_id = read.event.order_id, read.misplaced is None, read.event_id
    return SkippedRow(
        epoch, record.partition, record.offset, cause.reason, told(cause.detail), record.key, record.value,
        _headers_json(record), record.logged_at, order_id, int(placed), event_id, cause.exception, cause.attempts,
        cause.trace and told(cause.trace, TRACE_MAX), trace_id_of(record.traceparent), opened_by=record.offset,
    )  # fmt: skip


def _order_of_key(record: Record) -> str | None:
    """Name the order in whose history a record that does not decode would lie."""
    if record.key is None or partition_of(record.key) != record.partition:
        return None
    try:
        order_id = record.key.decode()
    except UnicodeDecodeError:
        return None
    return order_id if is_order_id(order_id) else None


def _known_event_id(record: Record, reason: SkipReason) -> str | None:
    if record.value is None or reason not in CLAIMING:
        return None
    return events.claimed_event_id(record.value)


def _headers_json(record: Record) -> str:
    """Keep headers as they were: ``[[name, base64 or null], …]``."""
    pairs = [(name, None if value is None else base64.b64encode(value).decode()) for name, value in record.headers]
    return msgspec.json.encode(pairs).decode()
