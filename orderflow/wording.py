"""The validator's messages, in words for people: no patterns, no names of types of the implementation."""

from __future__ import annotations

import re

from orderflow.orders import PRINTABLE, Status

_UUID = "^[0-9a-f]{8}"

_PATTERN = re.compile(r"Expected `str` matching regex (?P<pattern>'(?:[^'\\]|\\.)*')")


def plain(problem: str) -> str:
    """Put one message of msgspec in plain words; what it does not know stays as it is."""
    problem = _PATTERN.sub(_expected, problem)
    if problem.startswith("Invalid enum value"):
        problem = problem.replace("Invalid enum value", "got the value")
        if "status" in problem or "`" not in problem:
            problem += f"; expected one of {', '.join(Status)}"
    return problem.replace("`$.", "`").replace("`$`", "the value")


def _expected(match: re.Match[str]) -> str:
    pattern = match["pattern"]
    if pattern == repr(PRINTABLE):
        return "Expected text that is not blank and has no control characters"
    if _UUID in pattern:
        return "Expected a UUID in lower case"
    return match[0]
