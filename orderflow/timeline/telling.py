"""Telling what became of a record, a control or a row of the outbox: its state, and its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from orderflow import controls, events
from orderflow.controls import Discarded, Verdict
from orderflow.errors import InvalidEvent
from orderflow.events import OrderCreated
from orderflow.timeline.shown import EventShown, step

if TYPE_CHECKING:
    from datetime import datetime

    from orderflow.controls import Control
    from orderflow.events import Event
    from orderflow.store.outbox_rows import Entry
    from orderflow.store.rows import ControlRow, Place, SkippedRow
    from orderflow.timeline.gathering import Gathered
    from orderflow.timeline.shown import EventState, Step, StepWord

#: How a row of the outbox stands, in the words of an event's states. What was delivered is on the topic.
OUTBOX_STATES: dict[str, EventState] = {
    "waiting": "spooled",
    "held": "held",
    "delivered": "published",
    "discarded": "given_up",
}


# Records.


def tell_place(found: Gathered, place: Place, entries: list[Entry]) -> EventShown:
    """Tell of the event at a place. ``entries`` are the rows of the outbox that it had on its way, if any."""
    row, skip = found.history.get(place), found.skips.get(place)
    came = _decoded(row.payload.encode() if skip is None and row is not None else skip and skip.value)
    stands = _decoded(row.payload.encode()) if row is not None else came
    logged_at = row.logged_at if row is not None else skip and skip.logged_at
    trace_id = (row.trace_id if row is not None else None) or (skip and skip.trace_id)
    return {
        "eventId": row.event_id if row is not None else skip and skip.event_id,
        "orderId": (row and row.order_id) or (skip and skip.order_id),
        "kind": "event",
        "type": row.type if row is not None else events.type_of((skip and skip.value) or b""),
        "status": _status(stands),
        "state": _state(found, place),
        "reason": skip.reason if skip is not None and skip.state in ("open", "discarded") else None,
        "detail": skip.detail if skip is not None and skip.state in ("open", "discarded") else None,
        "traceId": trace_id,
        "maybeOnTopic": False,
        "epoch": place[0],
        "partition": place[1],
        "offset": place[2],
        "steps": [
            *_accepted(came, trace_id),
            *(one for entry in entries for one in outbox_steps(entry, read=True)),
            step("published", logged_at, traceId=trace_id, partition=place[1], offset=place[2]),
            *_applied_steps(found, place, trace_id),
        ],
    }


def _state(found: Gathered, place: Place) -> EventState:
    skip = found.skips.get(place)
    if skip is None:
        return cast("EventState", found.history[place].outcome)
    return "skipped" if skip.state == "open" else skip.state


def _applied_steps(found: Gathered, place: Place, trace_id: str | None) -> list[Step]:
    """Tell what the consumer made of a record, then what repairs and discards made of that."""
    skip, at = found.skips.get(place), found.read_at.get(place)
    if skip is None:
        return [step("duplicate" if found.history[place].outcome == "duplicate" else "applied", at, traceId=trace_id)]
    opener = found.openers.get(place)
    if opener is None:
        steps = [_skipped(skip, at)]
    else:  # It was applied, and became a skip by the repair of another.
        by = {"author": opener.author, "eventId": opener.event_id}
        steps = [step("applied", at, traceId=trace_id), _skipped(skip, found.read_at.get(opener[:3]), **by)]
    named = found.controls.get(place, [])
    accepted = [control for control in named if control.verdict == Verdict.ACCEPTED]
    steps += [_control_step(found, control) for control in named if control.verdict != Verdict.DUPLICATE]
    if skip.state == "healed":
        steps.append(step("healed", None, detail="It is applied as it came, since an earlier message was repaired."))
    elif skip.state == "open" and accepted:  # What stands there now is skipped, too.
        steps.append(_skipped(skip, found.read_at.get(accepted[-1][:3])))
    return steps


def _skipped(skip: SkippedRow, at: int | None, **said: str) -> Step:
    return step("skipped", at, traceId=skip.trace_id, reason=skip.reason, detail=skip.detail, **said)


def _control_step(found: Gathered, control: ControlRow) -> Step:
    """Tell what a control did to what it names, or why it did nothing."""
    said = {
        "traceId": control.trace_id, "partition": control.partition, "offset": control.offset,
        "author": control.author, "eventId": control.event_id,
    }  # fmt: skip
    at = found.read_at.get(control[:3])
    if control.verdict != Verdict.ACCEPTED:
        return step("refused", at, reason=control.verdict, detail=control.detail, **said)
    discards = control.type == controls.TYPES[Discarded]
    detail = f"Event {control.successor} was sent in its stead." if control.successor else None
    return step("discarded" if discards else "repaired", at, reason=control.note or None, detail=detail, **said)


# The outbox.


def tell_entry(entry: Entry) -> EventShown:
    """Tell of a row of the outbox that nothing is known of but that."""
    came = _decoded(entry.value) if entry.kind == "event" else _control(entry.value)
    trace_id = entry.trace_id or None
    return {
        "eventId": entry.event_id,
        "orderId": entry.order_id or None,
        "kind": entry.kind,
        "type": events.type_of(entry.value),
        "status": _status(came),
        "state": OUTBOX_STATES[entry.state],
        "reason": None,
        "detail": entry.reason,
        "traceId": trace_id,
        "maybeOnTopic": bool(entry.sent) and entry.state != "delivered",
        "epoch": None,
        "partition": entry.partition,
        "offset": entry.offset,
        "steps": [*_accepted(came, trace_id), *outbox_steps(entry)],
    }


def outbox_steps(entry: Entry, *, read: bool = False) -> list[Step]:
    """Tell the way of a row through the outbox. Once it was read, the record tells of its delivery."""
    trace_id = entry.trace_id or None
    steps = [step("spooled", entry.spooled_at, traceId=trace_id)]
    if entry.state == "delivered" and not read:
        place = {"partition": entry.partition, "offset": entry.offset}
        steps.append(step("delivered", entry.settled_at, traceId=trace_id, **place))
    elif entry.state == "held":
        steps.append(step("held", None, traceId=trace_id, detail=entry.reason))
    elif entry.state == "discarded":
        steps.append(step("given_up", entry.settled_at, traceId=trace_id, author=entry.author, reason=entry.reason))
    return steps


def asked_step(entry: Entry) -> Step:
    """Tell of a control that was asked for and not read yet."""
    control = _control(entry.value)
    word: StepWord = "discard_asked" if isinstance(control, Discarded) else "redrive_asked"
    said = {"author": control.author, "reason": control.reason or None} if control is not None else {}
    return step(word, entry.spooled_at, traceId=entry.trace_id or None, eventId=entry.event_id, **said)


# Controls.


def tell_control(control: ControlRow, read_at: int | None, entries: list[Entry]) -> EventShown:
    """Tell of a control that was read: its verdict, and its way."""
    place = {"partition": control.partition, "offset": control.offset}
    return {
        "eventId": control.event_id,
        "orderId": control.order_id,
        "kind": "control",
        "type": control.type,
        "status": None,
        "state": cast("EventState", control.verdict),
        "reason": None if control.verdict == Verdict.ACCEPTED else control.verdict,
        "detail": control.detail,
        "traceId": control.trace_id,
        "maybeOnTopic": False,
        "epoch": control.epoch,
        "partition": control.partition,
        "offset": control.offset,
        "steps": [
            *(one for entry in entries for one in outbox_steps(entry, read=True)),
            step("published", control.logged_at, traceId=control.trace_id, **place),
            _verdict_step(control, read_at),
        ],
    }


def _verdict_step(control: ControlRow, at: int | None) -> Step:
    said = {"traceId": control.trace_id, "author": control.author, "detail": control.detail}
    if control.verdict == Verdict.ACCEPTED:
        return step("applied", at, reason=control.note or None, **said)
    return step("duplicate" if control.verdict == Verdict.DUPLICATE else "refused", at, reason=control.verdict, **said)


# What a value says.


def _decoded(value: bytes | None) -> Event | None:
    try:
        return events.decode(value)
    except InvalidEvent:
        return None


def _control(value: bytes) -> Control | None:
    try:
        return controls.decode(value)
    except InvalidEvent:
        return None


def _status(event: Event | Control | None) -> str | None:
    if isinstance(event, OrderCreated):
        return event.order.status
    return getattr(event, "status", None)


def _accepted(event: Event | Control | None, trace_id: str | None) -> list[Step]:
    """Tell when the sender says that it happened; of what came over HTTP that is when the request was accepted."""
    occurred_at = None if event is None else event.occurred_at
    return [] if occurred_at is None else [step("accepted", _ms(occurred_at), traceId=trace_id)]


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
