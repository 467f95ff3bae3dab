"""How far each partition is behind, and since when: what the heartbeat says of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orderflow.measures import Lag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class LagWatch:
    """The lags by partition, as last known; a partition of which nothing was known so far is missing."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.lags: dict[int, Lag] = {}

    def note(self, left: Mapping[int, int], applied: Mapping[int, int]) -> int:
        """Take note, behind a batch, of how many records are left, and give their sum.

        ``applied`` has the log time (ms) of the last record that was applied just now: what is left is younger. Where
        nothing was, what waits has waited since it was first seen to.
        """
        return self._take(left, {partition: at / 1000 for partition, at in applied.items()})

    def note_within(self, left: Mapping[int, int], polled: Mapping[int, int]) -> int:
        """Take note amid a batch; ``polled`` has the log time (ms) of its first record: none that is left is older."""
        since = {partition: self._known_since(partition, at / 1000) for partition, at in polled.items()}
        return self._take(left, since)

    def _take(self, left: Mapping[int, int], since: Mapping[int, float]) -> int:
        def waits_since(partition: int) -> float:
            return since[partition] if partition in since else self._known_since(partition, self._clock())

        self.lags = self.lags | {
            partition: Lag(records, waits_since(partition) if records else None) for partition, records in left.items()
        }
        return sum(left.values())

    def _known_since(self, partition: int, at: float) -> float:
        """Give since when something of a partition is known to wait, where that was before ``at``."""
        before = self.lags.get(partition)
        return at if before is None or before.since is None else min(before.since, at)
