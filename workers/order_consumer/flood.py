"""The share of skips among the last records: when it is large something is wrong at a sender, and people must know."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from orderflow.alerts import Cause
from orderflow.events import SkipReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.alerts import AlertBook
    from orderflow.settings import Settings
    from orderflow.store.rows import SkippedRow

#: Of the limit: at so many skips the flood is over.
OVER_AT = 0.5

#: Examples that the alert names.
EXAMPLES = 3


class _Portion(NamedTuple):
    """What some records came to: their number, and the skips among them by reason."""

    records: int
    skips: Counter[str]


class FloodWatch:
    """Looks at the last records. Records that were never read count as good ones, so a few skips are no flood."""

    def __init__(self, settings: Settings, alerts: AlertBook) -> None:
        self._records_max = settings.flood_records
        self._share = settings.flood_share
        self._alerts = alerts
        self._portions: deque[_Portion] = deque()
        self._records = 0
        self._skips: Counter[str] = Counter()
        self._examples: dict[str, deque[SkippedRow]] = {}

    def note(self, records: int, skipped: Sequence[SkippedRow]) -> None:
        """Take note of some records, and the skips among them; open or resolve the alert."""
        if not records:
            return
        for row in skipped:
            self._examples.setdefault(row.reason, deque(maxlen=EXAMPLES)).append(row)
        self._add(_Portion(records, Counter(row.reason for row in skipped)))
        count = self._skips.total()
        limit = self._share * max(self._records, self._records_max)
        if count > limit and skipped:
            self._alerts.open(Cause.SKIP_FLOOD, self._detail(count), len(skipped))
        elif count <= limit * OVER_AT and self._records >= self._records_max:
            self._alerts.resolve(Cause.SKIP_FLOOD, f"Of the last {self._records} records {count} were skipped.")

    def _add(self, portion: _Portion) -> None:
        self._portions.append(portion)
        self._records += portion.records
        self._skips += portion.skips
        while self._records - self._portions[0].records >= self._records_max:
            gone = self._portions.popleft()
            self._records -= gone.records
            self._skips -= gone.skips

    def _detail(self, count: int) -> str:
        ((reason, times),) = self._skips.most_common(1)
        named = ", ".join(f"{row.epoch}-{row.partition}-{row.offset}" for row in self._examples[reason])
        example = self._examples[reason][-1]
        return (
            f"Of the last {self._records} records {count} were skipped, {times} of them as {reason} "
            f"({SkipReason(reason).sentence[:-1].lower()}). Examples: {named}; the last one says: {example.detail}"
        )
