"""What the records of one partition come to: histories, skips and verdicts. The audit's own model of the consumer.

It is given the records in the sequence of offsets, and says of each what must be written of it. It asks the store one
thing only, which the log cannot say: whether a record met an ``internal_error``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orderflow.audit.fold import History, Place
from orderflow.audit.keys import order_of, partition_of
from orderflow.audit.verdicts import Judge, Judged, Log, Skip
from orderflow.audit.wire import Changed, Created, Damaged, derived_id, read

if TYPE_CHECKING:
    from orderflow.audit.wire import Event, Said
    from orderflow.records import Record

UNREADABLE, INTERNAL = "unreadable_record", "internal_error"

#: The row of history that a record must have: the columns of `orderflow.audit.rows.HISTORY`.
HistoryRow = tuple[int, str | None, str, str, bytes | None, int, str, str | None]


class Expected(NamedTuple):
    """What must be there of a record; None: no such row. ``event_id`` is what it goes by, where it is known."""

    history: HistoryRow | None = None
    skip: Skip | None = None
    control: Judged | None = None
    order: History | None = None
    event_id: str | None = None


class Internal(NamedTuple):
    """What the store says of a record that met an error: whether it has a place, and its id, if it decoded."""

    placed: bool
    event_id: str | None


class Model:
    """One partition in one epoch."""

    def __init__(self, topic_id: str, epoch: int, partition: int) -> None:
        self.topic_id = topic_id
        self.epoch = epoch
        self.partition = partition
        #: By their keys on the wire.
        self.orders: dict[bytes, History] = {}
        #: The (order id, event id) of older epochs that this one has not shown yet, and whether they were applied.
        self.absent: dict[tuple[str, str], bool] = {}
        self.judge = Judge(Log(topic_id, epoch, partition), self.orders, self.absent)

    @property
    def skips(self) -> dict[int, Skip]:
        """All that were skips once, by offset."""
        return self.judge.skips

    def history_of(self, order_id: str) -> History:
        """Give the history of an order of this partition."""
        key = order_id.encode()
        history = self.orders.get(key)
        if history is None:
            history = self.orders[key] = History(order_id)
        return history

    def take(self, record: Record, internal: Internal | None = None) -> Expected:
        """Say what must be written of the next record."""
        said = read(record.value) if record.damage is None else None
        kind = type(said)
        if internal is not None:
            return self._interrupted(record, said, internal)
        if kind is Changed or kind is Created:
            return self._event(record, said)  # type: ignore[arg-type]  # the kind says so
        if said is None:
            return Expected(skip=self.judge.skip(record, UNREADABLE))
        if kind is Damaged:
            return self._damaged(record, said.reason, said.event_id)  # type: ignore[union-attr]
        return self._control(record, said)

    def take_unreadable(self, offset: int) -> Expected:
        """Say what must be written of a record that nobody can read."""
        skip = self.skips[offset] = Skip(offset, UNREADABLE, None, None)
        return Expected(skip=skip)

    # One record.

    def _event(self, record: Record, event: Event) -> Expected:
        order_id, offset, key = event.order_id, record.offset, record.key
        event_id = event.event_id or self._derived(record)
        history = self.orders.get(key) if key is not None else None
        if history is None:
            reason = self._misplaced(key, order_id)
            history = None if reason else self.history_of(order_id)
        else:
            reason = "key_mismatch" if history.order_id != order_id else None
        if reason is not None:
            return self._apart(record, event, event_id, reason)
        assert history is not None  # noqa: S101 (what has no reason to be skipped has a place)
        place = Place(self.epoch, offset, record.logged_at, event_id)
        place.put(event)
        history.add(place)
        history.last_offset = offset
        if self.absent:
            self.absent.pop((order_id, event_id), None)
        outcome = place.outcome
        row = self._row(record, event, order_id, event_id, outcome)
        skip = None
        if outcome not in ("applied", "duplicate"):
            skip = self.judge.skip(record, outcome, event_id, history, place)
        return Expected(row, skip, None, history, event_id)

    def _apart(self, record: Record, event: Event, event_id: str, reason: str) -> Expected:
        """Skip an event that lies in no order's history."""
        skip = self.judge.skip(record, reason, event_id)
        skip.about = event.order_id
        return Expected(self._row(record, event, None, event_id, reason), skip, None, None, event_id)

    def _row(self, record: Record, event: Event, order_id: str | None, event_id: str, outcome: str) -> HistoryRow:
        kind = "order.created" if type(event) is Created else "order.status_changed"
        what = (record.offset, order_id, event_id, kind, record.value, record.logged_at)
        return (*what, outcome, None) if outcome in ("applied", "duplicate") else (*what, "skipped", outcome)

    def _misplaced(self, key: bytes | None, order_id: str) -> str | None:
        if key is None:
            return "missing_key"
        if key != order_id.encode():
            return "key_mismatch"
        return None if partition_of(key) == self.partition else "wrong_partition"

    def _damaged(self, record: Record, reason: str, event_id: str | None) -> Expected:
        """Skip what says nothing; but for controls it has a place where its key is that of an order here."""
        order_id = None if reason == "invalid_control" else order_of(record.key, self.partition)
        if order_id is None:
            return Expected(skip=self.judge.skip(record, reason, event_id))
        return self._aside(record, reason, order_id, event_id)

    def _aside(
        self, record: Record, reason: str, order_id: str, event_id: str | None, event: Event | None = None
    ) -> Expected:
        """Give a record a place in which it does nothing; an event owns its id all the same."""
        history = self.history_of(order_id)
        place = Place(self.epoch, record.offset, record.logged_at, event_id)
        if event is not None:
            place.put(event)
            place.takes_part = False
        place.outcome = reason
        history.add(place)
        history.last_offset = record.offset
        return Expected(None, self.judge.skip(record, reason, event_id, history, place), None, history)

    def _control(self, record: Record, said: Said) -> Expected:
        judged, skip = self.judge.judge(record, said)  # type: ignore[arg-type]  # what is left of the kinds
        return Expected(None, skip, judged, judged.order, judged.control.event_id)

    def _interrupted(self, record: Record, said: Said | None, internal: Internal) -> Expected:
        """Take the store's word that a record met an error, and see what follows."""
        if not isinstance(said, Created | Changed) or internal.event_id is None:
            order_id = order_of(record.key, self.partition) if internal.placed else None
            if order_id is None:
                return Expected(skip=self.judge.skip(record, INTERNAL))
            return self._aside(record, INTERNAL, order_id, None)
        event_id = said.event_id or self._derived(record)
        if self._misplaced(record.key, said.order_id) is not None:
            return self._apart(record, said, event_id, INTERNAL)
        self.absent.pop((said.order_id, event_id), None)
        expected = self._aside(record, INTERNAL, said.order_id, event_id, said)
        row = self._row(record, said, said.order_id, event_id, INTERNAL)
        return expected._replace(history=row, event_id=event_id)

    def _derived(self, record: Record) -> str:
        return derived_id(self.topic_id, self.partition, record.offset, record.key or b"", record.value or b"")
