"""What must be written of a record beside what is: each difference between the two, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from orderflow.audit.differences import Difference, Kind, difference
from orderflow.audit.fold import APPLIED, DUPLICATE
from orderflow.audit.verdicts import ACCEPTED
from orderflow.audit.wire import Repaired
from orderflow.records import UnreadableRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.audit.model import Expected
    from orderflow.audit.rows import ControlRow, SkipRow
    from orderflow.audit.verdicts import Judged, Skip
    from orderflow.records import Record

#: The columns of a row of history between its offset and what it came to.
COLUMNS = ("order_id", "event_id", "type", "payload", "logged_at")

#: The longest text that is shown of a value.
SHOWN = 200

HistoryRow = tuple[Any, ...]


def compare_record(
    place: str, expected: Expected, history: HistoryRow | None, skip: SkipRow | None
) -> Iterator[Difference]:
    """Compare what a record came to; where that is the same, the rows that say so."""
    wanted = _outcome(expected.history, expected.skip)
    found = _outcome(history, skip)
    order_id = _order_of(expected, history)
    if wanted is None and found is not None:
        yield difference(Kind.HISTORY_INVENTED if history else Kind.SKIP_INVENTED, order_id, place, "a control", found)
    elif wanted is not None and found is None:
        yield difference(Kind.RECORD_PASSED_OVER, order_id, place, wanted, "nothing")
    elif wanted is not None and found is not None and wanted != found:
        yield difference(_kind_of(wanted, found), order_id, place, wanted, found)
    else:
        yield from _compare_history(place, order_id, expected.history, history)
        yield from compare_skip(place, order_id, expected.skip, skip)


def _kind_of(wanted: str, found: str) -> Kind:
    """Name what is wrong with an outcome."""
    if found == APPLIED:
        return Kind.APPLIED_TWICE if wanted == DUPLICATE else Kind.WRONGLY_APPLIED
    if wanted in (APPLIED, DUPLICATE) and found != DUPLICATE:
        return Kind.WRONGLY_SKIPPED
    return Kind.OTHER_OUTCOME


def _compare_history(
    place: str, order_id: str | None, wanted: HistoryRow | None, found: HistoryRow | None
) -> Iterator[Difference]:
    if wanted is None or found is None:
        if found is not None:
            yield difference(Kind.HISTORY_INVENTED, order_id, place, "no row of history", "a row of history")
        if wanted is not None:
            yield difference(Kind.HISTORY_MISSING, order_id, place, "a row of history", "no row of history")
        return
    changed = [(name, a, b) for name, a, b in zip(COLUMNS, wanted[1:6], found[1:6], strict=True) if a != b]
    if changed:
        yield difference(Kind.HISTORY_CHANGED, order_id, place, *told(changed))


def compare_skip(place: str, order_id: str | None, wanted: Skip | None, found: SkipRow | None) -> Iterator[Difference]:
    """Compare the skipped message."""
    if wanted is None or found is None:
        if found is not None:
            said = f"{found.reason}, {found.state}"
            yield difference(Kind.SKIP_INVENTED, order_id, place, "no skipped message", said)
        if wanted is not None:
            said = f"{wanted.reason}, {wanted.state}"
            yield difference(Kind.SKIP_MISSING, order_id, place, said, "no skipped message")
        return
    pairs = [
        ("reason", wanted.reason, found.reason),
        ("state", wanted.state, found.state),
        ("repairs", wanted.repairs, found.repairs),
        ("order_id", wanted.about, found.order_id),
        ("placed", int(wanted.order is not None), found.placed),
        ("event_id", wanted.event_id, found.event_id),
        ("opened_by", wanted.opened_by, found.opened_by),
    ]
    changed = [(name, a, b) for name, a, b in pairs if a != b]
    if changed:
        yield difference(Kind.SKIP_CHANGED, order_id, place, *told(changed))


def compare_kept(
    place: str, record: Record | UnreadableRecord, found: SkipRow, *, with_headers: bool
) -> Iterator[Difference]:
    """Compare what is kept of a skipped record with the record."""
    if isinstance(record, UnreadableRecord) or is_bare(found):
        return
    pairs: list[tuple[str, Any, Any]] = [
        ("key", record.key, found.key),
        ("value", record.value, found.value),
        ("logged_at", record.logged_at, found.logged_at),
    ]
    if with_headers:
        pairs.append(("headers", record.headers, _headers_of(found)))
    changed = [(name, a, b) for name, a, b in pairs if a != b]
    if changed:
        yield difference(Kind.SKIP_CHANGED, found.order_id, place, *told(changed))


def is_bare(row: SkipRow) -> bool:
    """Tell whether nothing could be kept of a record but its place: it met an error, or could not be read."""
    could_not = row.interrupted or (row.reason == "unreadable_record" and row.logged_at is None)
    return bool(could_not) and row.key is None and row.value is None


def _headers_of(row: SkipRow) -> list[tuple[str, bytes | None]] | bytes:
    try:
        return _headers.decode(row.headers)
    except msgspec.DecodeError:
        return row.headers


_headers = msgspec.json.Decoder(list[tuple[str, bytes | None]])


def compare_control(place: str, wanted: Judged | None, found: ControlRow | None) -> Iterator[Difference]:
    """Compare the row of a control."""
    if wanted is None:
        if found is not None:
            said = f"{found.type}, {found.verdict}"
            yield difference(Kind.CONTROL_INVENTED, found.order_id, place, "no control", said)
        return
    control = wanted.control
    order_id = wanted.order.order_id if wanted.order else None
    if found is None:
        yield difference(Kind.CONTROL_MISSING, order_id, place, wanted.verdict, "no row")
        return
    kind = "message.repaired" if isinstance(control, Repaired) else "message.discarded"
    pairs = [
        ("verdict", wanted.verdict, found.verdict),
        ("key", wanted.key, found.key),
        ("event_id", control.event_id, found.event_id),
        ("type", kind, found.type),
        ("named_offset", control.offset, found.named_offset),
        ("if_last", control.if_last, found.if_last),
        ("operation", control.operation, found.operation),
        ("author", control.author, found.author),
        ("note", control.reason, found.note),
        ("successor", None if isinstance(control, Repaired) else control.successor, found.successor),
        ("logged_at", wanted.logged_at, found.logged_at),
        ("taken_event_id", wanted.taken_event_id, found.taken_event_id),
    ]
    if wanted.verdict == ACCEPTED:
        pairs.append(("order_id", order_id, found.order_id))
    changed = [(name, a, b) for name, a, b in pairs if a != b]
    if changed:
        yield difference(Kind.CONTROL_CHANGED, order_id, place, *told(changed))


def told(changed: list[tuple[str, Any, Any]]) -> tuple[str, str]:
    """Write both sides of columns that differ."""
    return (
        ", ".join(f"{name} {shown(wanted)}" for name, wanted, _ in changed),
        ", ".join(f"{name} {shown(found)}" for name, _, found in changed),
    )


def shown(value: object) -> str:
    """Write a value, shortened."""
    text = repr(value) if isinstance(value, str | bytes) else "null" if value is None else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _order_of(expected: Expected, found: HistoryRow | None) -> str | None:
    if expected.order is not None:
        return expected.order.order_id
    if expected.skip is not None:
        return expected.skip.about
    return None if found is None else found[1]


def _outcome(row: HistoryRow | None, skip: Skip | SkipRow | None) -> str | None:
    """Say what a record came to: what stands at its place decides, where something does."""
    if row is not None:
        return row[6] if row[7] is None else f"skipped: {row[7]}"
    return None if skip is None else f"skipped: {skip.reason}"
