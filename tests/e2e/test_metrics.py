"""The metrics of a running stack: Prometheus takes them, all that are documented are there, and each counts right."""

from __future__ import annotations

import re
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from orderflow.process import read_heartbeat
from orderflow.worker_metrics import CONSUMER, COUNTERS, RELAY
from tests.support.calls import Caller
from tests.support.documents import DOCS, read, table
from tests.support.metrics import metric_of, metrics_text, scrape
from tests.support.promtool import promtool
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.stack import Stack
    from tests.support.metrics import Scrape

#: What the heartbeats count besides: gauges that are told otherwise, and what the histograms have, too.
NOT_EXPORTED = {"lag", "batches", "apply_ms", "waiting", "held"}


@pytest.fixture
def cart(stack: Stack) -> Iterator[Caller]:
    with closing(Caller(stack.settings.cart_port)) as caller:
        yield caller


@pytest.mark.parametrize("service", ["cart_port", "order_port"])
def test_prometheus_has_nothing_to_say_against_them(stack: Stack, service: str) -> None:
    """Names, units, types and help texts are as its conventions want them."""
    promtool("check", "metrics", stdin=metrics_text(getattr(stack.settings, service)))


def test_all_that_are_documented_are_there_with_their_labels(stack: Stack, cart: Caller) -> None:
    """And no others, in name or label."""
    assert cart.call("POST", "/create-order", {"orderId": "metrics-there", "itemsNum": 1}).status == 201
    rows = table(read(DOCS / "metrics.md"), "(?:orderflow|process)_[a-z_]+")
    documented = {name: set(re.findall(r"`(\w+)`", cells[1])) for name, cells in rows.items()}

    def found() -> dict[str, set[str]]:
        labels = {metric_of(name): {label for label, _ in pairs} for name, pairs in scrape(stack.settings)}
        return {name: names - {"le"} for name, names in labels.items()}

    with suppress(AssertionError):  # The comparison below says what differs.
        until(lambda: found() == documented, "a heartbeat after the first batch tells of everything", within_s=5)
    assert found() == documented


def test_all_that_workers_count_is_told(stack: Stack) -> None:
    """But for what is told in another way."""
    exported = {key for counter in COUNTERS for key in counter.keys.values()}
    for program in (CONSUMER, RELAY):
        beat = read_heartbeat(stack.settings, program)
        assert beat is not None
        assert beat.counters.keys() <= exported | NOT_EXPORTED


def quiet(stack: Stack) -> Scrape:
    """What is measured when all that was published is applied, what was skipped is copied, and both are told."""

    def beats() -> list[float]:
        return [beat.at for program in (CONSUMER, RELAY) if (beat := read_heartbeat(stack.settings, program))]

    def caught_up() -> Scrape | None:
        found = scrape(stack.settings)
        copied = found.value("orderflow_dead_letters_total") == sum(
            found.all("orderflow_records_skipped_total").values()
        )
        return found if copied and not any(found.all("orderflow_lag_records").values()) else None

    for _ in range(2):  # The first may have begun before the last record came.
        before = beats()
        until(lambda last=before: min(beats()) > max(last), "both workers beat", within_s=10)
    return until(caught_up, "nothing is left to be done", within_s=15)


def test_what_becomes_of_writes_is_counted_once_each(stack: Stack, cart: Caller) -> None:
    """A create, its retry with the same key, an update, and the update of an order that there is not."""
    before = quiet(stack)
    key = {"Idempotency-Key": "metrics-1"}
    body = {"orderId": "metrics-a", "itemsNum": 1}
    answers = [
        cart.call("POST", "/create-order", body, key),
        cart.call("POST", "/create-order", body, key),
        cart.call("PUT", "/update-order", {"orderId": "metrics-a", "status": "shipped"}),
        cart.call("PUT", "/update-order", {"orderId": "metrics-none", "status": "shipped"}),
        cart.call("PUT", "/update-order", {"orderId": "metrics-a", "status": "lost"}),
    ]
    assert [answer.status for answer in answers] == [201, 201, 200, 200, 400]

    def counted() -> dict[str, float]:
        """What has grown, as far as it counts events and answers."""
        grown = scrape(stack.settings).grown(before)
        return {
            "/".join((name, *(value for _, value in labels))): by
            for (name, labels), by in grown.items()
            if not name.startswith(("process_", "orderflow_http_request_duration", "orderflow_apply", "orderflow_lag"))
            and "/metrics" not in dict(labels).values()
            and not name.endswith("age_seconds")
        }

    expected = {
        "orderflow_http_requests_total/POST//create-order/201": 2,
        "orderflow_http_requests_total/PUT//update-order/200": 2,
        "orderflow_http_requests_total/PUT//update-order/400": 1,
        "orderflow_events_published_total/published/order.created": 2,
        "orderflow_events_published_total/published/order.status_changed": 2,
        "orderflow_events_applied_total": 2,
        "orderflow_events_duplicate_total": 1,
        "orderflow_records_skipped_total/unknown_order": 1,
        "orderflow_skips_open/unknown_order": 1,
        "orderflow_dead_letters_total": 1,
    }
    with suppress(AssertionError):  # As above.
        until(lambda: counted() == expected, "all of it is counted, and nothing else", within_s=10, every_s=0.1)
    assert counted() == expected


def test_a_scrape_is_quick(stack: Stack) -> None:
    """Over HTTP, with everything that the stack has seen so far."""
    took = []
    for _ in range(5):
        started = time.perf_counter()
        metrics_text(stack.settings.order_port)
        took.append(time.perf_counter() - started)

    assert min(took) < 0.05
