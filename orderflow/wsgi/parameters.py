"""The query's parameters, with an answer that says what is wrong with one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import bottle

from orderflow.wsgi.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection


def required(name: str) -> str:
    """Give a parameter that must be there.

    Raises:
        Problem: 400.

    """
    value: str | None = bottle.request.query.getunicode(name)
    if not value:
        raise Problem(400, "missing-parameter", f"The parameter {name} is required.", fields={name: "is required"})
    return value


def number(name: str, default: int, least: int, most: int) -> int:
    """Give a parameter that is a whole number.

    Raises:
        Problem: 400.

    """
    text: str = bottle.request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):  # noqa: PLR2004 (digits of 2^63)
        _refuse(name, text, f"must be a whole number from {least} to {most}")
    return int(text)


def choice(name: str, default: str, choices: Collection[str]) -> str:
    """Give a parameter that is one of a closed set.

    Raises:
        Problem: 400.

    """
    text: str = bottle.request.query.get(name, default)
    if text not in choices:
        _refuse(name, text, f"must be one of {', '.join(choices)}")
    return text


def point_to_next(path: str, **query: object) -> None:
    """Give the answer a ``Link`` to its next page. What is in the query was checked, so nothing needs quoting."""
    target = "&".join(f"{name}={value}" for name, value in query.items())
    bottle.response.set_header("Link", f'<{path}?{target}>; rel="next"')


def _refuse(name: str, text: str, problem: str) -> NoReturn:
    detail = f"The parameter {name} {problem}, not {text[:50]!r}."
    raise Problem(400, "invalid-parameter", detail, fields={name: problem})
