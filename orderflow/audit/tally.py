"""What an audit has seen: counts, told at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from orderflow.audit.fold import APPLIED, DUPLICATE
from orderflow.audit.verdicts import GIVEN_UP, OPEN

if TYPE_CHECKING:
    from orderflow.audit.partition import Partition


@dataclass
class Tally:
    """Counts over all partitions. ``skipped`` counts what takes no effect, by reason; ``skips`` all skips, by state.

    ``internal_errors`` were taken as the store has them. ``lost_from_log`` was applied from an older log, and is not in
    this one.
    """

    records: int = 0
    applied: int = 0
    duplicates: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)
    controls: Counter[str] = field(default_factory=Counter)
    orders: int = 0
    internal_errors: int = 0
    lost_from_log: int = 0
    outbox: Counter[str] = field(default_factory=Counter)
    ledger: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, partition: Partition) -> None:
        """Count what a partition came to."""
        model, epoch = partition.model, partition.epoch
        self.records += partition.records
        self.internal_errors += partition.internal
        for history in model.orders.values():
            self.orders += history.made is not None
            outcomes = [place.outcome for place in history.places if place.epoch == epoch]
            self.applied += outcomes.count(APPLIED)
            self.duplicates += outcomes.count(DUPLICATE)
        for skip in model.skips.values():
            self.skips[skip.state] += 1
            if skip.state in (OPEN, GIVEN_UP):
                self.skipped[skip.reason] += 1
        self.controls.update(model.judge.verdicts)
        self.lost_from_log += sum(model.absent.values())

    def merge(self, other: Tally) -> None:
        """Add another one's counts to these."""
        for counted in fields(self):
            mine, more = getattr(self, counted.name), getattr(other, counted.name)
            if isinstance(mine, Counter):
                mine.update(more)
            else:
                setattr(self, counted.name, mine + more)

    @property
    def per_second(self) -> float:
        """Records a second."""
        return self.records / self.seconds if self.seconds else 0.0

    def shown(self) -> dict[str, Any]:
        """Give the counts for machines."""
        return {
            "records": self.records,
            "applied": self.applied,
            "duplicates": self.duplicates,
            "skipped": dict(sorted(self.skipped.items())),
            "skips": dict(sorted(self.skips.items())),
            "controls": dict(sorted(self.controls.items())),
            "orders": self.orders,
            "internalErrors": self.internal_errors,
            "lostFromLog": self.lost_from_log,
            "outbox": dict(sorted(self.outbox.items())),
            "ledger": dict(sorted(self.ledger.items())),
            "seconds": round(self.seconds, 3),
            "perSecond": round(self.per_second, 1),
        }
