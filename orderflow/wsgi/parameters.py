"""A request's parameters: from the query and the path into one struct, with an answer that says what is wrong."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, quote

import bottle
import msgspec
from msgspec import Meta, inspect

from orderflow.wording import plain, words_of
from orderflow.wsgi.problems import Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The largest number that a row may have.
NUMBER_MAX = 2**63 - 1

Limit = Annotated[int, Meta(ge=1, le=1_000, description="How many a page has at most.")]
#: Of a list that begins with the newest.
Before = Annotated[int, Meta(ge=1, le=NUMBER_MAX, description="From the `Link` header of the page before.")]
#: Of a list that begins with the oldest.
After = Annotated[int, Meta(ge=0, le=NUMBER_MAX, description="From the `Link` header of the page before.")]

#: So much of what was given is shown.
SHOWN_MAX = 50

#: So many that a route does not take are named.
NAMED_MAX = 20


def from_wsgi(given: str) -> str:
    """Read what WSGI hands on as Latin-1 as the UTF-8 that it must be; `ValueError` where it is not."""
    return given if given.isascii() else given.encode("latin-1").decode()


class NoParameters(msgspec.Struct, frozen=True):
    """What a route takes that declares none."""


class Decoder:
    """Reads the parameters that a type declares; what it does not declare, and what is given twice, is refused."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._kind = kind
        self._fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}

    def decode(self, query: str, path: Mapping[str, str]) -> Any:
        """Give the struct. ``query`` is as WSGI has it, ``path`` what the route's wildcards matched.

        Raises:
            Problem: 400; ``fields`` names every parameter that is wrong.

        """
        try:
            pairs = parse_qsl(from_wsgi(query), keep_blank_values=True, errors="strict") if query else []
        except ValueError:
            raise Problem(Kind.INVALID_PARAMETER, "The query is not text in UTF-8.") from None
        given = dict(pairs, **path)
        if len(given) == len(pairs) + len(path) and given.keys() <= self._fields.keys():
            try:
                return msgspec.convert(given, self._kind, strict=False)
            except msgspec.ValidationError:
                pass
        raise self._refusal(given, [name for name, _ in pairs] + list(path))

    def _refusal(self, given: Mapping[str, str], names: list[str]) -> Problem:
        missing: dict[str, str] = {}
        wrong: dict[str, str] = {}
        said: list[str] = []
        for name, field in self._fields.items():
            if not given.get(name) and field.required:
                missing[name] = "is required"
                said.append(f"The parameter {name} is required.")
            elif name in given and (problem := _problem(given[name], field)):
                wrong[name] = problem
                said.append(f"The parameter {name} {problem}, not {given[name][:SHOWN_MAX]!r}.")
        counts = Counter(names)
        strange = [name for name in given if name not in self._fields or counts[name] > 1]
        for name in strange[:NAMED_MAX]:
            shown = name[:SHOWN_MAX]
            wrong[shown] = "is given more than once" if name in self._fields else "is not a parameter of this route"
            said.append(f"The parameter {shown!r} {wrong[shown]}.")
        if len(strange) > NAMED_MAX:
            said.append(f"So it is with {len(strange) - NAMED_MAX} more.")
        return Problem(
            Kind.MISSING_PARAMETER if missing else Kind.INVALID_PARAMETER, " ".join(said), fields=missing | wrong
        )


def _problem(text: str, field: msgspec.structs.FieldInfo) -> str | None:
    """Say what a value must be, where it is not."""
    try:
        msgspec.convert(text, field.type, strict=False)
    except msgspec.ValidationError as error:
        return f"must be {_expected(field.type) or plain(str(error)).removeprefix('Expected ')}"
    return None


def _expected(kind: Any) -> str:
    """Say in words what values a type has; empty where there are no words for it."""
    if words := words_of(kind):
        return f"one of {', '.join(words)}"
    match inspect.type_info(kind):
        case inspect.Metadata(type=inspect.IntType() as number) | (inspect.IntType() as number):
            return f"a whole number from {number.ge} to {number.le}"
        case inspect.Metadata(type=inspect.FloatType() as number) | (inspect.FloatType() as number):
            return f"a number from {number.ge} to {number.le}"
    return ""


def point_to_next(path: str, **query: object) -> None:
    """Give the answer a ``Link`` to its next page; what is None or unset is left out."""
    given = {name: value for name, value in query.items() if value is not None and value is not msgspec.UNSET}
    target = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in given.items())
    bottle.response.set_header("Link", f'<{path}?{target}>; rel="next"')
