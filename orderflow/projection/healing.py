"""Applying a control: what a repair puts at a place, and what the order and its other places come to by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow import controls, events
from orderflow.controls import Repaired, Verdict
from orderflow.events import SkipReason
from orderflow.projection.fold import fold
from orderflow.projection.judge import judge
from orderflow.store.rows import Batch, ControlRow, HistoryRow, SkippedRow
from orderflow.tracing import trace_id_of

if TYPE_CHECKING:
    from orderflow.controls import Control
    from orderflow.projection.judge import Judgement
    from orderflow.records import Record
    from orderflow.store.places import Places
    from orderflow.store.rows import OrderRow, Place


def heal(control: Control, record: Record, places: Places, topic_id: str, epoch: int) -> Batch:
    """Turn a control into the rows that it comes to: its own, and those that it changes."""
    judgement = judge(control, record, places, topic_id, epoch)
    batch = Batch()
    taken: str | None = None
    if judgement.verdict is Verdict.ACCEPTED and judgement.skip is not None:
        if isinstance(control, Repaired):
            _repair(batch, control, judgement.skip, record.offset, places)
        else:
            taken = _discard(batch, judgement.skip, places)
    batch.controls.append(_control_row(control, record, epoch, judgement, taken))
    return batch


def _discard(batch: Batch, skip: SkippedRow, places: Places) -> str | None:
    """Give a skip up. Where nothing stands at its place its event id, if it is known, is taken from here on."""
    batch.restated.append(skip._replace(state="discarded"))
    return skip.event_id if skip.placed and places.history_at(skip.place) is None else None


def _repair(batch: Batch, control: Repaired, skip: SkippedRow, offset: int, places: Places) -> None:
    """Put the mended event at the place of the skip, and fold the order anew."""
    order_id = skip.order_id or ""
    before = {row.place: row for row in places.history_of(order_id)}
    skips = places.skips_of(order_id)
    skips[skip.place] = repaired = skip._replace(repairs=skip.repairs + 1)
    standing = before | {skip.place: _mended_row(control, skip)}
    folded = fold(
        order_id,
        [standing[place] for place in sorted(standing, key=lambda place: (place[0], place[2]))],
        _frozen(standing, skips),
        places.taken_by(order_id),
    )
    for row in folded.rows:
        if row != before.get(row.place):
            batch.stands.append(row)
        after = _restated(row, skips.get(row.place), before.get(row.place), offset)
        if after is not None and (after != skips.get(row.place) or after.place == repaired.place):
            batch.restated.append(after)
    batch.refolded[order_id] = folded.order


def refold(places: Places, order_id: str) -> OrderRow | None:
    """Fold one order from its history as it stands."""
    rows = places.history_of(order_id)
    frozen = _frozen({row.place: row for row in rows}, places.skips_of(order_id))
    return fold(order_id, rows, frozen, places.taken_by(order_id)).order


def _mended_row(control: Repaired, skip: SkippedRow) -> HistoryRow:
    event = control.mended()
    return HistoryRow(
        *skip.place, skip.order_id, skip.event_id or control.event_id, events.TYPES[type(event)], control.event_text,
        events.fingerprint(event), skip.logged_at or 0, skip.trace_id, "applied", None,
    )  # fmt: skip


def _frozen(standing: dict[Place, HistoryRow], skips: dict[Place, SkippedRow]) -> set[Place]:
    """Name the places that take no part: what was discarded, and what raised an error that nobody foresaw."""
    discarded = {place for place, skip in skips.items() if skip.state == "discarded"}
    return discarded | {place for place, row in standing.items() if row.reason == SkipReason.INTERNAL_ERROR}


def _restated(row: HistoryRow, skip: SkippedRow | None, before: HistoryRow | None, offset: int) -> SkippedRow | None:
    """Say what the skip at a place has become; None where there is none."""
    if row.outcome != "skipped":
        return skip and skip._replace(state="repaired" if skip.repairs else "healed")
    if skip is not None and (skip.state == "discarded" or skip.reason == row.reason == SkipReason.INTERNAL_ERROR):
        return skip
    reason = SkipReason(row.reason or "")
    if skip is None:
        skip = _row_of_applied(row if before is None else before, reason, offset)
    elif skip.state != "open":
        skip = skip._replace(state="open", opened_by=offset)
    elif skip.reason == reason:
        return skip
    sentence = reason.sentence
    if skip.opened_by == offset:
        sentence += f" It is so since the repair at offset {offset}."
    return skip._replace(reason=reason, detail=sentence)


def _row_of_applied(row: HistoryRow, reason: SkipReason, offset: int) -> SkippedRow:
    """Give the row of a record that was no skip until now. Its headers are not known any more."""
    return SkippedRow(
        *row.place, reason, reason.sentence, (row.order_id or "").encode(), row.payload.encode(), "[]", row.logged_at,
        row.order_id, 1, row.event_id, None, 1, None, row.trace_id, opened_by=offset,
    )  # fmt: skip


def _control_row(
    control: Control, record: Record, epoch: int, judgement: Judgement, taken_event_id: str | None
) -> ControlRow:
    skip = judgement.skip
    order_id = skip.order_id if skip is not None and skip.placed else None
    successor, payload = (None, control.event_text) if isinstance(control, Repaired) else (control.successor, None)
    return ControlRow(
        epoch, record.partition, record.offset, record.key, order_id, control.event_id,
        controls.fingerprint(record.value or b""), controls.TYPES[type(control)], control.offset, control.if_last,
        control.operation, control.author, control.reason, successor, payload, record.logged_at,
        trace_id_of(record.traceparent), judgement.verdict, judgement.detail, taken_event_id,
    )  # fmt: skip
