"""Record batches as bytes, written from the format's description alone, and handed to a broker by a socket of our own.

Nothing here knows orderflow's encoder or kafka-python's: what a record holds is up to the test, down to header names
that are no text. `Segment` finds the batches in a partition's log file, so that a test can damage them there.

Format: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import gzip
import socket
import struct
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

import lz4.frame
import snappy
import zstandard
from crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

#: A header's name and value, as bytes.
Header = tuple[bytes, bytes | None]

#: Base offset, length of what follows, leader epoch, format, checksum.
FRONT = struct.Struct(">qiibI")

#: Attributes, last offset's delta, first and last time, producer's id, epoch and sequence, number of records.
_REST = struct.Struct(">hiqqqhii")

#: What a batch has in front of its records.
OVERHEAD = FRONT.size + _REST.size

#: The last version of the request whose fields all have a fixed form; the first that takes zstd.
_PRODUCE, _PRODUCE_VERSION = 0, 7

TIMEOUT_S = 30.0


class Raw(NamedTuple):
    """A record. ``flags`` are its attributes, which nobody uses; ``later_ms`` counts from the batch's first time."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    flags: int = 0
    later_ms: int = 0


def varint(number: int) -> bytes:
    """Write a number as a zigzag varint."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def blob(data: bytes | None) -> bytes:
    """Write bytes behind their length; -1 for none."""
    return varint(-1) if data is None else varint(len(data)) + data


def record(raw: Raw, delta: int) -> bytes:
    """Write a record whose offset is so much behind the batch's first."""
    headers = b"".join(blob(name) + blob(value) for name, value in raw.headers)
    body = b"".join(
        (
            struct.pack("B", raw.flags), varint(raw.later_ms), varint(delta), blob(raw.key), blob(raw.value),
            varint(len(raw.headers)), headers,
        )
    )  # fmt: skip
    return varint(len(body)) + body


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1)


def _gzip_members(data: bytes) -> bytes:
    return gzip.compress(data[: len(data) // 2], 1) + gzip.compress(data[len(data) // 2 :], 9)


def _snappy_blocks(data: bytes) -> bytes:
    """The form of Java's clients: blocks behind a magic word."""
    out = [b"\x82SNAPPY\x00", struct.pack(">ii", 1, 1)]
    for start in range(0, len(data), 32 * 1024):
        block = snappy.compress(data[start : start + 32 * 1024])
        out += (struct.pack(">i", len(block)), block)
    return b"".join(out)


def _lz4(data: bytes) -> bytes:
    return bytes(lz4.frame.compress(data, block_linked=False))


def _lz4_checked(data: bytes) -> bytes:
    return bytes(lz4.frame.compress(data, block_linked=False, content_checksum=True, store_size=False))


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(data)


def _zstd_stream(data: bytes) -> bytes:
    """As a stream: the frame does not tell the size of what is in it."""
    one = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compressobj()
    return one.compress(data) + one.flush()


#: The number of each codec, and the forms that producers write it in.
CODECS: dict[str, tuple[int, tuple[Callable[[bytes], bytes], ...]]] = {
    "none": (0, (bytes,)),
    "gzip": (1, (_gzip, _gzip_members)),
    "snappy": (2, (_snappy_blocks, snappy.compress)),
    "lz4": (3, (_lz4, _lz4_checked)),
    "zstd": (4, (_zstd, _zstd_stream)),
}


def batch(records: Sequence[Raw], codec: str = "none", form: int = 0, first_ms: int = 1_700_000_000_000) -> bytes:
    """Write a batch of records that follow each other without a gap."""
    number, forms = CODECS[codec]
    payload = forms[form % len(forms)](b"".join(record(raw, delta) for delta, raw in enumerate(records)))
    last_ms = first_ms + max(raw.later_ms for raw in records)
    rest = _REST.pack(number, len(records) - 1, first_ms, last_ms, -1, -1, -1, len(records)) + payload
    return sealed(struct.pack(">qi", 0, 0) + struct.pack(">ib", -1, 2) + b"\0\0\0\0" + rest)


def sealed(data: bytes) -> bytes:
    """Give a batch the length and the checksum that fit it."""
    base_offset, _, leader_epoch, form, _ = FRONT.unpack_from(data)
    rest = data[FRONT.size :]
    return FRONT.pack(base_offset, len(data) - 12, leader_epoch, form, crc32c(rest)) + rest


class Refused(Exception):
    """The broker does not take a batch; ``code`` is Kafka's number of the error."""

    def __init__(self, partition: int, code: int) -> None:
        super().__init__(f"the broker refuses a batch for partition {partition}: error {code}")
        self.code = code


class RawSocket:
    """Sends produce requests over a connection of its own, one at a time, and waits for each answer."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self._topic = topic.encode()
        self._number = 0

    @classmethod
    @contextmanager
    def open(cls, bootstrap: str, topic: str) -> Iterator[Self]:
        with closing(cls(bootstrap, topic)) as one:
            yield one

    def close(self) -> None:
        self._socket.close()

    def produce(self, batches: Mapping[int, bytes]) -> dict[int, int]:
        """Send one batch for each partition with acks=all; give the offset of each one's first record.

        Raises:
            Refused: the broker does not take one of them.

        """
        self._number += 1
        request = b"".join(
            (
                struct.pack(">hhi", _PRODUCE, _PRODUCE_VERSION, self._number), _text(b"raw"),
                struct.pack(">h", -1),  # in no transaction
                struct.pack(">hi", -1, round(TIMEOUT_S * 1000)), struct.pack(">i", 1), _text(self._topic),
                struct.pack(">i", len(batches)),
                *(struct.pack(">ii", partition, len(data)) + data for partition, data in batches.items()),
            )
        )  # fmt: skip
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", self._read(4))
        return self._offsets(self._read(length))

    def _offsets(self, answer: bytes) -> dict[int, int]:
        # Correlation, one topic, its name, its partitions: number, error, first offset, two more.
        correlation, _, name_length = struct.unpack_from(">iih", answer)
        assert correlation == self._number
        at = 10 + name_length
        (count,) = struct.unpack_from(">i", answer, at)
        found = [struct.unpack_from(">ihqqq", answer, at + 4 + 30 * index) for index in range(count)]
        for partition, code, *_ in found:
            if code:
                raise Refused(partition, code)
        return {partition: offset for partition, _, offset, *_ in found}

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self._socket.recv(length - len(parts))
            if not part:
                raise ConnectionError("the broker closed the connection")
            parts += part
        return bytes(parts)


def _text(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


class Segment:
    """A partition's log file, with the broker stopped: its batches, each at its first offset."""

    def __init__(self, kafka_data: Path, topic: str, partition: int) -> None:
        (self.path,) = (kafka_data / f"{topic}-{partition}").glob("*.log")
        self._bytes = bytearray(self.path.read_bytes())
        self._at: dict[int, tuple[int, int]] = {}
        at = 0
        while at + OVERHEAD <= len(self._bytes):
            base_offset, length, _, form, _ = FRONT.unpack_from(self._bytes, at)
            if form != 2:  # the zeros that a broker's preallocated file ends with
                break
            self._at[base_offset] = (at, at + 12 + length)
            at += 12 + length

    @property
    def first_offsets(self) -> list[int]:
        return list(self._at)

    def read(self, first_offset: int) -> bytes:
        start, end = self._at[first_offset]
        return bytes(self._bytes[start:end])

    def replace(self, first_offset: int, data: bytes) -> None:
        """Put other bytes in the place of a batch, as many."""
        start, end = self._at[first_offset]
        assert len(data) == end - start, "a batch of another length would tear the log"
        self._bytes[start:end] = data
        with self.path.open("r+b") as file:
            file.seek(start)
            file.write(data)
