"""Building the projection in a new file, which takes the place of one that is lost or damaged; that is kept."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from orderflow.broker.log_reader import LogReader, lacks
from orderflow.clock import now_ms
from orderflow.errors import RebuildRefused, StoreError
from orderflow.projection import Projection
from orderflow.rebuild.reading import read_into
from orderflow.rebuild.rebuild import CLIENT_ID, topic_of
from orderflow.store import lost
from orderflow.store.numbering import number_by_time
from orderflow.store.places import current_epoch, positions
from orderflow.store.reader import Reader
from orderflow.store.sqlite import checkpoint, open_writer
from orderflow.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.broker import Topic
    from orderflow.broker.log_reader import Span
    from orderflow.settings import Settings


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
    topic = topic_of(settings)
    try:
        with LogReader(settings, topic, CLIENT_ID) as log:
            held = log.spans()
            if not drop_lost:
                _refuse_to_drop(settings, topic, log, held)
            _build(settings, building, topic, log, held, tell)
        kept = _keep(path)
        _remove(path)  # with its WAL, which SQLite would take for the new file's
        building.rename(path)
    finally:
        _remove(building)
    return kept


def _build(
    settings: Settings,
    path: Path,
    topic: Topic,
    log: LogReader,
    held: dict[int, Span],
    tell: Callable[[int, int], None],
) -> None:
    with closing(open_writer(path, busy_timeout_s=settings.store_busy_timeout_s)) as connection:
        writer = Writer(settings, connection)
        epoch = writer.open_epoch(topic, "built from scratch")
        spans = {number: span for number, span in held.items() if span.end > span.begin}
        total = sum(span.end - span.begin for span in spans.values())
        read_into(writer, Projection(writer, topic.topic_id, epoch), log, spans, lambda done: tell(done, total))
        number_by_time(connection)
        if not checkpoint(connection):  # It is the file alone that gets the name.
            raise RebuildRefused(f"Another process reads {path}, so it cannot be completed; end it, and try again.")


def _refuse_to_drop(settings: Settings, topic: Topic, log: LogReader, held: dict[int, Span]) -> None:
    """Refuse where the old file has events that are nowhere else. One that cannot be read is set aside as it is."""
    reader = Reader(settings)
    try:
        current = current_epoch(reader.query)
        if current is None:
            return
        other = topic.topic_id != current[1] or any(
            lacks(log, number, held[number], position) for number, position in positions(reader.query).items()
        )
        epoch = current[0] + other  # of a log that nobody has read yet
        count = lost.LostEvents(reader, epoch, {number: span.begin for number, span in held.items()}).count()
    except StoreError:
        return
    if count:
        raise RebuildRefused(
            f"{settings.orders_db} has {count} events that are not known to be on the topic any more. Start the "
            "order-consumer, and send them again with `orderflow republish`; to build the file without them say "
            "--drop-lost."
        )


def _keep(path: Path) -> Path | None:
    """Give the old file, and what belongs to it, a second name: killed in between, it is still whole under the first.

    Its WAL comes first, so what has the kept name is whole, too.
    """
    kept = path.with_name(f"{path.name}.set-aside-{now_ms()}")
    for end in ("-wal", ""):
        old, new = Path(f"{path}{end}"), Path(f"{kept}{end}")
        if old.exists():
            try:
                os.link(old, new)
            except OSError:  # A file system that has no second names.
                shutil.copyfile(old, new)
    return kept if kept.exists() else None


def _remove(path: Path) -> None:
    """Remove a file, before what belongs to it: without the file that is nothing, but the file may need it."""
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{end}").unlink(missing_ok=True)
