"""The rows of orders beside what their histories make."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from orderflow.audit.compare import told
from orderflow.audit.differences import Difference, Findings, Kind, difference
from orderflow.audit.fold import History, Place, cart_hash
from orderflow.audit.keys import PARTITIONS, partition_of
from orderflow.audit.wire import Created, Item, items, read, shipping_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orderflow.audit.partition import Partition
    from orderflow.audit.rows import OrderRow, OrdersCopy


class Left(NamedTuple):
    """What can only be settled when all partitions were compared.

    Rows that name a partition which is not their order's, and orders whose row was looked for elsewhere.
    """

    strays: list[OrderRow]
    found_elsewhere: set[str]


def finish_orders(copy: OrdersCopy, left: Iterable[Left], findings: Findings) -> None:
    """Tell of the rows that no order claims."""
    all_left = list(left)
    claimed = set().union(*(one.found_elsewhere for one in all_left))
    strays = chain.from_iterable(one.strays for one in all_left)
    for row in chain(strays, copy.orders_elsewhere(PARTITIONS)):
        if row.order_id not in claimed:
            findings.add(_invented(row))


def _invented(row: OrderRow) -> Difference:
    place = f"{row.last_epoch}-{row.last_partition}-{row.last_offset}"
    return difference(Kind.ORDER_INVENTED, row.order_id, place, "no order", f"an order, {row.status}")


class OrdersCheck:
    """Compares the orders of a partition. What was found where it does not belong is left."""

    def __init__(self, copy: OrdersCopy, findings: Findings) -> None:
        self.left = Left([], set())
        self._copy = copy
        self._findings = findings

    def check(self, partition: Partition) -> None:
        """Compare the orders of a partition whose histories are complete."""
        orders, left = partition.model.orders, set()
        left = {history.order_id for history in orders.values() if history.made is not None}
        for row in self._copy.orders(partition.number):
            history = orders.get(row.order_id.encode())
            if history is not None and history.made is not None:
                left.discard(row.order_id)
                self._compare(partition, history, history.made, row)
            elif partition_of(row.order_id.encode()) == partition.number:
                self._findings.add(_invented(row))
            else:
                self.left.strays.append(row)
        for order_id in sorted(left):
            self._look_for(partition, orders[order_id.encode()])

    def _look_for(self, partition: Partition, history: History) -> None:
        row, made, latest = self._copy.order(history.order_id), history.made, history.latest
        if made is None or latest is None:
            return
        if row is not None:
            self.left.found_elsewhere.add(row.order_id)
            self._compare(partition, history, made, row)
            return
        place = _place_id(partition.number, latest)
        said = f"an order, {history.status}"
        self._findings.add(difference(Kind.ORDER_MISSING, history.order_id, place, said, "no row of orders"))

    def _compare(self, partition: Partition, history: History, made: Place, row: OrderRow) -> None:
        latest = history.latest or made
        total = row.total_minor
        if (
            row[7:] == (history.status, latest.epoch, partition.number, latest.offset, latest.logged_at)
            and row.shipping_minor == shipping_of(total)
            and cart_hash(row.customer_id, row.order_date, row.currency, _decoded(row.items), total) == made.cart
        ):
            return
        wanted = self._cart(partition.number, made) | {
            "status": history.status,
            "last_epoch": latest.epoch,
            "last_partition": partition.number,
            "last_offset": latest.offset,
            "updated_at": latest.logged_at,
        }
        found = row._asdict() | {"items": _decoded(row.items)}
        changed = [(name, value, found[name]) for name, value in wanted.items() if found[name] != value]
        said = told([(name, _plain(a), _plain(b)) for name, a, b in changed]) if changed else _UNKNOWN
        place = _place_id(partition.number, latest)
        self._findings.add(difference(Kind.ORDER_CHANGED, history.order_id, place, *said))

    def _cart(self, number: int, made: Place) -> dict[str, Any]:
        """Read once more what the create says, which only its hash was kept of."""
        row = self._copy.history_at(made.epoch, number, made.offset)
        event = read(row[4]) if row else None
        if not isinstance(event, Created):
            return {}
        cart = event.order
        return {
            "customer_id": cart.customer_id,
            "order_date": cart.date,
            "currency": cart.currency,
            "items": cart.items,
            "total_minor": cart.total_amount,
            "shipping_minor": shipping_of(cart.total_amount),
        }


#: Where the create itself was changed in history, which is told by itself.
_UNKNOWN = ("what the create on the topic says", "another customer, date, currency, cart or total")


def _decoded(text: bytes) -> tuple[Item, ...] | bytes:
    try:
        return items.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return text


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return ", ".join(f"{one.quantity} × {one.item_id!r} at {one.price / 100:.2f}" for one in value)
    return value


def _place_id(partition: int, place: Place) -> str:
    return f"{place.epoch}-{partition}-{place.offset}"
