"""Routes as data: what a route takes, answers and refuses is declared once, for the validation and for OpenAPI."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from orderflow.wsgi.parameters import NoParameters
from orderflow.wsgi.problems import Kind

_WILDCARD = re.compile(r"<(\w+)>")

#: What a handler gives: the body at once, or piece by piece.
Body = bytes | Iterator[bytes]

#: What any route may answer.
OF_EVERY_ROUTE = frozenset(
    {
        Kind.BAD_REQUEST,
        Kind.INVALID_PARAMETER,
        Kind.FOREIGN_HOST,
        Kind.FOREIGN_ORIGIN,
        Kind.METHOD_NOT_ALLOWED,
        Kind.INTERNAL_ERROR,
    }
)
#: What a route may answer that takes a body.
OF_A_BODY = frozenset(
    {Kind.MALFORMED_JSON, Kind.INVALID_BODY, Kind.BODY_TOO_LARGE, Kind.JSON_REQUIRED, Kind.TOO_MANY_BODIES}
)


@dataclass(frozen=True)
class Link:
    """What may be asked next, and where its parameters are found in the answer, as OpenAPI writes it."""

    #: The route's name.
    to: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route.

    The handler is called with what is declared and nothing else: the struct of the parameters, where the route has
    some, then the decoded body, where it takes one. It gives the answer's body, or raises one of the problems.
    """

    method: str = "GET"
    #: As Bottle has it: ``/alerts/<id>/acknowledge``.
    path: str
    handler: Callable[..., Body]
    #: OpenAPI's operationId.
    name: str
    tag: str
    summary: str
    description: str = ""
    #: The parameters of path and query.
    parameters: type[msgspec.Struct] = NoParameters
    #: The type of the JSON body.
    body: Any = None
    #: Status -> the type of the JSON body, or the media type of another one.
    answers: Mapping[int, Any]
    #: What it may answer besides what every route of its kind may.
    problems: tuple[Kind, ...] = ()
    #: Whether the operator's token is asked for, where one is set.
    operator: bool = False
    #: Whether it takes an ``Idempotency-Key``.
    idempotent: bool = False
    links: tuple[Link, ...] = ()

    @property
    def in_path(self) -> frozenset[str]:
        """The parameters that stand in the path."""
        return frozenset(_WILDCARD.findall(self.path))

    @property
    def kinds(self) -> frozenset[Kind]:
        """Every problem that it may answer."""
        kinds = OF_EVERY_ROUTE.union(self.problems)
        if self.in_path:  # A slash in it makes it another path.
            kinds |= {Kind.NO_SUCH_ROUTE}
        if any(one.required and one.encode_name not in self.in_path for one in msgspec.structs.fields(self.parameters)):
            kinds |= {Kind.MISSING_PARAMETER}
        if self.operator:
            kinds |= {Kind.TOKEN_REQUIRED}
        return kinds if self.body is None else kinds | OF_A_BODY
