"""What a worker measures beside what it counts: values that travel in its heartbeat file."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


#: The keys of the order-consumer's distributions.
APPLY_SECONDS = "apply_seconds"
BATCH_RECORDS = "batch_records"


class Lag(msgspec.Struct, frozen=True):
    """How far the reading of one partition is behind.

    ``records`` are not applied yet. ``since`` is the time (in seconds since 1970) from which on something waits; None
    where nothing does.
    """

    records: int
    since: float | None

    def seconds(self, now: float) -> float | None:
        """Tell how long something has waited at a time (in seconds since 1970); None where nothing does."""
        return None if self.since is None else max(0.0, now - self.since)


class Distribution(msgspec.Struct):
    """A histogram: how many values were at most each of the bounds, and above the last; and their sum."""

    bounds: tuple[float, ...]
    counts: list[int]
    sum: float = 0.0

    @classmethod
    def over(cls, *bounds: float) -> Distribution:
        """Make an empty one with these bounds, in ascending order."""
        return cls(bounds, [0] * (len(bounds) + 1))

    def __post_init__(self) -> None:
        """Refuse what a file says of another shape."""
        if len(self.counts) != len(self.bounds) + 1:
            raise ValueError(f"{len(self.counts)} counts do not fit {len(self.bounds)} bounds")

    def observe(self, value: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Give each bound, as Prometheus writes it, with the number of values up to it; all of them at last."""
        return zip((*map(str, self.bounds), "+Inf"), accumulate(self.counts), strict=True)
