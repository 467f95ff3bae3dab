"""Judging a control: may what it asks for be done? The rules: docs/adr/0013-repairs-on-the-topic.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orderflow import controls
from orderflow.controls import Repaired, Verdict

if TYPE_CHECKING:
    from orderflow.controls import Control
    from orderflow.records import Record
    from orderflow.store.places import Places
    from orderflow.store.rows import Place, SkippedRow


class Judgement(NamedTuple):
    """The verdict, its sentence, and the skip that is named, where there is one."""

    verdict: Verdict
    detail: str
    skip: SkippedRow | None = None


def judge(control: Control, record: Record, places: Places, topic_id: str, epoch: int) -> Judgement:
    """Say what becomes of a control; the first rule that holds decides."""
    return (
        _second_copy(control, record, places, epoch)
        or _misaddressed(control, record, places, topic_id, epoch)
        or _too_late(control, places, epoch)
    )


def _second_copy(control: Control, record: Record, places: Places, epoch: int) -> Judgement | None:
    first = places.first_control(epoch, record.partition, record.key, control.event_id)
    if first is None:
        return None
    if first.fingerprint == controls.fingerprint(record.value or b""):
        return Judgement(Verdict.DUPLICATE, f"The same control was read at offset {first.offset}.")
    return _invalid(f"Another control at offset {first.offset} has the same id.")


def _misaddressed(control: Control, record: Record, places: Places, topic_id: str, epoch: int) -> Judgement | None:
    if control.topic_id != topic_id:
        return _invalid(f"It names a record of the topic id {control.topic_id!r}, and this log has {topic_id!r}.")
    if control.partition != record.partition:
        return _invalid(f"It names partition {control.partition}, and lies on partition {record.partition}.")
    if control.offset >= record.offset:
        return _invalid(f"It names offset {control.offset}, which is not before its own, {record.offset}.")
    found, key = _key_at(places, (epoch, control.partition, control.offset))
    if not found:
        return _invalid(f"There is no record at offset {control.offset}.")
    return _of_another(control, record, key)


def _of_another(control: Control, record: Record, key: bytes | None) -> Judgement | None:
    if key != record.key:
        return _invalid("Its key is not that of the record it names.")
    if isinstance(control, Repaired) and control.mended().order_id.encode() != record.key:
        return _invalid("The mended event is of another order than the control's key says.")
    return None


def _key_at(places: Places, place: Place) -> tuple[bool, bytes | None]:
    """Tell whether there is a record at a place, and its key."""
    skip = places.skip_at(place)
    if skip is not None:
        return True, skip.key
    row = places.history_at(place)
    if row is not None:
        return True, None if row.order_id is None else row.order_id.encode()
    control = places.control_at(place)
    return control is not None, None if control is None else control.key


def _too_late(control: Control, places: Places, epoch: int) -> Judgement:
    skip = places.skip_at((epoch, control.partition, control.offset))
    if skip is None:
        return Judgement(Verdict.SUPERSEDED, "What it names was not skipped.")
    if skip.state != "open":
        return Judgement(Verdict.SUPERSEDED, f"What it names is not open any more, it is {skip.state}.", skip)
    if isinstance(control, Repaired) and not skip.placed:
        return _invalid("What it names lies in no order's history, so it cannot be repaired in its place.")
    if control.if_last is not None and skip.placed:
        last = places.last_offset(epoch, skip.order_id or "", control.operation)
        if last != control.if_last:
            sentence = f"The order moved on: its last record is at offset {last}, and {control.if_last} was seen."
            return Judgement(Verdict.STALE, sentence, skip)
    return Judgement(Verdict.ACCEPTED, "It takes effect.", skip)


def _invalid(detail: str) -> Judgement:
    return Judgement(Verdict.INVALID_CONTROL, detail)
