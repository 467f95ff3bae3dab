"""Whether what callers were told is true: the ledger against the topic, the projection, and what it answers over HTTP.

The model of what records come to is the test's own, in a few lines, and knows nothing of the code under test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.support import store
from tests.support.calls import Answer, Caller, Ending
from tests.support.topic import Place, TopicReader, TopicRecord, read_topic
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.settings import Settings
    from tests.support.ledger import Entry, Ledger

READERS = 4


@dataclass
class Model:
    """What records come to: the outcome at each place, and the orders with their status."""

    outcomes: dict[Place, str] = field(default_factory=dict)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, records: Iterable[TopicRecord]) -> Model:
        model = cls()
        for record in sorted(records, key=lambda record: record.place):
            model.outcomes[record.place] = model._outcome(record)
        return model

    def _outcome(self, record: TopicRecord) -> str:
        if (record.order_id, record.event_id) in self._seen:
            return "duplicate"
        self._seen.add((record.order_id, record.event_id))
        if record.creates == (record.order_id in self.orders):
            return "skipped"  # a second create, or an update of no order
        if record.creates:
            self.orders[record.order_id] = dict(record.event["order"])
        else:
            self.orders[record.order_id]["status"] = record.event["status"]
        return "applied"


@dataclass(frozen=True)
class Verdict:
    """What was found, for the figures."""

    outcomes: dict[str, int]
    unknown_on_topic: int
    duplicates: int
    orders: int


def check_truth(ledger: Ledger, settings: Settings, *, catch_up_s: float = 30.0) -> Verdict:
    """Assert that every answer is true, that every record was applied once, and that every order reads right."""
    until(lambda: store.undelivered(settings) == 0, "the outbox is drained", catch_up_s, every_s=0.05)
    records = read_topic(settings)
    unknown_on_topic = check_topic(ledger, records)
    check_order_kept(ledger, records)
    wait_until_applied(settings, within_s=catch_up_s)
    model = Model.of(records)
    check_applied_once(ledger, model, settings)
    check_orders(ledger, model, settings)
    return Verdict(
        ledger.outcomes(), unknown_on_topic, list(model.outcomes.values()).count("duplicate"), len(model.orders)
    )


def check_topic(ledger: Ledger, records: Sequence[TopicRecord]) -> int:
    """Assert that the topic holds what it must, not what it must not, and nothing else; count the unknown on it."""
    at = {record.place: record for record in records}
    on_topic = Counter(record.event_id for record in records)
    orders_on_topic = {record.order_id for record in records}
    asked, asked_unnamed = set(), set()
    unknown = 0
    for entry in ledger:
        asked.add(entry.event_id)
        if entry.published:
            record = at.get(entry.place)
            assert record is not None, f"lost: nothing is on the topic at the place in {entry}"
            assert (record.event_id, record.order_id) == (entry.event_id, entry.order_id), f"{record} is not {entry}"
            assert record.event.get("status") == entry.status, f"{record} is not {entry}"
        elif entry.accepted:
            assert on_topic[entry.event_id], f"lost: spooled, and not on the topic: {entry}"
        elif entry.event_id is not None:
            unknown += on_topic[entry.event_id] > 0 and entry.outcome == "unknown"
            assert entry.outcome != "refused" or not on_topic[entry.event_id], f"refused, yet on the topic: {entry}"
        elif entry.answer.ending is Ending.UNREACHABLE:
            assert not entry.creates or entry.order_id not in orders_on_topic, f"never sent, yet on the topic: {entry}"
        else:
            asked_unnamed.add(entry.order_id)
    strangers = [r for r in records if r.event_id not in asked and r.order_id not in asked_unnamed]
    assert not strangers, f"{len(strangers)} records that nobody asked for, the first is {strangers[0]}"
    return unknown


def check_order_kept(ledger: Ledger, records: Sequence[TopicRecord]) -> None:
    """Assert that what one writer was told of one order lies on the topic in the sequence in which it was told."""
    first: dict[str, Place] = {}
    for record in sorted(records, key=lambda record: record.place):
        first.setdefault(record.event_id, record.place)
    told: dict[tuple[int, str], list[Entry]] = defaultdict(list)
    for entry in ledger.accepted():
        told[entry.writer, entry.order_id].append(entry)
    for entries in told.values():
        places = [first[entry.event_id or ""] for entry in sorted(entries, key=lambda entry: entry.number)]
        assert places == sorted(places), (
            f"out of order: {[(e.event_id, e.outcome, first[e.event_id or '']) for e in entries]}"
        )


def wait_until_applied(settings: Settings, within_s: float) -> None:
    """Wait until the projection is at the end of the topic."""
    with closing(TopicReader.of(settings)) as reader:
        ends = reader.ends()
    until(
        lambda: all(store.positions(settings).get(partition, 0) >= end for partition, end in ends.items()),
        f"the projection reaches {ends}",
        within_s,
        every_s=0.05,
    )


def check_applied_once(ledger: Ledger, model: Model, settings: Settings) -> None:
    """Assert that every record has the outcome of the model, and every accepted event was applied exactly once."""
    history = store.history(settings)
    assert {place: row.outcome for place, row in history.items()} == model.outcomes
    assert store.epochs(settings) == 1, "the log was taken for lost"
    applied = Counter(row.event_id for row in history.values() if row.outcome == "applied")
    twice = [event_id for event_id, times in applied.items() if times > 1]
    assert not twice, f"applied twice: {twice}"
    lost = [entry for entry in ledger.accepted() if applied[entry.event_id or ""] != 1]
    assert not lost, f"{len(lost)} accepted events were not applied, the first is {lost[0]}"


def check_orders(ledger: Ledger, model: Model, settings: Settings) -> None:
    """Assert that the order service answers for every order what the ledger and the model say, and for no other."""
    told = {entry.order_id: entry.answer.body["order"] for entry in ledger.accepted() if entry.creates}
    wanted = {order_id: order | told.get(order_id, {}) for order_id, order in model.orders.items()}
    assert told.keys() <= model.orders.keys()
    refused = {entry.order_id for entry in ledger} - wanted.keys()
    answers = order_details(settings, [*wanted, *refused])
    for order_id, order in wanted.items():
        expected = order | {"status": model.orders[order_id]["status"], "shippingCost": shipping_cost(order)}
        assert answers[order_id].status == 200, f"{order_id}: {answers[order_id]}"
        assert answers[order_id].body["order"] == expected
    for order_id in refused:
        assert answers[order_id].status == 404, f"{order_id} should not exist: {answers[order_id]}"


def order_details(settings: Settings, order_ids: Sequence[str]) -> dict[str, Answer]:
    """Ask the order service for many orders, over a few connections."""

    def ask(share: Sequence[str]) -> list[tuple[str, Answer]]:
        with closing(Caller(settings.order_port)) as caller:
            return [(order_id, caller.call("GET", f"/order-details?orderId={quote(order_id)}")) for order_id in share]

    with ThreadPoolExecutor(READERS) as pool:
        shares = pool.map(ask, [order_ids[number::READERS] for number in range(READERS)])
        return dict(pair for share in shares for pair in share)


def shipping_cost(order: dict[str, Any]) -> float:
    """2 % of the total, rounded to the cent, halves up."""
    exact = Decimal(str(order["totalAmount"])) * Decimal("0.02")
    return float(exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))
