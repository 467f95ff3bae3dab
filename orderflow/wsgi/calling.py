"""From a request to its handler and back: what a route declares is checked, and what it raises becomes a problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bottle

from orderflow.errors import InvalidBody, StoreError
from orderflow.wsgi import problems
from orderflow.wsgi.guards import BodyDecoder, require_token
from orderflow.wsgi.parameters import Decoder, NoParameters
from orderflow.wsgi.problems import RETRY_AFTER, Kind, Problem

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from orderflow.wsgi.guards import BodyReader
    from orderflow.wsgi.routes import Body, Route

JSON = "application/json"


class Undeclared(Exception):
    """A route answered what it does not declare. Tests alone see it: see `Call.strict`."""


class Call:
    """The callback of one route."""

    #: Whether an answer that the route does not declare is an error. Tests set it; callers are told the truth.
    strict = False

    def __init__(self, route: Route, settings: Settings, bodies: BodyReader) -> None:
        self._route = route
        self._handler = route.handler
        self._settings = settings
        self._bodies = bodies
        self._parameters = Decoder(route.parameters)
        self._takes_parameters = route.parameters is not NoParameters
        self._body = None if route.body is None else BodyDecoder(route.body)

    def __call__(self, **path: str) -> Body | bottle.HTTPResponse:
        """Answer the request that Bottle has at hand; ``path`` is what the wildcards matched."""
        bottle.response.content_type = JSON
        try:
            body = self._handler(*self._arguments(bottle.request.environ, path))
        except Problem as found:
            problem = found
        except InvalidBody as error:
            fields = {"fields": error.fields} if error.fields else {}
            problem = Problem(Kind(error.reason), error.detail, **fields)
        except StoreError as error:
            problem = Problem(Kind.STORE_UNAVAILABLE, f"{error}.", RETRY_AFTER)
        else:
            if self.strict and bottle.response.status_code not in self._route.answers:
                raise Undeclared(f"{self._route.name} answers {bottle.response.status_code}")
            return body
        if self.strict and problem.kind not in self._route.kinds:
            raise Undeclared(f"{self._route.name} answers {problem.kind}") from problem
        bottle.request.environ.setdefault("orderflow.log", {})["problem"] = problem.kind
        headers = {"Content-Type": problems.MEDIA_TYPE, **problem.headers}
        return bottle.HTTPResponse(problem.body(), problem.status, headers)

    def _arguments(self, environ: dict[str, Any], path: dict[str, str]) -> list[Any]:
        """Check the request, the token first: whoever has none learns nothing of the rest."""
        if self._route.operator:
            require_token(self._settings, environ.get("HTTP_AUTHORIZATION"))
        given = []
        query = environ.get("QUERY_STRING", "")
        if self._takes_parameters:
            given.append(self._parameters.decode(query, path))
        elif query:
            self._parameters.decode(query, path)
        if self._body is not None:
            given.append(self._body.decode(self._bodies.read(environ)))
        return given
