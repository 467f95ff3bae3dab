"""Reading a part of the topic into a projection: the records go the way that the order consumer sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow.projection import Projection, runs
from orderflow.records import Record, UnreadableRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from orderflow.broker.log_reader import LogReader, Span
    from orderflow.store.writer import Writer

#: Records that one transaction applies, at most.
RECORDS_AT_ONCE = 2_000


def read_into(
    writer: Writer, projection: Projection, log: LogReader, spans: dict[int, Span], tell: Callable[[int], None]
) -> None:
    """Apply these spans of the topic, partition by partition; ``tell`` is told how many records were applied.

    Raises:
        BrokerError: Kafka does not let them be read.

    """
    done = 0
    for number, span in sorted(spans.items()):
        for part in _parts(log.read(number, *span)):
            if isinstance(part[0], UnreadableRecord):
                writer.write(projection.skip_unreadable([p for p in part if isinstance(p, UnreadableRecord)], 1).batch)
            else:
                for run in runs([p for p in part if isinstance(p, Record)]):
                    writer.write(projection.project(run).batch)
            done += len(part)
            tell(done)


def _parts(found: Iterable[Record | UnreadableRecord]) -> Iterator[list[Record | UnreadableRecord]]:
    """Cut what is read into parts of one kind, none of them too long."""
    part: list[Record | UnreadableRecord] = []
    for one in found:
        if part and (type(one) is not type(part[0]) or len(part) == RECORDS_AT_ONCE):
            yield part
            part = []
        part.append(one)
    if part:
        yield part
