"""``GET /outbox``: what was taken and is not on the topic yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from orderflow.clock import moment
from orderflow.store.outbox_desk import STATES
from orderflow.store.outbox_shown import shown
from orderflow.wsgi import parameters

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from orderflow.store.outbox import Outbox
    from orderflow.store.outbox_desk import OutboxDesk

_encoder = msgspec.json.Encoder()


class OutboxView:
    """The handler."""

    def __init__(self, settings: Settings, outbox: Outbox, desk: OutboxDesk) -> None:
        self._settings = settings
        self._outbox = outbox
        self._desk = desk

    def show(self) -> bytes:
        """Answer ``GET /outbox[?state=][&limit=&cursor=]``."""
        state = parameters.choice("state", "undelivered", STATES)
        limit = parameters.number("limit", 100, 1, 1_000)
        cursor = parameters.number("cursor", 0, 0, 2**63 - 1)
        totals = self._outbox.totals()
        entries = self._desk.entries(STATES[state], after=cursor, limit=limit)
        if len(entries) == limit:
            parameters.point_to_next("/outbox", state=state, limit=limit, cursor=entries[-1].seq)
        oldest = self._desk.oldest_waiting_at()
        return _encoder.encode(
            {
                "waiting": totals.waiting,
                "held": totals.held,
                "bytes": totals.bytes_undelivered,
                "oldestSpooledAt": moment(oldest),
                "maxEvents": self._settings.outbox_max_events,
                "maxBytes": self._settings.outbox_max_bytes,
                "events": [shown(entry) for entry in entries],
            }
        )
