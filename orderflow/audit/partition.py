"""One partition: its records beside the rows of the copy, in one pass, and what is left to compare at its end.

A row shows what a record came to in the end, and a repair may come at the partition's end. So what differs is put aside
until all records were seen; the places of orders that a control touched are then looked at once more.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

from orderflow.audit.compare import compare_control, compare_kept, compare_record, compare_skip, is_bare
from orderflow.audit.differences import Difference, Findings, Kind, difference
from orderflow.audit.fold import APPLIED, DUPLICATE, Place
from orderflow.audit.model import Expected, Internal, Model
from orderflow.audit.places import BEYOND, Rows, Written
from orderflow.audit.verdicts import taken_place
from orderflow.audit.wire import Changed, Created, read
from orderflow.records import Record, UnreadableRecord, bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orderflow.audit.fold import History
    from orderflow.audit.rows import EpochRow, OrdersCopy, SkipRow

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
        #: Where the log begins, and how many rows are in front of that.
        self._begin = self._gone = 0
        #: Records that cannot be read any more: what is written of them stands for them.
        self._remembered: set[int] = set()
        self._aside: list[tuple[History | None, int, Difference]] = []
        self._rows = Rows(copy, self.epoch, number)

    def place_id(self, offset: int) -> str:
        """Name a place as skipped messages are named."""
        return f"{self.epoch}-{self.number}-{offset}"

    def take_over(self, begin: int) -> None:
        """Take what older lives of the log left, and what lies in front of the beginning of this one, as they are."""
        older = self.copy.older(self.epoch, self.number, begin)
        for epoch, offset, order_id, event_id, payload, logged_at, outcome, reason in older:
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
            if epoch == self.epoch:
                history.last_offset = offset
            self.model.absent[order_id, event_id] = outcome == APPLIED
        self._gone = sum(1 for _ in self._rows.before(begin))
        self._begin = begin

    def run(
        self, records: Iterable[Record | UnreadableRecord], witnesses: list[Witness], tell: Callable[[int], None]
    ) -> None:
        """Go through the records that were applied."""
        history, skips, controls = self._rows.history, self._rows.skips, self._rows.controls
        record, expected = None, Expected()
        for record in records:
            offset = record.offset
            if history.offset < offset or skips.offset < offset or controls.offset < offset:
                self._strays(offset)
            if history.offset == offset and skips.offset != offset != controls.offset and type(record) is Record:
                expected = self.model.take(record)
                row = history.take()
                if row != expected.history or expected.skip is not None or expected.control is not None:
                    self._compare(record, expected, Written(row))
                else:
                    self.unseen_from = None
            else:
                written = Written(
                    history.take() if history.offset == offset else None,
                    skips.take() if skips.offset == offset else None,
                    controls.take() if controls.offset == offset else None,
                )
                record = self._as_it_was(record, written)  # noqa: PLW2901 (that is what counts from here on)
                expected = self._expected(record, written.skip)
                self._compare(record, expected, written)
            for witness in witnesses:
                if witness.offset <= offset:
                    witness.see(record, expected)
            self.records += 1
            if not self.records % TELL_EVERY:
                tell(TELL_EVERY)
        self._note_last(record, expected)
        tell(self.records % TELL_EVERY)

    def _as_it_was(self, record: Record | UnreadableRecord, written: Written) -> Record | UnreadableRecord:
        """Take what is written of a record for it, where it could be read once, and cannot any more."""
        if isinstance(record, Record) or not written.was_read:
            return record
        said, place = "a record that was read when it was applied", self.place_id(record.offset)
        self.findings.add(difference(Kind.RECORD_UNREADABLE, None, place, said, record.error))
        self._remembered.add(record.offset)
        return written.remembered(record)

    def _expected(self, record: Record | UnreadableRecord, skip_row: SkipRow | None) -> Expected:
        if isinstance(record, UnreadableRecord):
            return self.model.take_unreadable(record.offset)
        if skip_row is not None and skip_row.interrupted:
            self.internal += 1
            kept = bare(record) if is_bare(skip_row) else record
            return self.model.take(kept, Internal(bool(skip_row.placed), skip_row.event_id))
        return self.model.take(record)

    def _compare(self, record: Record | UnreadableRecord, expected: Expected, written: Written) -> None:
        history, skip, control = written
        self._note_unseen(record.offset, seen=any(written))
        if isinstance(record, UnreadableRecord) and record.offset in self._remembered:
            return
        place, order = self.place_id(record.offset), expected.order
        for one in compare_record(place, expected, history, skip):
            self._aside.append((order, record.offset, one))
        if skip is not None:
            with_headers = expected.skip is not None and record.offset not in self._remembered
            self._add_all(compare_kept(place, record, skip, with_headers=with_headers))
        self._add_all(compare_control(place, expected.control, control))

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
        for table, row in self._rows.before(before):
            place = self.place_id(row[0])
            self.findings.add(difference(Kind.ROW_WITHOUT_RECORD, None, place, "nothing", f"a row of {table}"))

    # What is left at the end.

    def finish(self, *, passed_over: bool) -> None:
        """Tell what differs for good. ``passed_over``: the records at the end are told of by the position."""
        self._strays(BEYOND)
        if self._gone and any(self.model.absent.values()):
            said, found = f"records in front of offset {self._begin}", f"{self._gone} rows of them alone"
            self.findings.add(difference(Kind.LOG_STARTS_LATE, None, self.place_id(self._begin), said, found))
        unseen_from = self.unseen_from if passed_over and self.unseen_from is not None else BEYOND
        named = self.model.judge.named
        for order, offset, one in self._aside:
            if offset < unseen_from and not (order and order.touched) and offset not in named:
                self.findings.add(one)
        for offset in sorted(named):
            skip, row = self.model.skips[offset], self.copy.skip_at(self.epoch, self.number, offset)
            self._add_all(compare_skip(self.place_id(offset), skip.about, skip, row))
        for order in self.model.orders.values():
            if order.touched:
                for place in order.places:
                    if place.epoch == self.epoch and place.outcome and place.offset < unseen_from:
                        self._look_again(order, place)

    def _standing(self, order: History, place: Place) -> Expected:
        """Give what must be there of a place after all controls. What stands there is compared by its content."""
        skip = self.model.skips.get(place.offset)
        if place.content is None:
            return Expected(None, skip, None, order)
        outcome = (place.outcome, None) if place.outcome in (APPLIED, DUPLICATE) else ("skipped", place.outcome)
        kind = "order.status_changed" if place.cart is None else "order.created"
        row = (place.offset, order.order_id, place.event_id or "", kind, None, place.logged_at, *outcome)
        return Expected(row, skip, None, order)

    def _look_again(self, order: History, place: Place) -> None:
        """Compare the rows at a place with what it came to in the end."""
        skip = self.copy.skip_at(self.epoch, self.number, place.offset)
        row = self.copy.history_at(self.epoch, self.number, place.offset)
        if row is not None and _says(row[4], place):
            row = (*row[:4], None, *row[5:])
        self._add_all(compare_record(self.place_id(place.offset), self._standing(order, place), row, skip))


def _says(payload: bytes, place: Place) -> bool:
    """Tell whether a payload is what stands at a place, times apart."""
    event = read(payload)
    if not isinstance(event, Created | Changed):
        return False
    found = Place(place.epoch, place.offset, 0, None)
    found.put(event)
    return (found.content, found.cart) == (place.content, place.cart)
