"""What the audit can find: a closed set, each with its meaning, its probable cause, and the way to mend it."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Any, NamedTuple

REBUILD = "orderflow rebuild"
REPUBLISH = "orderflow republish"


class Facts(NamedTuple):
    """What is known of a kind."""

    sentence: str
    cause: str
    mend: str


class Kind(StrEnum):
    """What is different from what it must be."""

    ORDER_MISSING = "order_missing"
    ORDER_CHANGED = "order_changed"
    ORDER_INVENTED = "order_invented"
    RECORD_PASSED_OVER = "record_passed_over"
    APPLIED_TWICE = "applied_twice"
    WRONGLY_SKIPPED = "wrongly_skipped"
    WRONGLY_APPLIED = "wrongly_applied"
    OTHER_OUTCOME = "other_outcome"
    HISTORY_MISSING = "history_missing"
    HISTORY_CHANGED = "history_changed"
    HISTORY_INVENTED = "history_invented"
    SKIP_MISSING = "skip_missing"
    SKIP_CHANGED = "skip_changed"
    SKIP_INVENTED = "skip_invented"
    CONTROL_MISSING = "control_missing"
    CONTROL_CHANGED = "control_changed"
    CONTROL_INVENTED = "control_invented"
    ROW_WITHOUT_RECORD = "row_without_record"
    POSITION_TOO_FAR = "position_too_far"
    POSITION_TOO_LOW = "position_too_low"
    POSITION_CHANGED = "position_changed"
    RECORD_UNREADABLE = "record_unreadable"
    LOG_REPLACED = "log_replaced"
    LOG_STARTS_LATE = "log_starts_late"
    DELIVERED_IN_VAIN = "delivered_in_vain"
    TOLD_LOST = "told_lost"
    TOLD_ELSEWHERE = "told_elsewhere"
    REFUSED_APPEARED = "refused_appeared"

    @property
    def facts(self) -> Facts:
        """What is known of it."""
        return _FACTS[self]


class Difference(NamedTuple):
    """One difference. ``place`` is epoch-partition-offset, as far as it is known."""

    kind: Kind
    order_id: str | None
    place: str | None
    expected: str
    found: str
    cause: str
    mend: str

    def shown(self) -> dict[str, Any]:
        """Give it for machines."""
        return {
            "kind": self.kind,
            "sentence": self.kind.facts.sentence,
            "orderId": self.order_id,
            "place": self.place,
            "expected": self.expected,
            "found": self.found,
            "cause": self.cause,
            "mend": self.mend,
        }


class Findings:
    """All differences: every one is counted, some are kept."""

    def __init__(self, limit: int) -> None:
        self.counts: Counter[Kind] = Counter()
        self.kept: list[Difference] = []
        self.limit = limit

    @property
    def total(self) -> int:
        """How many there are."""
        return self.counts.total()

    def add(self, difference: Difference) -> None:
        """Count a difference, and keep it while there is room."""
        self.counts[difference.kind] += 1
        if len(self.kept) < self.limit:
            self.kept.append(difference)

    def merge(self, other: Findings) -> None:
        """Take over what another one has."""
        self.counts.update(other.counts)
        self.kept += other.kept[: self.limit - len(self.kept)]


def difference(
    kind: Kind, order_id: str | None, place: str | None, expected: str, found: str, **other: str
) -> Difference:
    """Make a difference with its kind's cause and mending; ``other`` has a better ``cause`` or ``mend``."""
    facts = kind.facts
    return Difference(
        kind, order_id, place, expected, found, other.get("cause", facts.cause), other.get("mend", facts.mend)
    )


_BY_HAND = "The row was changed by hand, or the order-consumer has a fault."
_REMOVED = "The row was removed by hand, or the order-consumer has a fault."
_MADE_UP = "The row was added by hand, or the order-consumer has a fault."
_MOVED = "The row of positions was changed by hand, or rows of the projection were lost."

_FACTS = {
    Kind.ORDER_MISSING: Facts("The topic makes an order that has no row.", _REMOVED, REBUILD),
    Kind.ORDER_CHANGED: Facts("An order's row is not what its events come to.", _BY_HAND, REBUILD),
    Kind.ORDER_INVENTED: Facts("There is a row of an order that no event makes.", _MADE_UP, REBUILD),
    Kind.RECORD_PASSED_OVER: Facts("A record was passed over: nothing is written of it.", _REMOVED, REBUILD),
    Kind.APPLIED_TWICE: Facts("An event that was applied before was applied again.", _BY_HAND, REBUILD),
    Kind.WRONGLY_SKIPPED: Facts(
        "A record that must take effect is skipped.",
        "The order-consumer skips what is good: a fault of it, or a version that understood less.",
        REBUILD,
    ),
    Kind.WRONGLY_APPLIED: Facts(
        "A record that must be skipped was applied.",
        "The order-consumer applies what is bad: a fault of it, or a version that understood more.",
        REBUILD,
    ),
    Kind.OTHER_OUTCOME: Facts("A record came to something else than it must.", _BY_HAND, REBUILD),
    Kind.HISTORY_MISSING: Facts("A record that decodes has no row of history.", _REMOVED, REBUILD),
    Kind.HISTORY_CHANGED: Facts("A row of history is not what its record says.", _BY_HAND, REBUILD),
    Kind.HISTORY_INVENTED: Facts("There is a row of history of a record that does not decode.", _MADE_UP, REBUILD),
    Kind.SKIP_MISSING: Facts("A record was not applied, and is not kept as a skipped message.", _REMOVED, REBUILD),
    Kind.SKIP_CHANGED: Facts("A skipped message is not kept as it must be.", _BY_HAND, REBUILD),
    Kind.SKIP_INVENTED: Facts("There is a skipped message of a record that never was a skip.", _MADE_UP, REBUILD),
    Kind.CONTROL_MISSING: Facts("There is no row of a control.", _REMOVED, REBUILD),
    Kind.CONTROL_CHANGED: Facts("A control has another verdict or other members.", _BY_HAND, REBUILD),
    Kind.CONTROL_INVENTED: Facts("There is a row of a control of a record that is none.", _MADE_UP, REBUILD),
    Kind.ROW_WITHOUT_RECORD: Facts("There is a row of a place at which the topic has nothing.", _MADE_UP, REBUILD),
    Kind.POSITION_TOO_FAR: Facts("Reading goes on behind records that were not read.", _MOVED, REBUILD),
    Kind.POSITION_TOO_LOW: Facts("Reading goes on in front of what was read.", _MOVED, REBUILD),
    Kind.POSITION_CHANGED: Facts("A position does not name the last record that was read.", _MOVED, REBUILD),
    Kind.RECORD_UNREADABLE: Facts(
        "A record that was applied cannot be read any more; what is written of it stands for it here.",
        "The broker's disk, or somebody, damaged the log.",
        "give the broker its files back from a backup; until then no orderflow rebuild, which would drop what it did",
    ),
    Kind.LOG_REPLACED: Facts(
        "The topic is not the one that was applied.",
        "The topic was deleted, or made anew, or the settings name another cluster.",
        f"supervisorctl restart order-consumer, which reads the topic from its start; then {REPUBLISH}",
    ),
    Kind.LOG_STARTS_LATE: Facts(
        "The beginning of a partition is gone; its rows cannot be checked, and are taken as they are.",
        "Retention or a person removed records.",
        REPUBLISH,
    ),
    Kind.DELIVERED_IN_VAIN: Facts(
        "The outbox says that an event was delivered, and the topic does not have it there.",
        "The log lost what was acknowledged, or the outbox was changed by hand.",
        f"{REPUBLISH}; what orders.db does not have either: orderflow outbox show ID, and send it again",
    ),
    Kind.TOLD_LOST: Facts(
        "A caller was told that an event is taken, and it is nowhere.",
        "The log or the outbox lost it after it was acknowledged.",
        f"{REPUBLISH}; what orders.db does not have either: send the request again with its Idempotency-Key",
    ),
    Kind.TOLD_ELSEWHERE: Facts(
        "A caller was told another place than the event has on the topic.",
        "The log lost the copy that was acknowledged; another copy of the event is there.",
        "nothing is to be mended: the event takes effect at its place",
    ),
    Kind.REFUSED_APPEARED: Facts(
        "A caller was told that an event will never take effect, and it is on the topic.",
        "A send that counted as refused came to Kafka after all.",
        "tell the caller; a further update sets the order's status",
    ),
}
