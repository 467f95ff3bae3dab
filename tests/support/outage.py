"""A load that keeps coming back to its orders, and what an outage leaves in logs and tables."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.calls import Caller
from tests.support.ledger import STATUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.stack import Stack
    from tests.support.ledger import Entry, Ledger
    from tests.support.load import Writer


@dataclass
class Rounds:
    """A writer's work: it creates so many orders of its own, then updates them in turn, with a pause between two."""

    orders: int = 10
    pause_s: float = 0.02
    created: set[str] = field(default_factory=set)

    def __call__(self, writer: Writer, number: int) -> None:
        order_id = f"round-{writer.index}-{number % self.orders}"
        if order_id in self.created:
            writer.update(order_id, STATUSES[number // self.orders % len(STATUSES)])
        elif writer.create(order_id).accepted:
            self.created.add(order_id)
        time.sleep(self.pause_s)


def by_order(ledger: Ledger) -> dict[str, list[Entry]]:
    """What was told of each order, in the sequence in which it was asked."""
    found: dict[str, list[Entry]] = {}
    for entry in sorted(ledger, key=lambda entry: entry.sent):
        found.setdefault(entry.order_id, []).append(entry)
    return found


def went_and_came_back(entries: Sequence[Entry]) -> bool:
    """Whether an order was published, then spooled, then published again."""
    outcomes = [entry.outcome for entry in entries]
    changes = [one for one, before in zip(outcomes, [None, *outcomes], strict=False) if one != before]
    return changes[:3] == ["published", "spooled", "published"]


def slowest_s(ledger: Ledger) -> float:
    """How long the slowest answer took."""
    return max(entry.ended - entry.sent for entry in ledger)


def alerts(stack: Stack, cause: str) -> list[dict[str, Any]]:
    """The alerts of a cause, open and resolved, newest first, as the order service tells them."""
    with closing(Caller(stack.settings.order_port)) as caller:
        answer = caller.call("GET", "/alerts?state=all")
    assert answer.status == 200, answer
    return [alert for alert in answer.body["alerts"] if alert["cause"] == cause]


def log_lines(stack: Stack, program: str, event: str) -> list[dict[str, Any]]:
    """The lines of one event in a program's log."""
    log = (stack.settings.log_dir / f"{program}.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def ask(port: int, path: str) -> Any:
    """The body of a GET."""
    with closing(Caller(port)) as caller:
        return caller.call("GET", path).body
