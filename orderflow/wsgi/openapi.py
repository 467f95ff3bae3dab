"""The description of a service in OpenAPI 3.1, made of its routes and of the types that validate and answer."""

from __future__ import annotations

import re
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from orderflow.idempotency import KEY
from orderflow.shapes import Schemas
from orderflow.wsgi import problems
from orderflow.wsgi.problems import Kind, ProblemDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.wsgi.routes import Link, Route

JSON = "application/json"
TOKEN = "token"  # noqa: S105 (the scheme's name, and no secret)

_HEADERS: dict[str, dict[str, Any]] = {
    "traceparent": {
        "description": "The request's trace (W3C): the one that came with it, or a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    },
    "Link": {
        "description": "The next page. There is one when this page is full.",
        "schema": {"type": "string", "pattern": '^<[^<>]+>; rel="next"$'},
    },
    "WWW-Authenticate": {"description": "Asks for the token.", "required": True, "schema": {"type": "string"}},
    "Allow": {"description": "The methods that the path takes.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds; where waiting helps.", "schema": {"type": "integer"}},
}
#: Which header an answer of a status has besides the trace.
_HEADER_OF = {401: "WWW-Authenticate", 405: "Allow", 503: "Retry-After", 504: "Retry-After"}
_TRACE = {
    "name": "traceparent",
    "in": "header",
    "description": "The caller's trace (W3C). One that is not valid is left out.",
    "schema": {"type": "string"},
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and body are the same event, however often they are sent.",
    "schema": {"type": "string", "pattern": f"^{KEY.pattern}$"},
}


def document(title: str, routes: Iterable[Route], *, token: bool) -> bytes:
    """Describe a service. ``token``: the operator's is asked for."""
    schemas = Schemas("#/components/schemas/{name}")
    problem = schemas.of(ProblemDocument)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operations = paths.setdefault(re.sub(r"<(\w+)>", r"{\1}", route.path), {})
        operations[route.method.lower()] = _operation(route, schemas, problem, token=token)
    components: dict[str, Any] = {"schemas": dict(sorted(schemas.named.items())), "headers": _HEADERS}
    if token:
        components["securitySchemes"] = {TOKEN: {"type": "http", "scheme": "bearer"}}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": title, "version": version("orderflow"), "description": "See docs/http.md."},
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": components,
        }
    )


def _operation(route: Route, schemas: Schemas, problem: dict[str, Any], *, token: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description or f"{route.summary}.",
        "parameters": _parameters(route, schemas),
        "responses": _responses(route, schemas, problem),
    }
    if route.body is not None:
        schema = schemas.of(route.body)
        content = {"schema": schema, **_examples(schema)}
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    if route.operator and token:
        operation["security"] = [{TOKEN: []}]
    return operation


def _examples(schema: dict[str, Any]) -> dict[str, Any]:
    """Take the examples out of a schema, to where readers look for them."""
    given = schema.pop("examples", [])
    return {"examples": {f"example{number}": {"value": one} for number, one in enumerate(given, 1)}} if given else {}


def _parameters(route: Route, schemas: Schemas) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    own = Schemas("#/components/schemas/{name}")
    own.of(route.parameters)
    properties = own.named.pop(route.parameters.__name__)["properties"]
    schemas.named |= own.named
    for field in msgspec.structs.fields(route.parameters):
        name, schema = field.encode_name, properties[field.encode_name]
        in_path = name in route.in_path
        parameter = {"name": name, "in": "path" if in_path else "query", "required": in_path or field.required}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        parameters.append(parameter | _examples(schema) | {"schema": schema})
    return [*parameters, *([_KEY] if route.idempotent else []), _TRACE]


def _responses(route: Route, schemas: Schemas, problem: dict[str, Any]) -> dict[str, Any]:
    responses: dict[int, dict[str, Any]] = {}
    paged = any(field.encode_name == "cursor" for field in msgspec.structs.fields(route.parameters))
    for status, answer in route.answers.items():
        media_type = answer.partition(";")[0] if isinstance(answer, str) else JSON
        schema = {"type": "string"} if isinstance(answer, str) else schemas.of(answer)
        named = schemas.named.get(schema.get("$ref", "").rpartition("/")[2], schema)
        response = _response(named.get("description", HTTPStatus(status).phrase), "Link" if paged else None)
        response["content"][media_type] = {"schema": schema}
        if route.links:
            response["links"] = {link.to: _link(link) for link in route.links}
        responses[status] = response
    for status in sorted({kind.status for kind in route.kinds}):
        kinds = sorted(kind for kind in route.kinds if kind.status == status)
        said = "\n".join(f"- `{kind.type}`: {kind.meaning}" for kind in kinds)
        response = responses.setdefault(status, _response(said, _HEADER_OF.get(status)))
        response["content"][problems.MEDIA_TYPE] = {"schema": _one_of(problem, status, kinds)}
    return {str(status): responses[status] for status in sorted(responses)}


def _response(description: str, header: str | None) -> dict[str, Any]:
    names = ["traceparent", *([header] if header else [])]
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"description": description, "headers": headers, "content": {}}


def _one_of(problem: dict[str, Any], status: int, kinds: Sequence[Kind]) -> dict[str, Any]:
    told = {"status": {"const": status}, "type": {"enum": [kind.type for kind in kinds]}}
    return {"allOf": [problem, {"properties": told}]}


def _link(link: Link) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": link.to, "parameters": dict(link.parameters)}
    if link.body is not None:
        told["requestBody"] = link.body
    if link.description:
        told["description"] = link.description
    return told
