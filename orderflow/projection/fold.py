"""The fold: what each place of an order's history comes to, and the order that they make.

`settle` takes one step. A plain record needs no more than that, since it is the last of its history; after a repair
`fold` takes all steps anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orderflow import events
from orderflow.events import OrderCreated, SkipReason
from orderflow.orders import Effect, step
from orderflow.store.rows import OrderRow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from orderflow.events import Event
    from orderflow.projection.reads import Outcome
    from orderflow.store.rows import HistoryRow, Place

#: What stands for an event id that a discard took: no event's content is like it.
TAKEN = b""

#: The owner of each (order id, event id): the fingerprint of its content.
Owners = dict[tuple[str, str], bytes]


class Folded(NamedTuple):
    """The rows with what they come to, and the order; None where none comes to be."""

    rows: list[HistoryRow]
    order: OrderRow | None


def settle(event: Event, event_id: str, fingerprint: bytes, known: set[str], owners: Owners) -> Outcome:
    """Say what an event comes to that is the next of its order; ``known`` and ``owners`` are moved on."""
    owner = owners.setdefault((event.order_id, event_id), fingerprint)
    if owner is not fingerprint:
        return ("duplicate", None) if owner == fingerprint else ("skipped", SkipReason.EVENT_ID_CONFLICT)
    effect = step(event.order_id in known, creates=isinstance(event, OrderCreated))
    if effect is Effect.CREATED:
        known.add(event.order_id)
    if effect in (Effect.CREATED, Effect.STATUS_SET):
        return "applied", None
    return "skipped", SkipReason(effect.value)


def fold(
    order_id: str, rows: Sequence[HistoryRow], frozen: Collection[Place], taken: Sequence[tuple[Place, str]]
) -> Folded:
    """Fold one order's history, given in the sequence of places.

    ``frozen`` places take no part, but own their event ids; from each place of ``taken`` on an id is taken.
    """
    known: set[str] = set()
    owners: Owners = {}
    folded: list[HistoryRow] = []
    order: OrderRow | None = None
    left = sorted(taken, key=lambda one: (one[0][0], one[0][2]))
    for row in rows:
        while left and (left[0][0][0], left[0][0][2]) < (row.epoch, row.offset):
            owners.setdefault((order_id, left.pop(0)[1]), TAKEN)
        if row.place in frozen:
            owners.setdefault((order_id, row.event_id), row.fingerprint)
            folded.append(row)
            continue
        event = events.decode_text(row.payload)
        outcome, reason = settle(event, row.event_id, row.fingerprint, known, owners)
        same = (outcome, reason) == (row.outcome, row.reason)
        folded.append(row if same else row._replace(outcome=outcome, reason=reason))
        if outcome == "applied":
            order = _applied(order, event, row)
    return Folded(folded, order)


def _applied(order: OrderRow | None, event: Event, row: HistoryRow) -> OrderRow:
    if isinstance(event, OrderCreated):
        return OrderRow.created(event.order, row.place, row.logged_at)
    assert order is not None, "an update is applied to an order that exists"  # noqa: S101 (what `settle` says)
    return order.with_status(event.status, row.place, row.logged_at)
