"""``/openapi.json`` of both services: valid, made of the declared routes, and of the types that validate."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from msgspec import Meta
from openapi_spec_validator import OpenAPIV31SpecValidator

from cart_service.app import Parts, make_service
from order_service.app import make_app
from orderflow.controls import Author
from orderflow.events import EventId
from orderflow.orders import OrderId
from orderflow.settings import Settings
from orderflow.shapes import Schemas, portable_pattern
from tests.unit.test_service import Answer

if TYPE_CHECKING:
    from orderflow.wsgi.service import Service

TOKEN = "s3cret"  # noqa: S105 (a test's)


def made(tmp_path_factory: pytest.TempPathFactory, token: str) -> dict[str, Service]:
    settings = Settings(var_dir=str(tmp_path_factory.mktemp("var")), token=token)
    return {"cart": make_service(settings, Parts.of(settings)), "order": make_app(settings)}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Service]:
    return made(tmp_path_factory, "")


@pytest.fixture(scope="module")
def documents(services: dict[str, Service]) -> dict[str, Any]:
    return {name: Answer(service, "/openapi.json").json for name, service in services.items()}


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }  # fmt: skip


def problems(document: dict[str, Any]) -> list[str]:
    return [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()]


@pytest.mark.parametrize("name", ["cart", "order"])
def test_the_description_is_valid(documents: dict[str, Any], name: str) -> None:
    assert problems(documents[name]) == []


def test_a_description_that_is_not_valid_is_found(documents: dict[str, Any]) -> None:
    broken = documents["cart"] | {"paths": {"/x": {"get": {"parameters": [{"name": "a", "in": "nowhere"}]}}}}

    assert problems(broken)


@pytest.mark.parametrize("name", ["cart", "order"])
def test_every_route_is_described(services: dict[str, Service], documents: dict[str, Any], name: str) -> None:
    described = {
        (method.upper(), path.replace("{", "<").replace("}", ">"))
        for path, methods in documents[name]["paths"].items()
        for method in methods
    }

    assert described == {(route.method, route.rule) for route in services[name].router.routes}


@pytest.mark.parametrize("name", ["cart", "order"])
def test_links_name_operations_and_parameters_that_there_are(documents: dict[str, Any], name: str) -> None:
    known = operations(documents[name])
    links = [
        link
        for operation in known.values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]

    assert links
    for link in links:
        parameters = {parameter["name"] for parameter in known[link["operationId"]]["parameters"]}
        assert set(link["parameters"]) <= parameters, link


def test_the_token_is_described_where_one_is_set(
    documents: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By the routes that ask for it, and by no other."""
    with_token = Answer(made(tmp_path_factory, TOKEN)["order"], "/openapi.json").json

    asking = {name for name, operation in operations(with_token).items() if "security" in operation}
    assert asking == {"redrive", "discard", "acknowledgeAlert"}
    assert TOKEN not in str(with_token)
    assert problems(with_token) == []
    assert "security" not in str(documents["order"])


def test_each_kind_of_problem_is_at_its_status(documents: dict[str, Any]) -> None:
    answers = operations(documents["order"])["orderDetails"]["responses"]

    assert {"200", "400", "403", "404", "405", "409", "500", "503", "504"} == set(answers)
    assert "`/problems/unknown-order`" in answers["404"]["description"]
    assert "Retry-After" in answers["503"]["headers"]
    assert "Allow" in answers["405"]["headers"]


def test_the_description_is_made_once(services: dict[str, Service]) -> None:
    handler = next(route.handler for route in services["order"].routes if route.name == "openapi")

    assert handler() is handler()


# What is described is what is taken.


ITEM = {"itemId": "i", "quantity": 1, "price": 1}


def create(service: Service, body: object) -> int:
    raw = msgspec.json.encode(body)
    sent = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(raw)), "wsgi.input": io.BytesIO(raw)}
    return Answer(service, "/create-order", "POST", **sent).status


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"orderId": "a", "itemsNum": 1}, True),
        ({"orderId": "a", "itemsNum": 1, "items": None}, True),
        ({"orderId": "a", "items": [ITEM]}, True),
        ({"orderId": "a", "items": [ITEM | {"price": 19.99}], "itemsNum": None, "currency": None}, True),
        ({"orderId": "a"}, False),
        ({"orderId": "a", "itemsNum": None}, False),
        ({"orderId": "a", "itemsNum": 1, "items": [ITEM]}, False),
        ({"orderId": "a", "itemsNum": 0}, False),
        ({"orderId": "a", "itemsNum": 1, "more": 1}, False),
        ({"orderId": "a", "items": [ITEM | {"more": 1}]}, False),
        ({"orderId": "a", "items": [ITEM | {"price": 0}]}, False),
        ({"orderId": "a", "items": [ITEM | {"price": 1_000_001}]}, False),
        ({"orderId": "a\n", "itemsNum": 1}, False),
        ({"orderId": " ", "itemsNum": 1}, False),
        ({"orderId": "a" * 129, "itemsNum": 1}, False),
    ],
)
def test_a_body_is_valid_to_the_description_and_to_the_service_alike(
    services: dict[str, Service], documents: dict[str, Any], body: dict[str, object], *, valid: bool
) -> None:
    """The service's threads are not started here, so what is valid is not accepted."""
    schema = operations(documents["cart"])["createOrder"]["requestBody"]["content"]["application/json"]["schema"]
    whole = schema | {"components": documents["cart"]["components"]}

    assert Draft202012Validator(whole).is_valid(body) is valid
    assert create(services["cart"], body) == (503 if valid else 400)


def meta_pattern(kind: Any) -> str:
    (pattern,) = [meta.pattern for meta in kind.__metadata__ if isinstance(meta, Meta)]
    return str(pattern)


@pytest.mark.parametrize("kind", [OrderId, EventId, Author])
@given(text=st.text(st.characters(codec="utf-8") | st.sampled_from("\t\x1f\x85\u00a0\u2028\u3000\ufeff\n -0af")))
@example(text="00000000-0000-0000-0000-000000000000")
@example(text="00000000-0000-0000-0000-000000000000\n")
def test_a_pattern_for_other_readers_means_the_same(kind: Any, text: str) -> None:
    """Its ``$`` is the very end, as ECMA 262 has it; Python writes that ``\\Z``."""
    pattern = meta_pattern(kind)
    portable = portable_pattern(pattern)

    assert "(?" not in portable
    read = portable.removesuffix("$") + r"\Z" if portable.endswith("$") else portable
    assert bool(re.search(read, text)) == bool(re.search(pattern, text))


def test_two_types_of_one_name_are_not_taken_for_each_other() -> None:
    schemas = Schemas("#/{name}")
    schemas.of(msgspec.defstruct("Same", [("a", int)]))

    with pytest.raises(ValueError, match="two types have the name 'Same'"):
        schemas.of(msgspec.defstruct("Same", [("a", Annotated[int, Meta(ge=1)])]))
