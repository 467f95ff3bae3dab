"""Whether an event was applied: the question of who waits for it. It is asked often, so it finds no more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

    from orderflow.store.reader import Reader

#: An event of an order: order id, event id.
EventName = tuple[str, str]


class Fate(NamedTuple):
    """What became of an event or control that the consumer has read; ``reason`` and ``detail`` say why it was skipped.

    The reason of a control that came to nothing is its verdict.
    """

    word: Literal["applied", "skipped"]
    reason: str | None = None
    detail: str | None = None


APPLIED = Fate("applied")


class Fates:
    """The question, to the projection. Thread-safe."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def of(self, names: Collection[EventName]) -> dict[EventName, Fate]:
        """Tell what became of those events that were read.

        Raises:
            StoreUnavailable: the projection cannot be read.

        """
        asked = msgspec.json.encode(list(names)).decode()
        fates: dict[EventName, Fate] = {}
        for order_id, event_id, outcome, reason, detail, _ in self._reader.query(_FATES, (asked,)):
            fate = APPLIED if outcome == "applied" else Fate("skipped", reason, detail)
            fates.setdefault((order_id, event_id), fate)
        return fates


#: A copy tells nothing: the first one's fate is its own. What lies in no order's history, and what does not decode, is
#: told by the skip alone. Who asked for a repair may wait for that, too; where an event has got the control's id, it is
#: the event that counts.
_FATES = """
WITH asked AS (
    SELECT json_extract(value, '$[0]') AS order_id, json_extract(value, '$[1]') AS event_id FROM json_each(?)
)
SELECT h.order_id, h.event_id, h.outcome, coalesce(s.reason, h.reason), s.detail, h.outcome != 'applied' AS weight
FROM asked JOIN history AS h ON h.order_id = asked.order_id AND h.event_id = asked.event_id
LEFT JOIN skipped_messages AS s ON (s.epoch, s.partition, s.offset) = (h.epoch, h.partition, h.offset)
WHERE h.outcome != 'duplicate'
UNION ALL
SELECT s.order_id, s.event_id, 'skipped', s.reason, s.detail, 1
FROM asked JOIN skipped_messages AS s ON s.event_id = asked.event_id AND s.order_id = asked.order_id
WHERE NOT EXISTS (
    SELECT 1 FROM history AS h
    WHERE (h.epoch, h.partition, h.offset) = (s.epoch, s.partition, s.offset) AND h.order_id IS NOT NULL
)
UNION ALL
SELECT asked.order_id, c.event_id, iif(c.verdict = 'accepted', 'applied', 'skipped'), c.verdict, c.detail, 2
FROM asked JOIN controls AS c ON c.event_id = asked.event_id
LEFT JOIN skipped_messages AS s ON (s.epoch, s.partition, s.offset) = (c.epoch, c.partition, c.named_offset)
WHERE coalesce(c.order_id, s.order_id) = asked.order_id AND c.verdict != 'duplicate'
ORDER BY weight
"""
