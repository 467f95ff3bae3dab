"""The client's own ledger: what was asked, when, and what the caller was told. Expectations come from here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.calls import Answer, Ending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.topic import Place

STATUSES = ("pending", "confirmed", "shipped", "delivered", "cancelled", "new")


@dataclass(frozen=True)
class Entry:
    """One write. ``status`` is None for a create; times are of `time.monotonic`."""

    writer: int
    number: int
    order_id: str
    status: str | None
    sent: float
    ended: float
    answer: Answer

    @property
    def creates(self) -> bool:
        return self.status is None

    @property
    def outcome(self) -> str:
        """What the caller may take for true: without an answer, only a request that was never sent is refused."""
        if self.answer.ending is Ending.ANSWERED:
            told = self.answer.body.get("outcome") if isinstance(self.answer.body, dict) else None
            assert told in {"published", "spooled", "refused", "unknown"}, (
                f"an answer without a known outcome: {self.answer}"
            )
            return str(told)
        return "refused" if self.answer.ending is Ending.UNREACHABLE else "unknown"

    @property
    def published(self) -> bool:
        return self.accepted and self.outcome == "published"

    @property
    def accepted(self) -> bool:
        """Whether it was answered with 2xx: it is on the topic, or will be."""
        return self.answer.ok

    @property
    def event_id(self) -> str | None:
        return self.answer.body["eventId"] if self.answer.ending is Ending.ANSWERED else None

    @property
    def place(self) -> Place:
        return (self.answer.body["partition"], self.answer.body["offset"])


@dataclass
class Ledger:
    """All entries. Appending is safe from any thread."""

    entries: list[Entry] = field(default_factory=list)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def outcomes(self) -> dict[str, int]:
        return dict(Counter(entry.outcome for entry in self))

    def endings(self) -> dict[str, int]:
        return dict(Counter(entry.answer.ending.value for entry in self))

    def published(self) -> list[Entry]:
        return [entry for entry in self if entry.published]

    def accepted(self) -> list[Entry]:
        return [entry for entry in self if entry.accepted]

    def first_published_after(self, moment: float) -> float | None:
        """When the first acknowledgement came after a moment; of those sent before it, too."""
        return min((entry.ended for entry in self if entry.published and entry.ended > moment), default=None)
