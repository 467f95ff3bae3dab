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
        """Take note of how many records are left, and give their sum.

        ``applied`` has the log time (ms) of the last record that was applied just now: what is left is younger. Where
        nothing was, what waits has waited since it was first seen to.
        """
        self.lags = self.lags | {
            partition: Lag(records, self._since(partition, records, applied)) for partition, records in left.items()
        }
        return sum(left.values())

    def _since(self, partition: int, records: int, applied: Mapping[int, int]) -> float | None:
        if not records:
            return None
        if partition in applied:
            return applied[partition] / 1000
        before = self.lags.get(partition)
        return before.since if before is not None and before.since is not None else self._clock()
