"""Makers of values that are no JSON, or no UTF-8."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.fuzz.log import INVALID, MALFORMED

if TYPE_CHECKING:
    from tests.support.fuzz.log import Fuzz

#: Levels of nesting that nobody reads.
DEEP = 100_000


def reasons_of(value: bytes, *otherwise: str) -> tuple[str, ...]:
    """Say by the standard library alone whether a value is JSON: malformed, or what it is otherwise."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        found = json.loads(value.decode(), parse_int=len, parse_float=len, parse_constant=refuse)
        json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate, wherever it stands, has no UTF-8
    except ValueError:
        return (MALFORMED,)
    return otherwise


def truncated(fuzz: Fuzz) -> None:
    value = fuzz.json(fuzz.event())
    fuzz.bad(value[: fuzz.rng.randrange(len(value))], MALFORMED)


def noise(fuzz: Fuzz) -> None:
    value = fuzz.blob(400)
    fuzz.bad(value, *reasons_of(value, INVALID))


def no_value(fuzz: Fuzz) -> None:
    fuzz.bad(fuzz.rng.choice((None, b"", b" \n")), MALFORMED)


def other_encoding(fuzz: Fuzz) -> None:
    """A byte order mark, UTF-16, UTF-32; Latin-1 in the type, in a member's name, and elsewhere."""
    event = fuzz.event("x") | {"note": "größe \\ \n"}
    event[fuzz.rng.choice(("type", "order_id", "note", "größe"))] = "message.größe"
    encoding = fuzz.rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "latin-1", "latin-1"))
    fuzz.bad(json.dumps(event, ensure_ascii=False).encode(encoding, errors="replace"), MALFORMED)


#: What some decoders take for JSON.
ALMOST = (
    "NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "1e", "-", "0x10", "1_000", "nul", "True", "undefined", "",
    "'a'", '"a', '"\\x41"', '"\\u12"', '"\\v"', '"a\tb"', '"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"',
    '"\\udc00\\ud800"', "[1,]", "[1 2]", "[1", '{"a":1,}', '{"a" 1}', "{1:2}", "{a:1}", '{"a":1', "1 /* one */",
    "1 // one", "\xa01", "\x0b1", '"a" "b"', "1,,", '{"\\ud800": 1}', "\ufeff1",
)  # fmt: skip


def almost_json(fuzz: Fuzz) -> None:
    """In the place of a member that counts, or of one that is ignored."""
    event = fuzz.event() | {"ignored": 0}
    event[fuzz.rng.choice(list(event))] = "@@"
    fuzz.bad(json.dumps(event).replace('"@@"', fuzz.rng.choice(ALMOST)).encode(), MALFORMED)


def trailing(fuzz: Fuzz) -> None:
    value = fuzz.json(fuzz.event())
    fuzz.bad(value + fuzz.rng.choice((b"{}", b"x", b",", b"}", b"\x00", b"\xff", value)), MALFORMED)


def deep(fuzz: Fuzz) -> None:
    """Nested a hundred thousand times, alone or in any member of an event or a control."""
    opening, inner, closing = fuzz.rng.choice(((b"[", b"", b"]"), (b'{"a":', b"1", b"}"), (b'[{"a":', b"1", b"}]")))
    value = opening * DEEP + fuzz.rng.choice((b"", inner + closing * DEEP, b'"' + b'\\"' * 60_000))
    if fuzz.rng.random() < 0.7:
        event = fuzz.rng.choice((fuzz.event(), fuzz.control(0, 0, "x"), {"type": "x"}))
        event[fuzz.rng.choice((*event, "ignored"))] = "@@"
        value = json.dumps(event).encode().replace(b'"@@"', value)
    fuzz.bad(value, MALFORMED)


MAKERS = {
    truncated: 8, noise: 8, no_value: 4, other_encoding: 5, almost_json: 8, trailing: 3, deep: 0.15,
}  # fmt: skip
