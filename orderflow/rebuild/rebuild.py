"""The two ways to build the projection anew.

`Rebuild` folds what was applied into a second set of tables, which can be compared before it takes the place of the
first. `from_scratch` makes a new file, for one that is lost or damaged.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orderflow.broker.log_reader import LogReader, Span, find_topic
from orderflow.clock import now_ms
from orderflow.errors import RebuildRefused, StoreError
from orderflow.projection import Projection
from orderflow.projection.healing import refold
from orderflow.rebuild.reading import read_into
from orderflow.store import lost
from orderflow.store.differences import Differences, compare
from orderflow.store.reader import Reader
from orderflow.store.second_set import SecondSet
from orderflow.store.sqlite import immediate, open_writer
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
        topic = _topic(self._settings)
        if topic.topic_id != topic_id:
            raise RebuildRefused(
                f"The topic {topic.name!r} has id {topic.topic_id}, and {topic_id} was applied; start the "
                "order-consumer, which opens a new epoch for it, and then rebuild."
            )
        with LogReader(self._settings, topic, CLIENT_ID) as log:
            spans = self._spans(log)
            if self._keep_lost:
                self._keep(epoch, spans)
            total = sum(span.end - span.begin for span in spans.values())
            read_into(
                self._writer, Projection(self._writer, topic_id, epoch), log, spans, lambda done: tell(done, total)
            )

    def _spans(self, log: LogReader) -> dict[int, Span]:
        """Tell what was applied of each partition, as far as the topic still has it."""
        held = log.spans()
        spans = {}
        for number, end in self._tables.first("SELECT partition, next_offset FROM positions").fetchall():
            if held[number].end < end:
                raise RebuildRefused(
                    f"Partition {number} ends at offset {held[number].end}, and {end} was applied: the log was cut. "
                    "Start the order-consumer, which opens a new epoch for it, and then rebuild."
                )
            spans[number] = Span(min(held[number].begin, end), end)
        return spans

    def _keep(self, epoch: int, spans: dict[int, Span]) -> None:
        """Keep what the topic does not have any more: it comes first, and its orders are folded from it."""
        with immediate(self._tables):
            for table in ("history", "skipped_messages", "controls"):
                self._tables.first(f"INSERT INTO rebuilt_{table} SELECT * FROM {table} WHERE epoch < ?", (epoch,))  # noqa: S608
                for number, span in spans.items():
                    self._tables.first(
                        f"INSERT INTO rebuilt_{table} SELECT * FROM {table} "  # noqa: S608 (no outside text)
                        "WHERE epoch = ? AND partition = ? AND offset < ?",
                        (epoch, number, span.begin),
                    )
        ids = self._tables.execute("SELECT DISTINCT order_id FROM history WHERE order_id IS NOT NULL").fetchall()
        for start in range(0, len(ids), ORDERS_AT_ONCE):
            orders = {order_id: refold(self._writer.places, order_id) for (order_id,) in ids[start:][:ORDERS_AT_ONCE]}
            self._writer.write_orders(orders)

    def differences(self, examples_max: int = 20) -> Differences:
        """Compare the canonical dumps."""
        return compare(self._tables, examples_max)

    def swap(self) -> None:
        """Let the new tables serve reads, from one moment to the next."""
        self._tables.swap()


def from_scratch(settings: Settings, tell: Callable[[int, int], None], *, drop_lost: bool = False) -> Path | None:
    """Build a new file from all that the topic has, and let it take the place of the old one, which is kept.

    Gives the name under which the old one is kept; None where there was none.

    Raises:
        RebuildRefused: there is no topic, or the old file can be read and has what the topic does not have.
        BrokerError: Kafka does not let it be read.

    """
    path = settings.orders_db
    building = path.with_name(path.name + ".building")
    _remove(building)
    topic = _topic(settings)
    with (
        LogReader(settings, topic, CLIENT_ID) as log,
        closing(open_writer(building, busy_timeout_s=settings.store_busy_timeout_s)) as connection,
    ):
        held = log.spans()
        if not drop_lost:
            _refuse_to_drop(settings, topic, held)
        writer = Writer(settings, connection)
        epoch = writer.open_epoch(topic, "built from scratch")
        spans = {number: span for number, span in held.items() if span.end > span.begin}
        total = sum(span.end - span.begin for span in spans.values())
        read_into(writer, Projection(writer, topic.topic_id, epoch), log, spans, lambda done: tell(done, total))
    kept = _set_aside(path)
    building.rename(path)
    return kept


def _refuse_to_drop(settings: Settings, topic: Topic, held: dict[int, Span]) -> None:
    """Refuse where the old file has events that are nowhere else. One that cannot be read is set aside as it is."""
    reader = Reader(settings)
    try:
        current = lost.epoch(reader)
        if current is None:
            return
        cut = any(one.next_offset > held[number].end for number, one in lost.reached(reader).items())
        epoch = current[0] + (topic.topic_id != current[1] or cut)  # of a log that nobody has read yet
        count = lost.LostEvents(reader, epoch, {number: span.begin for number, span in held.items()}).count()
    except StoreError:
        return
    if count:
        raise RebuildRefused(
            f"{settings.orders_db} has {count} events that are not known to be on the topic any more. Start the "
            "order-consumer, and send them again with `orderflow republish`; to build the file without them say "
            "--drop-lost."
        )


def _topic(settings: Settings) -> Topic:
    topic = find_topic(settings, CLIENT_ID)
    if topic is None:
        raise RebuildRefused(
            f"There is no topic {settings.topic!r} at {settings.kafka_bootstrap_servers}, so nothing can be built "
            "from it; see `orderflow config`."
        )
    return topic


def _set_aside(path: Path) -> Path | None:
    """Rename the old file, and what belongs to it."""
    kept = path.with_name(f"{path.name}.set-aside-{now_ms()}")
    for end in ("", "-wal", "-shm"):
        old = Path(f"{path}{end}")
        if old.exists():
            os.rename(old, f"{kept}{end}")  # noqa: PTH104 (the same for all three)
    return kept if kept.exists() else None


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{end}").unlink(missing_ok=True)
