"""``GET /outbox``: what was taken and is not on the topic yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from cart_service.answers import OutboxPage
from orderflow.clock import moment
from orderflow.store.outbox_desk import STATES
from orderflow.store.outbox_shown import shown
from orderflow.wsgi.parameters import After, Limit, point_to_next
from orderflow.wsgi.problems import Kind
from orderflow.wsgi.routes import Route

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from orderflow.store.outbox import Outbox
    from orderflow.store.outbox_desk import OutboxDesk

#: As in `STATES`.
State = Annotated[
    Literal["undelivered", "waiting", "held", "delivered", "discarded"],
    Meta(description="`undelivered`: what waits and what is held."),
]

_encoder = msgspec.json.Encoder()


class OutboxQuery(msgspec.Struct, frozen=True):
    """The parameters of ``GET /outbox``."""

    state: State = "undelivered"
    limit: Limit = 100
    cursor: After = 0


class OutboxView:
    """The handler."""

    def __init__(self, settings: Settings, outbox: Outbox, desk: OutboxDesk) -> None:
        self._settings = settings
        self._outbox = outbox
        self._desk = desk

    def routes(self) -> tuple[Route]:
        """Declare the route."""
        return (
            Route(
                path="/outbox",
                handler=self.show,
                name="outbox",
                tag="orders",
                summary="What was taken and is not on the topic yet",
                parameters=OutboxQuery,
                answers={200: OutboxPage},
                problems=(Kind.STORE_UNAVAILABLE,),
            ),
        )

    def show(self, query: OutboxQuery) -> bytes:
        """Answer ``GET /outbox``, the oldest first."""
        totals = self._outbox.totals()
        entries = self._desk.entries(STATES[query.state], after=query.cursor, limit=query.limit)
        if len(entries) == query.limit:
            point_to_next("/outbox", state=query.state, limit=query.limit, cursor=entries[-1].seq)
        page: OutboxPage = {
            "waiting": totals.waiting,
            "held": totals.held,
            "bytes": totals.bytes_undelivered,
            "oldestSpooledAt": moment(self._desk.oldest_waiting_at()),
            "maxEvents": self._settings.outbox_max_events,
            "maxBytes": self._settings.outbox_max_bytes,
            "events": [shown(entry) for entry in entries],
        }
        return _encoder.encode(page)
