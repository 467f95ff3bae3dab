"""Record batches as they lie in the log, format v2: written for a produce request, and read record by record.

kafka-python reads a batch from its start and gives up at the first header name that is not UTF-8: good records behind
it are lost with it, and its next ``poll()`` spins. It also decodes every header of every record, which costs more than
the rest of the record. `RecordReader` takes its place in a consumer: framing alone decides where a record ends, headers
stay bytes until somebody asks, and a record with a header name that is not UTF-8 comes with the `damage`, not an error.
`encode_batch` writes what the publisher sends: a quarter of what kafka-python's builder takes, for it is made for
one batch whose records are all known.

Format: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.util import calc_crc32c

from orderflow.headers import NULL, damage, nullable, to_bytes, to_varint, varint
from orderflow.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kafka import KafkaConsumer, TopicPartition
    from kafka.record.default_records import DefaultRecordBatch
    from kafka.record.memory_records import MemoryRecords

    from orderflow.messages import Message

#: Older formats cannot be on a topic that a broker from 4.0 on has.
FORMAT = 2

#: What a batch may hold when it is unpacked. A broker bounds the packed size alone, and 30 KB can hold a gigabyte.
BATCH_MAX_BYTES = 128 * 1024 * 1024

#: In front of the checksum: base offset, length of what follows, leader epoch (the broker's to set), format.
_PREFIX = struct.Struct(">qiib")

#: From the checksum on: attributes, last offset's delta, first and last timestamp, producer's id, epoch and sequence
#: (-1: not idempotent), number of records.
_HEADER = struct.Struct(">hiqqqhii")

_CHECKSUM = struct.Struct(">I")

#: Counted in the length: leader epoch, format and checksum.
_BEHIND_LENGTH = 9


def encode_batch(messages: Sequence[Message], now_ms: int) -> bytes:
    """Write the messages as one batch, uncompressed, all at one time in ms since the epoch."""
    parts: list[bytes] = []
    for delta, message in enumerate(messages):
        key, value = message.key, message.value
        record = b"".join(
            (
                b"\0\0",  # no attributes, no time behind the first
                to_varint(delta),
                NULL if key is None else to_varint(len(key)),
                key or b"",
                NULL if value is None else to_varint(len(value)),
                value or b"",
                to_bytes(message.headers),
            )
        )
        parts += (to_varint(len(record)), record)
    count = len(messages)
    body = _HEADER.pack(0, count - 1, now_ms, now_ms, -1, -1, -1, count) + b"".join(parts)
    return _PREFIX.pack(0, len(body) + _BEHIND_LENGTH, -1, FORMAT) + _CHECKSUM.pack(calc_crc32c(body)) + body


def read_with_our_reader(consumer: KafkaConsumer) -> None:
    """Make a consumer's ``poll()`` give `Record` values, read by `RecordReader`."""
    consumer._fetcher.PartitionRecords = RecordReader  # noqa: SLF001 (it has no setting for it)


class RecordReader(Fetcher.PartitionRecords):
    """What one fetch brought of one partition. `take` of the base class draws from `_unpack_records`."""

    def _unpack_records(self, tp: TopicPartition, records: MemoryRecords, *_: Any) -> Iterator[Record]:
        while (batch := records.next_batch()) is not None:
            if batch.magic != FORMAT:
                raise CorruptRecordError(f"A batch of partition {tp.partition} has the format {batch.magic}.")
            if not batch.validate_crc():
                raise CorruptRecordError(f"The batch at offset {batch.base_offset} of {tp} has a wrong checksum.")
            self.leader_epoch = batch.leader_epoch
            if not batch.is_control_batch:
                for record in _records(batch, tp.partition):
                    self.next_fetch_offset = record.offset + 1
                    yield record
            self.bytes_read += batch.size_in_bytes
            self.next_fetch_offset = batch.next_offset
        self.drain()


def _records(batch: DefaultRecordBatch, partition: int) -> Iterator[Record]:
    """Read the records of one batch.

    Raises:
        CorruptRecordError: their lengths do not fit together.

    """
    batch._maybe_uncompress()  # noqa: SLF001 (the codecs are behind it)
    if len(batch._buffer) > BATCH_MAX_BYTES:  # noqa: SLF001
        raise CorruptRecordError(
            f"The batch at offset {batch.base_offset} has {len(batch._buffer):,} bytes when it is unpacked; "  # noqa: SLF001
            f"{BATCH_MAX_BYTES:,} are read."
        )
    payload, at = bytes(batch._buffer), batch._pos  # noqa: SLF001
    previous, last = -1, batch.last_offset_delta
    first_offset, first_time = batch.base_offset, batch.first_timestamp
    arrived = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
    try:
        for _ in range(batch.records_count):
            length, at = varint(payload, at)
            end = at + length
            later, at = varint(payload, at + 1)  # behind the attributes, which have no use yet
            delta, at = varint(payload, at)
            key, at = nullable(payload, at)
            value, at = nullable(payload, at)
            if not at < end <= len(payload):
                raise CorruptRecordError(f"The record at offset {first_offset + delta} does not fit its length.")
            if not previous < delta <= last:
                raise CorruptRecordError(f"The batch at offset {first_offset} has a record out of place: {delta}.")
            previous = delta
            headers = payload[at:end]
            logged_at = first_time + later if arrived is None else arrived
            yield Record(partition, first_offset + delta, key, value, headers, logged_at, damage(headers))
            at = end
    except (IndexError, ValueError) as error:
        raise CorruptRecordError(f"A record behind offset {first_offset} has no valid structure: {error}") from error
    if at != len(payload):
        raise CorruptRecordError(f"The batch at offset {first_offset} has {len(payload) - at} bytes too many.")
