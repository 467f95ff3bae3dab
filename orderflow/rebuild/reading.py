"""Reading a part of the topic into a projection: the records go the way that the order consumer sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow.projection import Projection, runs
from orderflow.records import Record, UnreadableRecord
from orderflow.store.sqlite import is_damage, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from orderflow.broker.log_reader import LogReader, Span
    from orderflow.store.writer import Writer

#: Records that one transaction applies, at most, and bytes of their values, more or less.
RECORDS_AT_ONCE = 2_000
BYTES_AT_ONCE = 16 * 1024 * 1024

#: No place is left out.
NONE: Mapping[int, Collection[int]] = {}


def read_into(
    writer: Writer,
    projection: Projection,
    log: LogReader,
    spans: dict[int, Span],
    tell: Callable[[int], None],
    left_out: Mapping[int, Collection[int]] = NONE,
) -> None:
    """Apply these spans of the topic, partition by partition; ``tell`` is told how many records were applied.

    ``left_out`` are offsets by partition.

    Raises:
        BrokerError: Kafka does not let them be read.

    """
    done = 0
    for number, span in sorted(spans.items()):
        without = left_out.get(number, ())
        for part in _parts(one for one in log.read(number, *span) if one.offset not in without):
            if isinstance(part[0], UnreadableRecord):
                writer.write(projection.skip_unreadable([p for p in part if isinstance(p, UnreadableRecord)], 1).batch)
            else:
                for run in runs([p for p in part if isinstance(p, Record)]):
                    _apply(writer, projection, run)
            done += len(part)
            tell(done)


def _apply(writer: Writer, projection: Projection, run: Sequence[Record]) -> None:
    """Apply one run; as in the consumer, an error that nobody foresaw costs only the record that raises it."""
    try:
        writer.write(projection.project(run).batch)
    except Exception as error:
        if is_damage(error) or is_transient(error):
            raise
        if len(run) == 1:
            _skip(writer, projection, run[0], error)
            return
        for record in run:
            _apply(writer, projection, [record])


def _skip(writer: Writer, projection: Projection, record: Record, error: Exception) -> None:
    """Skip a record with its trace; where even that fails, keep its place alone."""
    try:
        writer.write(projection.skip_unforeseen(record, error).batch)
    except Exception as worse:
        if is_damage(worse) or is_transient(worse):
            raise
        writer.write(projection.skip_bare(record, worse).batch)


def _parts(found: Iterable[Record | UnreadableRecord]) -> Iterator[list[Record | UnreadableRecord]]:
    """Cut what is read into parts of one kind, none of them too long."""
    part: list[Record | UnreadableRecord] = []
    size = 0
    for one in found:
        if part and (type(one) is not type(part[0]) or len(part) == RECORDS_AT_ONCE or size >= BYTES_AT_ONCE):
            yield part
            part, size = [], 0
        part.append(one)
        size += len(one.value or b"") + len(one.header_bytes) if isinstance(one, Record) else 0
    if part:
        yield part
