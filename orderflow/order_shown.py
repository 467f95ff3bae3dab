"""An order as callers know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from orderflow.store.rows import OrderRow


def shown(order: OrderRow) -> dict[str, Any]:
    """Give an order's members. Amounts go out as they are: two places."""
    return {
        "orderId": order.order_id,
        "customerId": order.customer_id,
        "orderDate": order.order_date,
        "items": msgspec.Raw(order.items.encode()),
        "totalAmount": _amount(order.total_minor),
        "shippingCost": _amount(order.shipping_minor),
        "currency": order.currency,
        "status": order.status,
    }


def _amount(minor: int) -> msgspec.Raw:
    return msgspec.Raw(b"%d.%02d" % divmod(minor, 100))
