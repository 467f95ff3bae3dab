"""An order's history, and what its places come to: the audit's own fold.

A place that a record takes is settled once, since it is the last of its history; an accepted control has the places of
this epoch settled anew. What older epochs left is taken as it is, in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow.audit.wire import Created

if TYPE_CHECKING:
    from orderflow.audit.wire import Event

APPLIED, DUPLICATE = "applied", "duplicate"

#: The status of an order that nothing has changed yet.
NEW = "new"

#: From so many places on, the owners of event ids are looked up in a dict; a list of few is smaller, and as quick.
MANY = 16


class Place:
    """A place in an order's history, and what it comes to: ``applied``, ``duplicate``, or the reason of a skip.

    ``content`` is what stands there, times apart: a status, or a hash of what a create says; None where nothing stands.
    ``cart`` is a hash of all that a create says. ``owns``: it owns its event id, unless an earlier place does;
    ``takes_part``: it does something to the order.
    """

    __slots__ = ("cart", "content", "epoch", "event_id", "logged_at", "offset", "outcome", "owns", "takes_part")

    def __init__(self, epoch: int, offset: int, logged_at: int, event_id: str | None) -> None:
        self.epoch = epoch
        self.offset = offset
        self.logged_at = logged_at
        self.event_id = event_id
        self.content: str | int | None = None
        self.cart: int | None = None
        self.outcome = ""
        self.owns = self.takes_part = False

    def put(self, event: Event) -> None:
        """Let an event stand here."""
        self.owns = self.takes_part = True
        if type(event) is Created:
            cart = event.order
            self.content = hash((cart.customer_id, cart.items, cart.total_amount, cart.currency))
            self.cart = cart_hash(cart.customer_id, cart.date, cart.currency, cart.items, cart.total_amount)
        else:
            self.content, self.cart = event.status, None  # type: ignore[union-attr]  # the other of two


def cart_hash(*said: object) -> int:
    """Hash what a create says, to compare it with an order's row."""
    return hash(said)


class History:
    """All places of one order, and the order they make: who made it, and who changed it last."""

    __slots__ = ("_owners", "accepted", "last_offset", "latest", "made", "order_id", "places", "touched")

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id
        self.places: list[Place] = []
        self.made: Place | None = None
        self.latest: Place | None = None
        self.last_offset = -1
        #: Accepted controls that name one of its places: their offsets and operations.
        self.accepted: list[tuple[int, str | None]] = []
        self.touched = False
        self._owners: dict[str, Place] | None = None

    @property
    def status(self) -> str:
        """The status of an order that exists."""
        latest = self.latest
        return NEW if latest is None or latest is self.made else str(latest.content)

    def add(self, place: Place) -> None:
        """Settle a place that is the last."""
        self.places.append(place)
        self.settle(place, len(self.places) - 1)

    def settle(self, place: Place, before: int) -> None:
        """Say what a place comes to, whose order is as the ``before`` places in front of it made it."""
        if not place.owns:
            return
        owner = self._own(place, before)
        if not place.takes_part:
            return
        if owner is not None:
            place.outcome = DUPLICATE if owner.content == place.content else "event_id_conflict"
        elif place.cart is not None:
            place.outcome = APPLIED if self.made is None else "duplicate_create"
            if self.made is None:
                self.made = self.latest = place
        elif self.made is None:
            place.outcome = "unknown_order"
        else:
            place.outcome = APPLIED
            self.latest = place

    def take_over(self, place: Place) -> None:
        """Take a place of an older epoch as it is."""
        self.places.append(place)
        if place.owns:
            self._own(place, len(self.places) - 1)
        self._keep(place)

    def _keep(self, place: Place) -> None:
        if place.outcome == APPLIED:
            self.made = place if place.cart is not None else self.made
            self.latest = place

    def fold(self, epoch: int) -> None:
        """Settle all places of this epoch anew."""
        self.touched = True
        self.made = self.latest = None
        self._owners = {}
        for before, place in enumerate(self.places):
            if place.epoch == epoch:
                self.settle(place, before)
            else:
                if place.owns:
                    self._own(place, before)
                self._keep(place)

    def _own(self, place: Place, before: int) -> Place | None:
        """Take the place's event id for it; give the earlier place that owns it, where there is one."""
        if self._owners is None and before < MANY:
            event_id = place.event_id
            for earlier in self.places[:before] if before else ():
                if earlier.event_id == event_id and earlier.owns:
                    return earlier
            return None
        if self._owners is None:
            self._owners = {}
            for earlier in self.places[:before]:
                if earlier.owns:
                    self._owners.setdefault(earlier.event_id or "", earlier)
        owner = self._owners.setdefault(place.event_id or "", place)
        return None if owner is place else owner

    def last_record(self, operation: str | None) -> int:
        """Tell where the order's last record is, as a control of that operation sees it."""
        others = (at for at, of in self.accepted if operation is None or of != operation)
        return max(self.last_offset, *others, -1)

    def has(self, event_id: str) -> bool:
        """Tell whether an event of that id is among the places."""
        if self._owners is not None:
            return event_id in self._owners
        return any(place.event_id == event_id and place.owns for place in self.places)

    def at(self, epoch: int, offset: int) -> Place | None:
        """Give the record's place at an offset of this epoch."""
        return next((p for p in self.places if p.offset == offset and p.epoch == epoch and p.outcome), None)
