"""The records of a fuzzed topic as batches of any size and codec, some of them damaged on the way or in the log."""

from __future__ import annotations

import struct
from itertools import groupby
from typing import TYPE_CHECKING

from orderflow.broker import PARTITIONS
from tests.support.fuzz.log import Sent
from tests.support.raw_batches import CODECS, FRONT, RawSocket, Segment, batch, sealed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings
    from tests.support.fuzz.log import Fuzz

#: What a batch of several records may hold; a broker takes 1 MiB.
BATCH_BYTES = 500_000

#: Partition, first offset, records.
Portion = tuple[int, int, list[Sent]]


def portions(fuzz: Fuzz, partition: int) -> Iterator[Portion]:
    """Cut a partition's records into batches of any size; what is damaged together is one."""
    offset = 0
    for damage, group in groupby(fuzz.logs[partition], key=lambda sent: sent.damage):
        left = list(group)
        while left:
            count = len(left) if damage else _fitting(left, fuzz.rng.choice((1, 2, 5, 30, 100, 400)))
            yield partition, offset, left[:count]
            offset += count
            del left[:count]


def _fitting(records: list[Sent], most: int) -> int:
    size = 0
    for count, sent in enumerate(records[:most]):
        size += len(sent.raw.value or b"") + len(sent.raw.key or b"") + 350 * len(sent.raw.headers)
        if size > BATCH_BYTES:
            return max(1, count)
    return min(most, len(records))


def send(fuzz: Fuzz, socket: RawSocket) -> list[tuple[int, int, str]]:
    """Send all records, each request with batches of any of the partitions.

    Gives what is to be damaged in the log: partition, first offset, and how.
    """
    waiting = {partition: list(portions(fuzz, partition))[::-1] for partition in range(PARTITIONS)}
    sent: list[tuple[int, int, str]] = []
    while any(waiting.values()):
        filled = [partition for partition, left in waiting.items() if left]
        chosen = [waiting[one].pop() for one in fuzz.rng.sample(filled, fuzz.rng.randint(1, len(filled)))]
        offsets = socket.produce({partition: encoded(fuzz, records) for partition, _, records in chosen})
        assert offsets == {partition: offset for partition, offset, _ in chosen}
        sent += [(partition, offset, _kind(records)) for partition, offset, records in chosen]
    return [one for one in sent if one[2] in LOG_DAMAGES]


def encoded(fuzz: Fuzz, records: list[Sent]) -> bytes:
    raws = [sent.raw for sent in records]
    kind = _kind(records)
    if kind in WIRE_DAMAGES:
        return WIRE_DAMAGES[kind](raws)
    codec = "none" if kind in ("last record", "codec") else fuzz.rng.choice(list(CODECS))
    return batch(raws, codec, fuzz.rng.randrange(2), fuzz.rng.choice((0, -1, 1_700_000_000_000, 2**50)))


#: Batches that the broker takes and Python's codecs do not: Java's look at less of what is behind the records.
WIRE_DAMAGES = {
    "behind gzip": lambda raws: sealed(batch(raws, "gzip") + b"garbage"),
    "behind snappy": lambda raws: sealed(batch(raws, "snappy") + b"g"),
    "sum of lz4": lambda raws: sealed(batch(raws, "lz4", 1)[:-4] + b"sum?"),
}


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _longer_key(data: bytes) -> bytes:
    """Let the last record's key, of 5 bytes, seem to have 63: it ends behind the batch."""
    at = data.rindex(b"\x0akey-")
    return sealed(data[:at] + b"\x7e" + data[at + 1 :])


#: Batches that are damaged in the log.
LOG_DAMAGES = {
    "payload": _flipped,
    "checksum": lambda data: data[: FRONT.size - 4] + b"sum?" + data[FRONT.size :],
    "codec": lambda data: sealed(data[: FRONT.size] + struct.pack(">h", 13) + data[FRONT.size + 2 :]),
    "last record": _longer_key,
}

DAMAGES = (*WIRE_DAMAGES, *LOG_DAMAGES)


def damage(settings: Settings, partition: int, first_offset: int, kind: str) -> None:
    """Damage a batch in the log, in one of the ways of `LOG_DAMAGES`, with the broker stopped."""
    segment = Segment(settings.var / "kafka" / "data", settings.topic, partition)
    segment.replace(first_offset, LOG_DAMAGES[kind](segment.read(first_offset)))


def _kind(records: list[Sent]) -> str:
    """How a batch is damaged; empty when it is not."""
    return records[0].damage.rpartition(" ")[0]
