"""The sequence of one order's events, and each of many orders, from the HTTP request to the HTTP answer."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.support import store
from tests.support.ledger import STATUSES, Ledger
from tests.support.load import Writer, run_together
from tests.support.topic import TopicRecord, read_topic
from tests.support.truth import Model, order_details, shipping_cost, wait_until_applied

if TYPE_CHECKING:
    from orderflow.stack import Stack
    from tests.conftest import Figures
    from tests.support.ledger import Entry

WRITERS = 32
SHARED_ORDERS = 8
EVENTS_EACH = 40
MANY = 5_000


def test_each_writer_s_sequence_is_kept_and_the_highest_offset_wins(stack: Stack, figures: Figures) -> None:
    run = uuid.uuid4().hex[:8]
    orders = [f"sequence-{run}-{number}" for number in range(SHARED_ORDERS)]

    def write(writer: Writer) -> None:
        order_id = orders[writer.index % SHARED_ORDERS]
        writer.create(order_id)
        for number in range(EVENTS_EACH):
            writer.update(order_id, STATUSES[(writer.index + number) % len(STATUSES)])

    ledger = run_together(stack.settings, WRITERS, write)

    assert ledger.outcomes() == {"published": WRITERS * (EVENTS_EACH + 1)}
    records = {order_id: found for order_id, found in _by_order(stack).items() if order_id in orders}
    for writer in range(WRITERS):
        _check_writer([entry for entry in ledger if entry.writer == writer], records)
    _check_final_states(stack, ledger, records)
    figures("32 writers on 8 orders", events=len(ledger))


def _check_writer(mine: list[Entry], records: dict[str, list[TopicRecord]]) -> None:
    """Its events stand in the order's history in the sequence it sent them in, where the answers said."""
    offsets = [entry.answer.body["offset"] for entry in mine]
    assert offsets == sorted(set(offsets))
    assert len({entry.answer.body["partition"] for entry in mine}) == 1
    wanted = [entry.event_id for entry in mine]
    history = [record.event_id for record in records[mine[0].order_id]]
    assert [event_id for event_id in history if event_id in set(wanted)] == wanted


def _check_final_states(stack: Stack, ledger: Ledger, records: dict[str, list[TopicRecord]]) -> None:
    wait_until_applied(stack.settings, within_s=15)
    answers = order_details(stack.settings, list(records))
    history = store.history(stack.settings)
    for order_id, found in records.items():
        entries = [entry for entry in ledger if entry.order_id == order_id]
        highest = max((entry for entry in entries if not entry.creates), key=lambda entry: entry.place)
        first_create = min((entry for entry in entries if entry.creates), key=lambda entry: entry.place)
        order = answers[order_id].body["order"]
        assert order["status"] == highest.status
        assert order["items"] == first_create.answer.body["order"]["items"]
        model = Model.of(found)
        assert {place: history[place].outcome for place in model.outcomes} == model.outcomes
        assert list(model.outcomes.values()).count("applied") == len(found) - WRITERS // SHARED_ORDERS + 1


@pytest.mark.faults
def test_thousands_of_orders_are_each_created_updated_and_read_right(stack: Stack, figures: Figures) -> None:
    run = uuid.uuid4().hex[:8]
    started = time.monotonic()

    def write(writer: Writer) -> None:
        for number in range(writer.index, MANY, WRITERS):
            order_id = f"many-{run}-{number}"
            writer.create(order_id, items_num=1 + number % 5)
            writer.update(order_id, STATUSES[number % len(STATUSES)])

    ledger = run_together(stack.settings, WRITERS, write)
    written_s = time.monotonic() - started
    assert ledger.outcomes() == {"published": 2 * MANY}
    created = {entry.order_id: entry.answer.body["order"] for entry in ledger if entry.creates}
    updated = {entry.order_id: entry.status for entry in ledger if not entry.creates}
    assert len(created) == len(updated) == MANY

    wait_until_applied(stack.settings, within_s=15)
    answers = order_details(stack.settings, list(created))

    for order_id, order in created.items():
        expected = order | {"status": updated[order_id], "shippingCost": shipping_cost(order)}
        assert answers[order_id].status == 200
        assert answers[order_id].body["order"] == expected
    records = _by_order(stack)
    assert {order_id: len(records[order_id]) for order_id in created} == dict.fromkeys(created, 2)
    figures("5,000 orders", writes_per_s=round(2 * MANY / written_s), all_s=time.monotonic() - started)


def _by_order(stack: Stack) -> dict[str, list[TopicRecord]]:
    """The records with a key, by key: other tests put on the shared topic what has none, or is no JSON."""
    found: dict[str, list[TopicRecord]] = defaultdict(list)
    for record in read_topic(stack.settings):
        if record.key is not None:
            found[record.key.decode(errors="replace")].append(record)
    return found
