"""An order as callers know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import msgspec

from orderflow.shapes import CurrencyWord, RawAmount, RawItems, StatusWord, Time

if TYPE_CHECKING:
    from orderflow.store.rows import OrderRow


class OrderShown(TypedDict):
    """An order as it is applied. `shippingCost` is the consumer's."""

    orderId: str
    customerId: str
    orderDate: Time
    items: RawItems
    totalAmount: RawAmount
    shippingCost: RawAmount
    currency: CurrencyWord
    status: StatusWord


def shown(order: OrderRow) -> OrderShown:
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
