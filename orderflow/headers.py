"""A record's headers as bytes, and what they say: most are never asked for, so none is read before. And their varints.

A varint count, then a name and a value each: a zigzag varint length and its bytes, -1 for no value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The headers of a record that has none.
NO_HEADERS = b"\x00"

#: The length -1 of a key or value that is null.
NULL = b"\x01"

Pair = tuple[str, bytes | None]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a zigzag varint; give it, and where the next byte is.

    Raises:
        IndexError: the data end within it.
        ValueError: it is longer than 64 bits.

    """
    byte = data[at]
    at += 1
    if byte < 0x80:  # noqa: PLR2004 (the bit that says that another byte follows)
        return (byte >> 1) ^ -(byte & 1), at
    found, shift = byte & 0x7F, 7
    while shift < 64:  # noqa: PLR2004
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return (found >> 1) ^ -(found & 1), at
        shift += 7
    raise ValueError("A varint is longer than 64 bits.")


def _encode_varint(number: int) -> bytes:
    zigzag, out = number << 1, bytearray()
    while zigzag > 0x7F:  # noqa: PLR2004 (the bit that says that another byte follows)
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


#: Those that nearly every length in a record is: looked up, one costs a tenth of what it takes to make it.
_VARINTS = tuple(_encode_varint(number) for number in range(4096))


def to_varint(number: int) -> bytes:
    """Write a number from 0 on as a zigzag varint."""
    return _VARINTS[number] if number < len(_VARINTS) else _encode_varint(number)


def to_bytes(pairs: Sequence[Pair]) -> bytes:
    """Write headers, their number in front."""
    parts = [to_varint(len(pairs))]
    for name, value in pairs:
        encoded = name.encode()
        if value is None:
            parts += (to_varint(len(encoded)), encoded, NULL)
        else:
            parts += (to_varint(len(encoded)), encoded, to_varint(len(value)), value)
    return b"".join(parts)


def nullable(data: bytes, at: int) -> tuple[bytes | None, int]:
    """Read bytes behind their length; None for the length -1."""
    length, at = varint(data, at)
    return (None, at) if length < 0 else (data[at : at + length], at + length)


def pairs(data: bytes) -> list[Pair]:
    """Give all headers, as far as they can be told apart; what is no UTF-8 in a name is escaped."""
    return [(name.decode(errors="backslashreplace"), value) for name, value in _read(data)]


def first(data: bytes, name: bytes) -> str | None:
    """Give the first header of that name, when its value is ASCII. Cheap for a name that stands in front."""
    value = next((value for given, value in _read(data) if given == name), None)
    return value.decode() if value is not None and value.isascii() else None


def damage(data: bytes) -> str | None:
    """Say which name is not UTF-8; None when all are, as far as headers can be told apart."""
    if data.isascii():  # So is every name, and the usual record costs no more than this look.
        return None
    for name, _ in _read(data):
        try:
            name.decode()
        except UnicodeDecodeError as error:
            return f"A header's name is not UTF-8: {error}."
    return None


def _read(data: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    try:
        count, at = varint(data, 0)
        for _ in range(count):
            name, at = nullable(data, at)
            value, at = nullable(data, at)
            yield name or b"", value
    except (IndexError, ValueError):
        return
