"""Figures: what was measured, what was expected of it, and the ceiling beside it."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Below this share of what is expected a figure counts as missed.
TOLERATED = 0.7


@dataclass(frozen=True)
class Figure:
    """One measured value. ``at_least`` or ``at_most`` is what is expected; ``of`` names the figure of its ceiling."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    of: str | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Say how it stands against what is expected."""
        if self.at_least is not None:
            share = self.value / self.at_least
        elif self.at_most is not None:
            share = self.at_most / self.value
        else:
            return ""
        return "ok" if share >= 1 else "short" if share >= TOLERATED else "MISSED"

    @property
    def expected(self) -> str:
        """Say what is expected."""
        if self.at_least is not None:
            return f">= {_number(self.at_least)}"
        return f"<= {_number(self.at_most)}" if self.at_most is not None else ""


def median_of(times: int, measure: Callable[[], float]) -> float:
    """Measure several times, and give the median."""
    return statistics.median(measure() for _ in range(times))


def as_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Give the figures as plain data, each with its verdict."""
    return [asdict(figure) | {"verdict": figure.verdict} for figure in figures]


def table(figures: Sequence[Figure]) -> str:
    """Write the figures as a table for people."""
    values = {figure.name: figure.value for figure in figures}
    rows = [("", "", "", "expected", "", "of its ceiling", "")]
    for one in figures:
        ratio = f"{one.value / values[one.of]:.2f} of {one.of}" if one.of in values else ""
        rows.append((one.name, _number(one.value), one.unit, one.expected, one.verdict, ratio, one.note))
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return "\n".join("  ".join(_cell(row[c], widths[c], right=c == 1) for c in range(7)).rstrip() for row in rows)


def _cell(text: str, width: int, *, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"  # noqa: PLR2004 (three digits are enough)
