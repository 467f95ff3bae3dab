"""What must be written of a record beside what is: each difference between the two, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orderflow.audit.differences import Difference, Kind, difference
from orderflow.audit.verdicts import ACCEPTED
from orderflow.audit.wire import Repaired
from orderflow.records import UnreadableRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.audit.model import Expected
    from orderflow.audit.rows import ControlRow, SkipRow
    from orderflow.audit.verdicts import Judged
    from orderflow.records import Record

#: The columns of a row of history behind its offset; the last two say what it came to.
COLUMNS = ("order_id", "event_id", "type", "payload", "logged_at")
OUTCOME = slice(6, 8)

#: The longest text that is shown of a value.
SHOWN = 200

HistoryRow = tuple[Any, ...]


def compare_history(place: str, expected: Expected, found: HistoryRow | None, *, others: bool) -> Iterator[Difference]:
    """Compare the row of history; ``others``: there are other rows of this record."""
    wanted = expected.history
    order_id = _order_of(expected, found)
    if wanted is None:
        if found is not None:
            yield difference(Kind.HISTORY_INVENTED, order_id, place, "no row of history", _outcome(found))
        return
    if found is None:
        kind = Kind.HISTORY_MISSING if others else Kind.RECORD_PASSED_OVER
        yield difference(kind, order_id, place, _outcome(wanted), "no row of history" if others else "nothing")
        return
    if wanted[OUTCOME] != found[OUTCOME]:
        yield difference(_kind_of(wanted, found), order_id, place, _outcome(wanted), _outcome(found))
    changed = [(name, a, b) for name, a, b in zip(COLUMNS, wanted[1:6], found[1:6], strict=True) if a != b]
    if changed:
        yield difference(Kind.HISTORY_CHANGED, order_id, place, *told(changed))


def _kind_of(wanted: HistoryRow, found: HistoryRow) -> Kind:
    """Name what is wrong with an outcome."""
    if found[6] == "applied":
        return Kind.APPLIED_TWICE if wanted[6] == "duplicate" else Kind.WRONGLY_APPLIED
    if found[6] == "skipped" and wanted[6] != "skipped":
        return Kind.WRONGLY_SKIPPED
    return Kind.OTHER_OUTCOME


def compare_skip(
    place: str, expected: Expected, history: HistoryRow | None, found: SkipRow | None, *, others: bool
) -> Iterator[Difference]:
    """Compare the skipped message. What the row of history shows already is not told twice."""
    wanted = expected.skip
    order_id = _order_of(expected, history)
    outcome = None if history is None else history[6]
    if wanted is None:
        if found is not None and outcome != "skipped":
            yield difference(Kind.SKIP_INVENTED, order_id, place, "no skipped message", _skip(found))
        return
    said = f"{wanted.reason}, {wanted.state}"
    if found is None:
        is_told = expected.history is not None and (
            outcome in ("applied", "duplicate") or (history is None and not others)
        )
        if not is_told:
            yield difference(Kind.SKIP_MISSING, order_id, place, said, "no skipped message")
        return
    pairs = [
        ("reason", wanted.reason, found.reason),
        ("state", wanted.state, found.state),
        ("repairs", wanted.repairs, found.repairs),
        ("placed", int(wanted.order is not None), found.placed),
        ("event_id", wanted.event_id, found.event_id),
        ("opened_by", wanted.opened_by, found.opened_by),
    ]
    if wanted.order is not None:
        pairs.append(("order_id", wanted.order.order_id, found.order_id))
    changed = [(name, a, b) for name, a, b in pairs if a != b]
    if changed:
        yield difference(Kind.SKIP_CHANGED, order_id, place, *told(changed))


def kept_otherwise(place: str, record: Record | UnreadableRecord, found: SkipRow) -> Iterator[Difference]:
    """Compare what is kept of a skipped record with the record: key and value as they came."""
    key, value = (None, None) if isinstance(record, UnreadableRecord) else (record.key, record.value)
    changed = [(name, a, b) for name, a, b in (("key", key, found.key), ("value", value, found.value)) if a != b]
    if changed:
        yield difference(Kind.SKIP_CHANGED, found.order_id, place, *told(changed))


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
    return None if found is None else found[1]


def _outcome(row: HistoryRow) -> str:
    return row[6] if row[7] is None else f"skipped: {row[7]}"


def _skip(row: SkipRow) -> str:
    return f"{row.reason}, {row.state}"
