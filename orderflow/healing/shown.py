"""A skipped message, what was asked for it, and what a wish would do, as people and machines are shown them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, TypedDict

import msgspec
from msgspec import Meta

from orderflow import order_shown
from orderflow.clock import moment
from orderflow.events import SkipReason
from orderflow.order_shown import OrderShown
from orderflow.shapes import RawEvent, Time
from orderflow.store.outbox_rows import State
from orderflow.store.rows import SkipState, place_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.healing.preview import Change
    from orderflow.store.outbox_rows import Entry
    from orderflow.store.rows import ControlRow, HistoryRow, OrderRow, SkippedRow


#: Why something was skipped.
Reason = Annotated[str, Meta(extra_json_schema={"enum": [reason.value for reason in SkipReason]})]


class SkipShown(TypedDict):
    """A message that could not be applied; `id` is its place."""

    id: str
    state: SkipState
    reason: Reason
    sentence: str
    detail: str
    orderId: str | None
    eventId: str | None
    inPlace: bool
    repairs: int
    epoch: int
    partition: int
    offset: int
    loggedAt: Time | None
    traceId: str | None


class HeaderShown(TypedDict):
    """A header of a record."""

    name: str
    value: str | None
    valueBase64: str | None


class SkipWithPayload(SkipShown):
    """A skipped message with all that was kept of it. Bytes are given as text, and in base64, which is exact."""

    key: str | None
    keyBase64: str | None
    payload: str | None
    payloadBase64: str | None
    headers: list[HeaderShown]
    openedBy: int
    exception: str | None
    attempts: int
    trace: str | None


class ControlShown(TypedDict):
    """A repair or a discard that the consumer has read, and what came of it."""

    eventId: str
    type: str
    verdict: str
    detail: str
    author: str
    reason: str | None
    partition: int
    offset: int
    ifLast: int | None
    successor: str | None
    event: RawEvent | None
    loggedAt: Time | None
    traceId: str | None


class UnderWay(TypedDict):
    """A control that was asked for and not read yet."""

    eventId: str
    state: State
    askedAt: Time | None


class SkippedMessage(SkipWithPayload):
    """A skipped message, with all that is known of it."""

    lastOffset: int | None
    controls: list[ControlShown]
    underWay: UnderWay | None


class VerdictShown(TypedDict):
    """What the consumer would say of a control."""

    verdict: str
    detail: str


class ChangeShown(TypedDict):
    """What commands would do to one order."""

    orderId: str | None
    before: OrderShown | None
    after: OrderShown | None
    lastOffset: int | None
    verdicts: list[VerdictShown]
    repaired: list[str]
    heals: list[str]
    discards: list[str]
    remains: list[SkipShown]
    becomesSkipped: list[SkipShown]
    becomesDuplicate: list[str]


def skip_shown(skip: SkippedRow) -> SkipShown:
    """Give a skip without its payload."""
    return {
        "id": place_id(skip.place),
        "state": skip.state,
        "reason": skip.reason,
        "sentence": SkipReason(skip.reason).sentence,
        "detail": skip.detail,
        "orderId": skip.order_id,
        "eventId": skip.event_id,
        "inPlace": bool(skip.placed),
        "repairs": skip.repairs,
        "epoch": skip.epoch,
        "partition": skip.partition,
        "offset": skip.offset,
        "loggedAt": moment(skip.logged_at),
        "traceId": skip.trace_id,
    }


def skip_with_payload(skip: SkippedRow) -> SkipWithPayload:
    """Give a skip with all that was kept of it. Bytes are given as text, and in base64, which is exact."""
    return {
        **skip_shown(skip),
        "key": _text(skip.key),
        "keyBase64": _base64(skip.key),
        "payload": _text(skip.value),
        "payloadBase64": _base64(skip.value),
        "headers": [_header(name, value) for name, value in msgspec.json.decode(skip.headers)],
        "openedBy": skip.opened_by,
        "exception": skip.exception,
        "attempts": skip.attempts,
        "trace": skip.trace,
    }


def control_shown(control: ControlRow) -> ControlShown:
    """Give a control that was read, and what came of it."""
    return {
        "eventId": control.event_id,
        "type": control.type,
        "verdict": control.verdict,
        "detail": control.detail,
        "author": control.author,
        "reason": control.note or None,
        "partition": control.partition,
        "offset": control.offset,
        "ifLast": control.if_last,
        "successor": control.successor,
        "event": None if control.payload is None else msgspec.Raw(control.payload.encode()),
        "loggedAt": moment(control.logged_at),
        "traceId": control.trace_id,
    }


def under_way_shown(entry: Entry) -> UnderWay:
    """Give a control that was asked for and not read yet."""
    return {"eventId": entry.event_id, "state": entry.state, "askedAt": moment(entry.spooled_at)}


def change_shown(change: Change) -> ChangeShown:
    """Give what commands would do to one order."""
    return {
        "orderId": change.order_id,
        "before": _order(change.before),
        "after": _order(change.after),
        "lastOffset": change.last,
        "verdicts": [{"verdict": row.verdict, "detail": row.detail} for row in change.controls],
        "repaired": _ids(change.repaired),
        "heals": _ids(change.healed),
        "discards": _ids(change.discarded),
        "remains": [skip_shown(skip) for skip in change.remaining],
        "becomesSkipped": [skip_shown(skip) for skip in change.turned],
        "becomesDuplicate": _ids(change.duplicates),
    }


def _ids(rows: Sequence[SkippedRow] | Sequence[HistoryRow]) -> list[str]:
    return [place_id(row.place) for row in rows]


def _order(row: OrderRow | None) -> OrderShown | None:
    return None if row is None else order_shown.shown(row)


def _header(name: str, value: str | None) -> HeaderShown:
    raw = None if value is None else base64.b64decode(value)
    return {"name": name, "value": _text(raw), "valueBase64": value}


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="backslashreplace")


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()
