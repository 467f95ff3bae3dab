"""What a request is made of. What cannot be one is refused here, and never sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from orderflow.errors import RequestRefused
from orderflow.idempotency import KEY, KEY_RULE
from orderflow.orders import JSON_ENCODER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orderflow.client.shapes import Item

#: The status of a request that was not sent.
NOT_SENT = 0


def headers_of(key: str | None) -> dict[str, str]:
    """Give the headers of a write.

    Raises:
        RequestRefused: the key is none.

    """
    headers = {"Content-Type": "application/json"}
    if key is not None:
        if not KEY.fullmatch(key):
            said = f"the idempotency_key {key!r} is not valid: give {KEY_RULE}"
            raise RequestRefused(said, NOT_SENT, "invalid-idempotency-key")
        headers["Idempotency-Key"] = key
    return headers


def body_of(body: object) -> bytes:
    """Write a body as JSON, amounts as numbers; ``bytes`` are one already.

    Raises:
        RequestRefused: a text in it is none.

    """
    if isinstance(body, bytes):
        return body
    try:
        return JSON_ENCODER.encode(body)
    except UnicodeEncodeError as error:
        raise _no_text(error) from None


def target(*path: str, **query: str | float | None) -> str:
    """Put a path together of its parts, and a query of what is given.

    Raises:
        RequestRefused: a text in it is none.

    """
    given = {name: value for name, value in query.items() if value is not None}
    try:
        parts = "".join(f"/{quote(part, safe='')}" for part in path)
        return parts + (f"?{urlencode(given, quote_via=quote, safe='')}" if given else "")
    except UnicodeEncodeError as error:
        raise _no_text(error) from None


def create_body(
    order_id: str,
    items_num: int | None,
    items: Sequence[Item | Mapping[str, Any]] | None,
    customer_id: str | None,
    currency: str | None,
) -> dict[str, Any]:
    """Give the body of a create: what is given of it."""
    fields = {"itemsNum": items_num, "items": items, "customerId": customer_id, "currency": currency}
    return {"orderId": order_id} | {name: value for name, value in fields.items() if value is not None}


def update_body(order_id: str, status: str) -> dict[str, Any]:
    """Give the body of an update."""
    return {"orderId": order_id, "status": status}


def _no_text(error: UnicodeEncodeError) -> RequestRefused:
    return RequestRefused(f"{error.object!r} cannot be sent: it holds half a character", NOT_SENT, None)
