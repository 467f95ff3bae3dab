"""One partition: its records beside the rows of the copy, in one pass, and what is left to compare at its end.

A row shows what a record came to in the end, and a repair may come at the partition's end. So what differs is put aside
until all records were seen; the places of orders that a control touched are then looked at once more.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from orderflow.audit.compare import compare_control, compare_history, compare_skip, kept_otherwise
from orderflow.audit.differences import Difference, Findings, Kind, difference
from orderflow.audit.fold import APPLIED, DUPLICATE, Place
from orderflow.audit.model import Expected, Internal, Model
from orderflow.audit.rows import BEYOND, Ordered
from orderflow.audit.verdicts import taken_place
from orderflow.audit.wire import Changed, Created, read
from orderflow.records import UnreadableRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orderflow.audit.fold import History
    from orderflow.audit.rows import EpochRow, OrdersCopy, SkipRow
    from orderflow.records import Record

#: Records between two times of telling how far it is.
TELL_EVERY = 2_048


class Witness(Protocol):
    """Something that speaks of places: ``offset`` is the next one that it speaks of."""

    offset: int

    def see(self, record: Record | UnreadableRecord, expected: Expected) -> None:
        """Compare what is at that offset, or behind it."""


class Last(NamedTuple):
    """The last record that was read, as a position names it; an unreadable one has nothing but its offset."""

    offset: int
    checksum: int | None = None
    event_id: str | None = None


class Partition:
    """Compares one partition of the current life of the log with the copy."""

    def __init__(self, copy: OrdersCopy, life: EpochRow, number: int, findings: Findings) -> None:
        self.copy = copy
        self.number = number
        self.epoch = life.epoch
        self.model = Model(life.topic_id, life.epoch, number)
        self.findings = findings
        self.records = 0
        self.internal = 0
        self.last: Last | None = None
        #: Where the records begin behind which no row of any record is, and how many they are.
        self.unseen_from: int | None = None
        self.unseen = 0
        self._aside: list[tuple[History | None, int, Difference]] = []
        self._history = Ordered(copy.history(self.epoch, number))
        self._skips = Ordered(copy.skips(self.epoch, number))
        self._controls = Ordered(copy.controls(self.epoch, number))

    def place_id(self, offset: int) -> str:
        """Name a place as skipped messages are named."""
        return f"{self.epoch}-{self.number}-{offset}"

    def take_over(self, begin: int) -> None:
        """Take what older lives of the log left, and what lies in front of the beginning of this one."""
        for epoch, offset, order_id, event_id, payload, logged_at, outcome, reason in self.copy.older(
            self.epoch, self.number, begin
        ):
            history = self.model.history_of(order_id)
            if outcome is None:
                history.take_over(taken_place(epoch, offset, event_id))
                continue
            place = Place(epoch, offset, logged_at, event_id)
            event = read(payload)
            if isinstance(event, Created | Changed):
                place.put(event)
            place.owns, place.outcome = True, reason or outcome
            history.take_over(place)
            self.model.absent[order_id, event_id] = outcome == "applied"
        self._pass_over(begin)

    def _pass_over(self, begin: int) -> None:
        """Leave out the rows in front of the log's beginning: there is nothing to compare them with."""
        left_out = 0
        for rows in (self._history, self._skips, self._controls):
            while rows.offset < begin:
                rows.take()
                left_out += 1
        if left_out:
            expected, found = f"records from offset {begin} on", f"{left_out} rows in front of it"
            self.findings.add(difference(Kind.LOG_STARTS_LATE, None, self.place_id(begin), expected, found))

    def run(
        self, records: Iterable[Record | UnreadableRecord], witnesses: list[Witness], tell: Callable[[int], None]
    ) -> None:
        """Go through the records that were applied."""
        history, skips, controls = self._history, self._skips, self._controls
        record, expected = None, Expected()
        for record in records:
            offset = record.offset
            if history.offset < offset or skips.offset < offset or controls.offset < offset:
                self._strays(offset)
            history_row = history.take() if history.offset == offset else None
            skip_row = skips.take() if skips.offset == offset else None
            expected = self._expected(record, skip_row)
            if (
                history_row != expected.history
                or skip_row is not None
                or expected.skip is not None
                or expected.control is not None
                or controls.offset == offset
            ):
                self._compare(record, expected, history_row, skip_row)
            else:
                self.unseen_from = None
            for witness in witnesses:
                if witness.offset <= offset:
                    witness.see(record, expected)
            self.records += 1
            if not self.records % TELL_EVERY:
                tell(TELL_EVERY)
        self._note_last(record, expected)
        tell(self.records % TELL_EVERY)

    def _expected(self, record: Record | UnreadableRecord, skip_row: SkipRow | None) -> Expected:
        if isinstance(record, UnreadableRecord):
            return self.model.take_unreadable(record.offset)
        if skip_row is not None and skip_row.interrupted:
            self.internal += 1
            return self.model.take(record, Internal(bool(skip_row.placed), skip_row.event_id))
        return self.model.take(record)

    def _compare(
        self,
        record: Record | UnreadableRecord,
        expected: Expected,
        history_row: tuple[Any, ...] | None,
        skip_row: SkipRow | None,
    ) -> None:
        control_row = self._controls.take() if self._controls.offset == record.offset else None
        self._note_unseen(record.offset, seen=bool(history_row or skip_row or control_row))
        place, order = self.place_id(record.offset), expected.order
        for found in (
            *compare_history(place, expected, history_row, others=bool(skip_row or control_row)),
            *compare_skip(place, expected, history_row, skip_row, others=bool(history_row or control_row)),
        ):
            self._aside.append((order, record.offset, found))
        if skip_row is not None:
            self._add_all(kept_otherwise(place, record, skip_row))
        self._add_all(compare_control(place, expected.control, control_row))

    def _note_unseen(self, offset: int, *, seen: bool) -> None:
        if seen:
            self.unseen_from = None
        elif self.unseen_from is None:
            self.unseen_from, self.unseen = offset, 1
        else:
            self.unseen += 1

    def _add_all(self, differences: Iterable[Difference]) -> None:
        for one in differences:
            self.findings.add(one)

    def _note_last(self, record: Record | UnreadableRecord | None, expected: Expected) -> None:
        if isinstance(record, UnreadableRecord):
            self.last = Last(record.offset)
        elif record is not None:
            checksum = 0
            for part in (record.key or b"", record.value or b"", b"%d" % record.logged_at):
                checksum = zlib.crc32(part, checksum)
            self.last = Last(record.offset, checksum, expected.event_id)

    def _strays(self, before: int) -> None:
        """Tell of the rows in front of an offset that no record stands for."""
        for table, rows in (
            ("history", self._history),
            ("skipped_messages", self._skips),
            ("controls", self._controls),
        ):
            while rows.offset < before:
                place = self.place_id(rows.offset)
                rows.take()
                self.findings.add(difference(Kind.ROW_WITHOUT_RECORD, None, place, "nothing", f"a row of {table}"))

    # What is left at the end.

    def finish(self, *, passed_over: bool) -> None:
        """Tell what differs for good. ``passed_over``: the records at the end are told of by the position."""
        self._strays(BEYOND)
        unseen_from = self.unseen_from if passed_over and self.unseen_from is not None else BEYOND
        named = self.model.judge.named
        for order, offset, found in self._aside:
            if offset < unseen_from and not (order and order.touched) and offset not in named:
                self.findings.add(found)
        for offset in sorted(named):
            self._look_again(offset, Expected(None, self.model.skips[offset]))
        for order in self.model.orders.values():
            if order.touched:
                for place in order.places:
                    if place.epoch == self.epoch and place.outcome and place.offset < unseen_from:
                        self._look_again(place.offset, self._standing(order, place), place)

    def _standing(self, order: History, place: Place) -> Expected:
        """Give what must be there of a place after all controls. What stands there is compared by its content."""
        skip = self.model.skips.get(place.offset)
        if place.content is None:
            return Expected(None, skip, None, order)
        outcome = (place.outcome, None) if place.outcome in (APPLIED, DUPLICATE) else ("skipped", place.outcome)
        kind = "order.status_changed" if place.cart is None else "order.created"
        row = (place.offset, order.order_id, place.event_id or "", kind, None, place.logged_at, *outcome)
        return Expected(row, skip, None, order)

    def _look_again(self, offset: int, expected: Expected, place: Place | None = None) -> None:
        """Compare the rows at a place with what it came to in the end; without a place the skip alone."""
        skip_row = self.copy.skip_at(self.epoch, self.number, offset)
        row = self.copy.history_at(self.epoch, self.number, offset)
        named = self.place_id(offset)
        if place is not None:
            if row is not None and _says(row[4], place):
                row = (*row[:4], None, *row[5:])
            self._add_all(compare_history(named, expected, row, others=skip_row is not None))
        self._add_all(compare_skip(named, expected, row, skip_row, others=row is not None))


def _says(payload: bytes, place: Place) -> bool:
    """Tell whether a payload is what stands at a place, times apart."""
    event = read(payload)
    if not isinstance(event, Created | Changed):
        return False
    found = Place(place.epoch, place.offset, 0, None)
    found.put(event)
    return (found.content, found.cart) == (place.content, place.cart)
