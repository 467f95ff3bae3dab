"""The validator's messages, in words for people: no patterns, no names of the implementation."""

from __future__ import annotations

import re
from enum import EnumType
from typing import Any, Literal, get_args, get_origin

from orderflow.orders import PRINTABLE

_PATTERN = re.compile(r"Expected `str` matching regex (?P<pattern>'(?:[^'\\]|\\.)*')")
_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_UUID = "^[0-9a-f]{8}"


def split_path(problem: str) -> tuple[str, str]:
    """Part a message from the path at its end: ``[0].price`` and what is wrong there."""
    match = _PATH.search(problem)
    return (match["path"], problem[: match.start()]) if match else ("", problem)


def plain(problem: str) -> str:
    """Put one message in plain words; what is not known here stays as it is."""
    problem = _PATTERN.sub(_expected, problem)
    return problem.replace("`$.", "`").replace("`$`", "the value")


def words_of(kind: Any) -> list[str]:
    """Give the words of a type that is a closed set, in the sequence in which they are declared; else none."""
    if isinstance(kind, EnumType):
        return [str(word) for word in list[object](kind)]
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for inner in get_args(kind) for word in words_of(inner)]


def _expected(match: re.Match[str]) -> str:
    if match["pattern"] == repr(PRINTABLE):
        return "Expected text that is not blank and has no control characters"
    if _UUID in match["pattern"]:
        return "Expected a UUID in lower case"
    return match[0]
