"""The broker killed and frozen under load: every answer stays true, and publishing goes on soon after."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import answers
from tests.support.load import Load
from tests.support.store import positions
from tests.support.topic import read_topic
from tests.support.truth import check_truth
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: Waits that are shorter than the broker's own restart, so that requests meet the end of theirs.
SHORT_WAITS = {"publish_attempt_timeout_s": 0.6, "publish_deadline_s": 2.0, "publish_retry_first_delay_s": 0.05}

IN_FLIGHT = 20
KILLS = 3

#: From the broker's return to the first acknowledgement, and to the first record applied.
BACK_S = 3.0


@pytest.mark.parametrize("waits", [SHORT_WAITS, {}], ids=["short waits", "default waits"])
def test_broker_killed_with_requests_in_flight(
    make_stack: MakeStack, figures: Figures, waits: dict[str, float]
) -> None:
    stack = make_stack(**waits)
    stack.up()
    in_flight, published_s, applied_s = [], [], []

    with Load(stack.settings) as load:
        for _ in range(KILLS):
            _let_it_flow(load, stack)
            pid = stack.pid("kafka")
            assert pid is not None
            in_flight.append(until(lambda: load.in_flight >= IN_FLIGHT and load.in_flight, "requests in flight", 10))
            with _watch_return(stack) as watch:
                os.kill(pid, signal.SIGKILL)
                back = until(lambda: watch.back, "the broker is back", within_s=30)
            published = until(lambda: load.ledger.first_published_after(back), "an acknowledgement", within_s=30)  # noqa: B023
            published_s.append(published - back)
            before = sum(positions(stack.settings).values())
            until(lambda: sum(positions(stack.settings).values()) > before, "records are applied again", 30)  # noqa: B023
            applied_s.append(time.monotonic() - back)
        load.stop()
    verdict = check_truth(load.ledger, stack.settings)

    figures(
        f"broker killed {KILLS} times, {'short' if waits else 'default'} waits",
        **verdict.outcomes,
        in_flight=in_flight,
        unknown_on_topic=verdict.unknown_on_topic,
        duplicates_on_topic=verdict.duplicates,
        published_again_s=[round(seconds, 2) for seconds in published_s],
        applied_again_s=[round(seconds, 2) for seconds in applied_s],
    )
    assert min(in_flight) >= IN_FLIGHT
    assert max(published_s) < BACK_S


@pytest.mark.parametrize("waits", [SHORT_WAITS, {}], ids=["short waits", "default waits"])
def test_broker_frozen_beyond_every_timeout(make_stack: MakeStack, figures: Figures, waits: dict[str, float]) -> None:
    stack = make_stack(**waits)
    stack.up()
    settings = stack.settings

    with Load(settings) as load:
        _let_it_flow(load, stack)
        pid = stack.pid("kafka")
        assert pid is not None
        with frozen(pid):
            since = time.monotonic()
            in_flight = load.in_flight
            # All that was in flight has given up, and so has one that began after the freeze.
            patience_s = 2 * (settings.publish_deadline_s + settings.publish_attempt_timeout_s)
            until(lambda: load.all_begun_since(since), "all in flight at the freeze are answered", patience_s)
            began = time.monotonic()
            until(lambda: load.all_begun_since(began), "all begun later are answered", patience_s)
            time.sleep(max(0.0, since + settings.publish_deadline_s + 1 - time.monotonic()))
            frozen_s = time.monotonic() - since
            during = [entry for entry in load.ledger if entry.sent > since]
        thawed = time.monotonic()
        published = until(lambda: load.ledger.first_published_after(thawed), "an acknowledgement", within_s=30)
        before = sum(positions(settings).values())
        until(lambda: sum(positions(settings).values()) > before, "records are applied again", 30)
        applied_s = time.monotonic() - thawed
        load.stop()
    verdict = check_truth(load.ledger, settings)

    figures(
        f"broker frozen for {frozen_s:.1f} s, {'short' if waits else 'default'} waits",
        **verdict.outcomes,
        in_flight=in_flight,
        unknown_on_topic=verdict.unknown_on_topic,
        duplicates_on_topic=verdict.duplicates,
        published_again_s=published - thawed,
        applied_again_s=applied_s,
    )
    assert in_flight >= IN_FLIGHT
    assert frozen_s > settings.publish_deadline_s
    assert during
    assert not any(entry.published for entry in during), "a frozen broker acknowledged"
    assert any(entry.outcome == "spooled" for entry in during)
    copies = Counter(record.event_id for record in read_topic(settings))
    in_flight_then = [entry for entry in load.ledger if entry.sent < since and entry.outcome == "spooled"]
    # The relay had no connection at the freeze: what it tried meanwhile was never sent.
    assert any(copies[entry.event_id or ""] > 1 for entry in in_flight_then), "no late copy came to the topic"
    assert published - thawed < BACK_S


@dataclass
class Watch:
    """When the broker was first seen to answer again after it had gone."""

    back: float | None = None


@contextmanager
def _watch_return(stack: Stack) -> Iterator[Watch]:
    """Look from a thread of its own: away, then back."""
    watch = Watch()
    stop = threading.Event()

    def look() -> None:
        away = False
        while not stop.wait(0.01) and watch.back is None:
            if not answers(stack.settings.kafka_port):
                away = True
            elif away:
                watch.back = time.monotonic()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join(timeout=10)


def _let_it_flow(load: Load, stack: Stack) -> None:
    """Wait until everything runs and the load gets its acknowledgements."""
    until(lambda: all(row.ok for row in stack.status()), "all programs are well", within_s=30, every_s=0.1)
    enough = len(load.ledger.published()) + 300
    until(lambda: len(load.ledger.published()) >= enough, "the load is under way", within_s=30)
