"""Keys of records: whose they are, and which partition they lead to."""

from __future__ import annotations

import struct

from orderflow.audit.wire import is_name

#: Fixed for good: an order's history lies on the partition of its key.
PARTITIONS = 6

_SEED, _M, _MASK = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF


def partition_of(key: bytes) -> int:
    """Tell the partition of a key: murmur2 without the sign bit, as Kafka's clients have it."""
    length = len(key)
    words = length // 4
    h = _SEED ^ length
    for k in struct.unpack_from(f"<{words}I", key):
        k = k * _M & _MASK  # noqa: PLW2901 (the algorithm's own way)
        k = (k ^ k >> 24) * _M & _MASK  # noqa: PLW2901
        h = (h * _M & _MASK) ^ k
    if rest := key[words * 4 :]:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return ((h ^ h >> 15) & 0x7FFFFFFF) % PARTITIONS


def order_of(key: bytes | None, partition: int) -> str | None:
    """Name the order that a key on this partition stands for; None where it stands for none."""
    if key is None or partition_of(key) != partition:
        return None
    try:
        name = key.decode()
    except UnicodeDecodeError:
        return None
    return name if is_name(name) else None
