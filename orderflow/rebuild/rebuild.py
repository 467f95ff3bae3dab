"""Building the projection anew in a second set of tables, which can be compared before it takes the first one's place.

For a file that is lost or damaged there is `orderflow.rebuild.scratch`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Self

from orderflow import controls
from orderflow.broker.log_reader import LogReader, Span, find_topic, lacks
from orderflow.errors import RebuildRefused
from orderflow.projection import Projection
from orderflow.projection.healing import refold
from orderflow.rebuild.keeping import keep
from orderflow.rebuild.reading import NONE, read_into
from orderflow.records import Position, Record
from orderflow.store.differences import Differences, compare
from orderflow.store.numbering import number_by_time
from orderflow.store.places import positions
from orderflow.store.second_set import PREFIX, SecondSet
from orderflow.store.sqlite import DatabaseError
from orderflow.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.broker import Topic
    from orderflow.settings import Settings

CLIENT_ID = "rebuild"

#: Orders of earlier logs that one transaction folds.
ORDERS_AT_ONCE = 1_000


class Rebuild:
    """A second set of tables, folded from the topic up to where the first one stands; removed unless it is swapped."""

    def __init__(self, settings: Settings, *, keep_lost: bool = True) -> None:
        if not settings.orders_db.exists():
            raise RebuildRefused(
                f"There is no {settings.orders_db}; build it with `orderflow rebuild --from-scratch`, or name the "
                "stack's folder with --stack DIR."
            )
        self._settings = settings
        self._keep_lost = keep_lost
        self._tables = SecondSet.open(settings.orders_db, settings.store_busy_timeout_s)
        self._writer = Writer(settings, self._tables)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(DatabaseError):  # What is left is removed when the file is opened again.
            self._tables.drop()
        self._tables.close()

    def fold(self, tell: Callable[[int, int], None]) -> None:
        """Fold the topic; ``tell`` is told how many records are done, of how many.

        Raises:
            RebuildRefused: the topic is not the one that was applied.
            BrokerError: Kafka does not let it be read.

        """
        current = self._writer.epoch()
        if current is None:
            raise RebuildRefused("Nothing was applied yet, so there is nothing to rebuild; start the order-consumer.")
        epoch, topic_id = current
        topic = topic_of(self._settings)
        if topic.topic_id != topic_id:
            raise RebuildRefused(
                f"The topic {topic.name!r} has id {topic.topic_id}, and {topic_id} was applied; start the "
                "order-consumer, which opens a new epoch for it, and then rebuild."
            )
        with LogReader(self._settings, topic, CLIENT_ID) as log:
            spans = self._spans(log, epoch)
            kept = keep(self._tables, epoch, spans) if self._keep_lost else NONE
            self._refold()
            total = sum(span.end - span.begin for span in spans.values())
            projection = Projection(self._writer, topic_id, epoch)
            read_into(self._writer, projection, log, spans, lambda done: tell(done, total), kept)
        self._tables.first(_TAKE_POSITIONS)
        self._take_progress()
        number_by_time(self._tables)

    def _spans(self, log: LogReader, epoch: int) -> dict[int, Span]:
        """Tell what was applied of each partition, as far as the topic still has it, and make sure that it has it."""
        held = log.spans()
        spans = {}
        for number, position in positions(self._tables.first).items():
            if lacks(log, number, held[number], position) and not self._knows(log, number, position, epoch):
                raise RebuildRefused(
                    f"Partition {number} does not hold what was applied from it up to offset {position.next_offset}: "
                    "the log was cut. Start the order-consumer, which opens a new epoch for it, and then rebuild."
                )
            spans[number] = Span(min(held[number].begin, position.next_offset), position.next_offset)
        return spans

    def _knows(self, log: LogReader, number: int, position: Position, epoch: int) -> bool:
        """Tell whether what stands at the anchor is what was applied there: then the position is wrong, not the log."""
        if position.anchor is None or position.next_offset > log.spans()[number].end:
            return False
        offset = position.anchor.offset
        record = next(log.read(number, offset, offset + 1), None)
        if not isinstance(record, Record):
            return False
        value = record.value or b""
        known = {
            "epoch": epoch, "partition": number, "offset": offset, "logged_at": record.logged_at, "key": record.key,
            "value": record.value, "fingerprint": controls.fingerprint(value),
        }  # fmt: skip
        return bool(self._tables.first(_KNOWN, known).fetchall())

    def _refold(self) -> None:
        """Fold the orders of what was kept; the topic's records follow behind it."""
        ids = self._tables.execute("SELECT DISTINCT order_id FROM history WHERE order_id IS NOT NULL").fetchall()
        for start in range(0, len(ids), ORDERS_AT_ONCE):
            orders = {order_id: refold(self._writer.places, order_id) for (order_id,) in ids[start:][:ORDERS_AT_ONCE]}
            self._writer.write_orders(orders)

    def _take_progress(self) -> None:
        """Keep when each record was applied for the first time: that it was read again says nothing about it."""
        self._tables.execute("DELETE FROM progress")
        self._tables.first(f"INSERT INTO {PREFIX}progress SELECT * FROM progress")  # noqa: S608 (no outside text)

    def differences(self, examples_max: int = 20) -> Differences:
        """Compare the canonical dumps."""
        return compare(self._tables, examples_max)

    def swap(self) -> None:
        """Let the new tables serve reads, from one moment to the next."""
        self._tables.swap()


def topic_of(settings: Settings) -> Topic:
    """Find the topic.

    Raises:
        RebuildRefused: there is none.

    """
    topic = find_topic(settings, CLIENT_ID)
    if topic is None:
        raise RebuildRefused(
            f"There is no topic {settings.topic!r} at {settings.kafka_bootstrap_servers}, so nothing can be built "
            "from it; see `orderflow config`."
        )
    return topic


#: Where nothing was read at the end of a partition, or in all of it, reading goes on from where it did.
_TAKE_POSITIONS = f"""
INSERT OR REPLACE INTO {PREFIX}positions
SELECT old.* FROM positions AS old LEFT JOIN {PREFIX}positions AS new ON new.partition = old.partition
WHERE new.next_offset IS NOT old.next_offset
"""  # noqa: S608 (no outside text)

#: A record is what was applied at its place, whichever of the tables says so. A repair leaves it in the second.
_KNOWN = """
SELECT 1 FROM history
WHERE (epoch, partition, offset, logged_at) = (:epoch, :partition, :offset, :logged_at)
    AND payload = CAST(:value AS TEXT)
UNION ALL
SELECT 1 FROM skipped_messages
WHERE (epoch, partition, offset, logged_at) = (:epoch, :partition, :offset, :logged_at)
    AND key IS :key AND value IS :value
UNION ALL
SELECT 1 FROM controls
WHERE (epoch, partition, offset, logged_at) = (:epoch, :partition, :offset, :logged_at)
    AND fingerprint = :fingerprint
"""
