"""A row of the outbox as people and machines are shown it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from orderflow import events, headers
from orderflow.clock import moment
from orderflow.errors import InvalidEvent
from orderflow.shapes import Time
from orderflow.store.outbox_rows import Kind, State

if TYPE_CHECKING:
    from orderflow.store.outbox_rows import Entry


class EntryShown(TypedDict):
    """An event or a control that was taken; what is not there is null."""

    seq: int
    kind: Kind
    orderId: str | None
    eventId: str
    type: str | None
    names: str | None
    state: State
    reason: str | None
    author: str | None
    maybeOnTopic: bool
    spooledAt: Time | None
    settledAt: Time | None
    partition: int | None
    offset: int | None
    bytes: int
    traceId: str | None


class EntryWithPayload(EntryShown):
    """A row with what it holds, as text."""

    headers: dict[str, str]
    payload: str


def shown(entry: Entry) -> EntryShown:
    """Give a row without its payload."""
    return {
        "seq": entry.seq,
        "kind": entry.kind,
        "orderId": entry.order_id or None,
        "eventId": entry.event_id,
        "type": _type(entry),
        "names": entry.named,
        "state": entry.state,
        "reason": entry.reason,
        "author": entry.author,
        "maybeOnTopic": bool(entry.sent),
        "spooledAt": moment(entry.spooled_at),
        "settledAt": moment(entry.settled_at),
        "partition": entry.partition,
        "offset": entry.offset,
        "bytes": entry.bytes,
        "traceId": entry.trace_id or None,
    }


def shown_with_payload(entry: Entry) -> EntryWithPayload:
    """Give a row with what it holds, as text."""
    pairs = {name: (value or b"").decode(errors="backslashreplace") for name, value in headers.pairs(entry.headers)}
    return {**shown(entry), "headers": pairs, "payload": entry.value.decode(errors="backslashreplace")}


def _type(entry: Entry) -> str | None:
    if entry.kind == "control":
        return events.type_of(entry.value)
    try:
        return events.TYPES[type(events.decode(entry.value))]
    except InvalidEvent:
        return None
