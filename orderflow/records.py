"""What is read from a log: its records, and how far reading has come. Plain values, no client."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import msgspec

from orderflow import headers

TRACEPARENT = b"traceparent"

#: How headers go on behind their number when a trace context is the first: its name, and 55 bytes of value.
_TRACED = headers.to_varint(len(TRACEPARENT)) + TRACEPARENT + headers.to_varint(55)
_TRACE = slice(1 + len(_TRACED), 1 + len(_TRACED) + 55)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the topic, as it is in the log. ``logged_at`` is the broker's clock, in ms since 1970.

    ``header_bytes`` are read only when they are asked for; ``damage`` says what is wrong with them.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    header_bytes: bytes
    logged_at: int
    damage: str | None = None

    @property
    def headers(self) -> list[headers.Pair]:
        """All headers, as far as they can be told apart."""
        return headers.pairs(self.header_bytes)

    def checksum(self) -> int:
        """CRC-32 of key, value and the broker's time, to know this very record again, and no second copy of it."""
        return zlib.crc32(b"%d" % self.logged_at, zlib.crc32(self.value or b"", zlib.crc32(self.key or b"")))

    @property
    def traceparent(self) -> str | None:
        """The trace context that came with it, whatever it is."""
        data = self.header_bytes
        if data.startswith(_TRACED, 1) and data.isascii():  # As cart_service writes them: nothing has to be read.
            return data[_TRACE].decode()
        return headers.first(data, TRACEPARENT)


def bare(record: Record) -> Record:
    """Give a record that has the place of this one, and nothing else of it."""
    return Record(record.partition, record.offset, None, None, headers.NO_HEADERS, record.logged_at)


@dataclass(frozen=True, slots=True)
class Anchor:
    """The last record that was applied from a partition: reading starts by finding it again."""

    offset: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading a partition goes on. The anchor is missing after an unreadable record."""

    next_offset: int
    anchor: Anchor | None = None

    @property
    def start(self) -> int:
        """Where to seek to."""
        return self.next_offset if self.anchor is None else self.anchor.offset


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record of a batch that cannot be read."""

    partition: int
    offset: int
    error: str
