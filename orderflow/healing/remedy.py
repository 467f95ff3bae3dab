"""From a wish to the messages that carry it out, or the reason why that cannot be done as things are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from orderflow import controls, events
from orderflow.controls import Discarded, Repaired, control_id
from orderflow.envelope import OPERATOR, control_message, event_message
from orderflow.errors import HealingRefused, InvalidEvent, InvalidMending
from orderflow.events import OrderCreated, SkipReason
from orderflow.healing.wishes import Redrive
from orderflow.store.places import Places, current_epoch
from orderflow.store.rows import place_id

if TYPE_CHECKING:
    from orderflow.events import Event
    from orderflow.healing.wishes import Discard, Wish
    from orderflow.messages import Message
    from orderflow.store.rows import SkippedRow, SkipState
    from orderflow.store.sqlite import Connection
    from orderflow.tracing import Trace

#: Skips that are valid events, in the wrong place: as they are, they would be skipped again.
OF_THE_FOLD = (SkipReason.UNKNOWN_ORDER, SkipReason.DUPLICATE_CREATE, SkipReason.EVENT_ID_CONFLICT)

#: So often a place is repaired before a further repair must be forced: the loop guard.
REPAIRS_MAX = 3


class Context(NamedTuple):
    """What a wish is carried out with: who traces it, when, and together with what."""

    trace: Trace
    operation: str | None = None


class Remedy(NamedTuple):
    """Messages for one skip: its control, and the event that is sent again at the end, where one is.

    ``last`` is the offset of the last record of the order that they are about, as it was when they were made.
    """

    skip: SkippedRow
    control: Message
    last: int | None
    closes_as: tuple[SkipState, ...]  # the states in which the skip is as it was wished
    event: Message | None = None


def remedy(snapshot: Connection, skip: SkippedRow, wish: Wish, context: Context) -> Remedy:
    """Make the messages that carry out a wish for a skip, as that is in the snapshot.

    Raises:
        HealingRefused: it cannot be done as things are.
        InvalidMending: the mended event is no event.

    """
    found = Places(snapshot).skip_at(skip.place)
    if found is None or found.state != "open":
        state = "gone" if found is None else found.state
        raise HealingRefused("skip-closed", f"Skip {place_id(skip.place)} is not open any more, it is {state}.")
    epoch, topic_id = current_epoch(snapshot.execute) or (0, "")
    if skip.epoch != epoch:
        raise HealingRefused(
            "earlier-log",
            f"Skip {place_id(skip.place)} lies in epoch {skip.epoch} of the log, which is gone, so nothing can name "
            "it; send the event anew through the cart service.",
        )
    maker = _Maker(snapshot, found, topic_id, context)
    if not isinstance(wish, Redrive):
        return maker.give_up(wish)
    return maker.at_end(wish) if wish.at_end else maker.repair(wish)


class _Maker:
    """Makes the messages for one skip."""

    def __init__(self, snapshot: Connection, skip: SkippedRow, topic_id: str, context: Context) -> None:
        self._places = Places(snapshot)
        self._skip = skip
        self._topic_id = topic_id
        self._context = context

    def repair(self, wish: Redrive) -> Remedy:
        """Make the repair that lets the event stand at the place."""
        skip = self._skip
        if not skip.placed:
            raise HealingRefused(
                "no-place",
                f"Skip {place_id(skip.place)} ({skip.reason}) lies in no order's history, so it has no place to heal "
                "at; send its event again at the end.",
            )
        if skip.repairs >= REPAIRS_MAX and not wish.force:
            raise HealingRefused(
                "repaired-too-often",
                f"Skip {place_id(skip.place)} was repaired {skip.repairs} times and is still skipped ({skip.reason}); "
                "discard it, send it again at the end, or force a further repair.",
            )
        if wish.mended is None and skip.reason in OF_THE_FOLD and self._alone(wish):
            raise HealingRefused(
                "no-effect",
                f"Skip {place_id(skip.place)} would be skipped again as it was ({skip.reason}); mend it, or what is in "
                "front of it, send it again at the end, or discard it.",
            )
        text, event = self._payload(wish)
        if event.order_id != skip.order_id:
            raise HealingRefused(
                "wrong-order", f"The event is of the order {event.order_id!r}, and the place is {skip.order_id!r}'s."
            )
        last = self._seen(wish, event.order_id)
        control = Repaired(
            event_id=self._control_id("repair", last, text), event=msgspec.Raw(text.encode()), if_last=last or 0,
            topic_id=self._topic_id, partition=skip.partition, offset=skip.offset, author=wish.author,
            reason=wish.reason or "", operation=self._context.operation, occurred_at=events.now(),
        )  # fmt: skip
        message = control_message(control, skip.key, skip.order_id or "", self._context.trace)
        try:
            controls.decode(message.value)  # As a part of the control the event is nested one level deeper.
        except InvalidEvent as error:
            raise InvalidMending("invalid-event", f"The event cannot stand in a repair: {error.detail}") from None
        return Remedy(skip, message, last, ("repaired", "healed"))

    def at_end(self, wish: Redrive) -> Remedy:
        """Make an ordinary event with an id of its own, and the discard that names it."""
        text, event = self._payload(wish)
        self._refuse_vain(wish, event)
        last = self._seen(wish, event.order_id)
        event_id = self._control_id("at the end", text)
        event = msgspec.structs.replace(event, event_id=event_id, occurred_at=events.now())
        message = event_message(event, self._context.trace, OPERATOR)
        control = self._discard(wish.author, wish.reason or "Sent again at the end.", None, message)
        return Remedy(self._skip, control, last, ("discarded",), message)

    def _refuse_vain(self, wish: Redrive, event: Event) -> None:
        """Refuse what would be a skip again, or is no remedy for this one."""
        skip, order_id = self._skip, event.order_id
        if skip.placed and order_id != skip.order_id and not wish.force:
            raise HealingRefused(
                "wrong-order",
                f"The event is of the order {order_id!r}, and the skipped message is {skip.order_id!r}'s.",
            )
        exists, creates = self._places.order_exists(order_id), isinstance(event, OrderCreated)
        if exists and creates and not wish.force:
            reason = SkipReason.DUPLICATE_CREATE
        elif not exists and not creates and self._alone(wish):  # In bulk its create may be in front of it.
            reason = SkipReason.UNKNOWN_ORDER
        else:
            return
        raise HealingRefused(
            "no-effect", f"Sent at the end it would be skipped again ({reason}): {reason.sentence} Mend or discard it."
        )

    def _alone(self, wish: Redrive) -> bool:
        return self._context.operation is None and not wish.force

    def give_up(self, wish: Discard) -> Remedy:
        """Make the discard of what is given up."""
        last = self._seen(wish, self._skip.order_id) if self._skip.placed else None
        return Remedy(self._skip, self._discard(wish.author, wish.reason, last), last, ("discarded",))

    def _discard(self, author: str, reason: str, if_last: int | None, instead: Message | None = None) -> Message:
        skip, successor = self._skip, None if instead is None else instead.event_id
        control = Discarded(
            event_id=self._control_id("discard", if_last, successor), topic_id=self._topic_id,
            partition=skip.partition, offset=skip.offset, if_last=if_last, author=author, reason=reason,
            successor=successor, operation=self._context.operation, occurred_at=events.now(),
        )  # fmt: skip
        about = (skip.order_id or "") if instead is None else instead.order_id
        return control_message(control, skip.key, about, self._context.trace)

    def _seen(self, wish: Wish, order_id: str | None) -> int | None:
        """Give the offset of the order's last record, None where it has none.

        Raises:
            HealingRefused: the author saw another one.

        """
        last = self._places.last_offset(self._skip.epoch, order_id or "", None)
        if wish.if_last not in (None, last):
            where = "it has no record" if last is None else f"its last record is at offset {last}"
            raise HealingRefused(
                "order-moved-on",
                f"The order {order_id!r} is not as it was seen: {where}, not at {wish.if_last}; look at it again.",
            )
        return last

    def _payload(self, wish: Redrive) -> tuple[str, Event]:
        """Give the event that is to take effect: the mended one, or what stands at the place, or came there."""
        try:
            if wish.mended is not None:
                text = events.text_of(wish.mended)
            elif (row := self._places.history_at(self._skip.place)) is not None:
                text = row.payload
            elif self._skip.value is None:
                raise HealingRefused("no-event", "The skipped message has no value; give the event.")
            else:
                text = events.text_of(self._skip.value)
            return text, events.decode_text(text)
        except InvalidEvent as error:
            why = f"is no event ({error.reason}): {error.detail}"
            if wish.mended is None:
                raise HealingRefused("no-event", f"The payload as it was {why} Give the event.") from None
            raise InvalidMending("invalid-event", f"The mended event {why}") from None

    def _control_id(self, *said: object) -> str:
        skip = self._skip
        place = (skip.epoch, skip.partition, skip.offset)
        return control_id(self._topic_id, *place, skip.opened_by, skip.repairs, *said)
