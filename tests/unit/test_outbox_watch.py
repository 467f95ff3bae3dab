"""The watch over the outbox: what it takes for the end of an outage, and the alerts that it raises."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cart_service.app import Parts, make_service
from cart_service.outbox_watch import IN_VAIN_MAX, OutboxWatch
from orderflow.errors import StoreUnavailable, Unsent
from orderflow.messages import Message, Published
from orderflow.publishing.breaker import State
from orderflow.settings import Settings
from orderflow.store.alerts import Alerts
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.wsgi.service import NotReady
from tests.support.metrics import Scrape
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orderflow.broker.requests import Result

QUICK: dict[str, Any] = {
    "publish_retry_max": 0,
    "publish_attempt_timeout_s": 0.1,
    "publish_deadline_s": 1,
    "outbox_pause_s": 0.3,
    "wait_max_delay_s": 0.05,
}


@dataclass
class Cart:
    """The parts of a cart service; Kafka is what ``away`` says, and no thread looks by itself."""

    parts: Parts
    settings: Settings
    away: bool = False

    def deliver(self, messages: Sequence[Message], _: float | None = None) -> list[Result]:
        return [Unsent("away") if self.away else Published(0, 0) for _ in messages]

    def publish(self, order: str, number: int = 0) -> object:
        message = Message(order.encode(), b"v", (), order, f"{order}-{number}")
        return self.parts.publisher.publish(message)

    def look(self) -> None:
        self.parts.outbox_watch.look()

    def relay(self) -> None:
        """Deliver all that waits."""
        outbox = self.parts.outbox_watch.outbox
        outbox.settle(delivered=[(entry.seq, 0, entry.seq) for entry in outbox.deliverable(1_000)])

    def alerts(self, *, open_only: bool = False) -> list[str]:
        return [row.cause for row in Alerts(self.settings).rows(open_only=open_only)]


@contextmanager
def started(folder: Path, **further: Any) -> Iterator[Cart]:
    settings = Settings(var_dir=str(folder), **QUICK, **further)
    parts = Parts.of(settings)
    cart = Cart(parts, settings)
    parts.publisher._delivery._producer = cart  # type: ignore[assignment]
    cart.look()
    parts.publisher.verified()
    yield cart
    parts.alerts.close()


@pytest.fixture
def cart(tmp_path: Path) -> Iterator[Cart]:
    with started(tmp_path) as cart:
        yield cart


def test_an_outage_opens_one_alert_that_resolves_when_what_it_left_is_delivered(cart: Cart) -> None:
    """Later events of an order in use do not keep it open."""
    cart.away = True
    for order in ("a", "b"):
        cart.publish(order)
        cart.look()
    cart.away = False
    until(cart.alerts, "an alert is open", within_s=5)
    cart.relay()
    cart.look()  # sees the delivery: the breaker closes
    cart.look()  # takes note of the last event of the outage
    cart.parts.outbox_watch.outbox.add([(Message(b"c", b"v", (), "c", "c-1"), False)])
    cart.look()

    until(lambda: not cart.alerts(open_only=True), "the alert is resolved", within_s=5)
    assert cart.alerts() == ["kafka_unreachable"]
    assert Alerts(cart.settings).rows(open_only=False)[0].affected == 2
    assert cart.parts.publisher.breaker.closed


def test_what_the_relay_delivers_closes_the_breaker_though_no_request_comes(cart: Cart) -> None:
    cart.away = True
    cart.publish("a")
    cart.look()
    before = cart.parts.publisher.breaker.state
    cart.relay()
    cart.look()

    assert before is State.OPEN
    assert cart.parts.publisher.breaker.closed


def test_a_breaker_that_opens_while_it_looks_is_alerted_of_at_the_next_look(cart: Cart) -> None:
    """However the two interleave: the openings are counted, and read once."""
    watch, breaker = cart.parts.outbox_watch, cart.parts.publisher.breaker
    seen = breaker.openings
    add = cart.parts.alerts.add

    def opens_meanwhile(*arguments: Any) -> None:
        breaker.fail("away")
        add(*arguments)

    cart.parts.alerts.add = opens_meanwhile  # type: ignore[method-assign]
    watch._openings, cart.parts.outbox_watch._spool.stored = max(1, seen), 5
    breaker.openings = max(1, seen)
    watch.look()
    watch.look()

    until(lambda: cart.alerts() == ["kafka_unreachable"], "an alert is open", within_s=5)


def test_an_outbox_that_takes_nothing_opens_one_alert_however_often_it_fails(
    cart: Cart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resolves when as much as some events can be written again."""
    outbox = cart.parts.publisher._spool._outbox
    full = StoreUnavailable("disk full")

    def fail(*_: object) -> Any:
        raise full

    cart.away = True
    with monkeypatch.context() as disk:
        disk.setattr(outbox, "add", fail)
        disk.setattr(cart.parts.outbox_watch.outbox, "try_to_write", fail)
        for number in range(5):
            cart.publish(f"o{number}")
            cart.look()
            time.sleep(0.06)
        with pytest.raises(NotReady, match="takes no events"):
            cart.parts.outbox_watch.check()
        until(lambda: "outbox_unwritable" in cart.alerts(), "an alert is open", within_s=5)
    cart.look()
    cart.look()

    until(lambda: "outbox_unwritable" not in cart.alerts(open_only=True), "the alert is resolved", within_s=5)
    assert cart.alerts().count("outbox_unwritable") == 1
    assert cart.parts.outbox_watch.check()[0]


def test_readiness_and_metrics_tell_of_breaker_and_outbox(cart: Cart) -> None:
    well = cart.parts.kafka.check()
    cart.away = True
    cart.publish("a")
    cart.look()
    away = cart.parts.kafka.check()
    cart.parts.publisher.breaker.probe()
    probing = cart.parts.kafka.check()

    assert well == (True, "The breaker is closed: Kafka takes events.")
    assert not away[0]
    assert away[1].startswith("The breaker is open for 0 s: events go to the outbox. away")
    assert probing[1].startswith("The breaker is half-open")
    assert cart.parts.outbox_watch.breaker() == {("closed",): 0, ("half_open",): 1, ("open",): 0}
    assert cart.parts.outbox_watch.events() == {("waiting",): 1, ("held",): 0}
    assert cart.parts.outbox_watch.undelivered_bytes()[()] > 400
    assert cart.parts.outbox_watch.retries() == {(): 0}
    assert cart.parts.outbox_watch.check() == (True, "The outbox takes events; 1 wait in it, 0 are held.")


def test_the_age_of_the_oldest_grows_until_nothing_waits(cart: Cart) -> None:
    """Between two looks, too, and before the first look nobody knows."""
    watch = cart.parts.outbox_watch
    fresh = OutboxWatch(cart.settings, cart.parts.publisher, watch._spool, cart.parts.kafka, cart.parts.alerts)
    assert fresh.oldest_age_s() == {}
    none = watch.oldest_age_s()
    cart.away = True
    cart.publish("a")
    cart.look()
    first = watch.oldest_age_s()["waiting",]
    cart.publish("b")
    cart.look()
    until(lambda: watch.oldest_age_s()["waiting",] >= first + 0.05, "it grows", within_s=1)
    cart.relay()
    cart.look()

    assert none == watch.oldest_age_s() == {("waiting",): 0, ("held",): 0}


def test_what_is_held_and_what_waits_behind_it_does_not_wait_for_the_relay(cart: Cart) -> None:
    """It has an age of its own, and the others have theirs."""
    watch = cart.parts.outbox_watch
    cart.away = True
    for order, number in (("a", 1), ("a", 2), ("b", 1)):
        cart.publish(order, number)
        time.sleep(0.02)
    watch.outbox.settle(held=[(1, "too large")])
    cart.look()
    beside = watch.oldest_age_s()
    watch.outbox.settle(delivered=[(3, 0, 0)])
    cart.look()
    drained = watch.oldest_age_s()
    oldest = OutboxDesk(cart.settings).oldest_waiting_at()
    OutboxDesk(cart.settings).retry([1])
    cart.look()

    assert beside["held",] >= beside["waiting",] + 0.03 > 0.03
    assert drained["waiting",] == 0 < beside["held",] <= drained["held",]
    assert oldest == watch.outbox.deliverable(1)[0].spooled_at, "whoever lists it sees all that is undelivered"
    assert watch.oldest_age_s()["waiting",] >= drained["held",]


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Cart]:
    with started(tmp_path, outbox_busy_timeout_s=0.3) as cart:
        yield cart


def test_figures_of_an_outbox_that_cannot_be_read_are_not_known(impatient: Cart) -> None:
    """A moment's lock is nothing; then what was known once is not told any more, until it can be read again."""
    cart = impatient
    watch = cart.parts.outbox_watch
    cart.away = True
    cart.publish("a")
    cart.look()
    with closing(sqlite3.connect(cart.settings.outbox_db, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        cart.look()
        assert watch.events() == {("waiting",): 1, ("held",): 0}
        for _ in range(IN_VAIN_MAX):
            cart.look()
        assert (watch.events(), watch.undelivered_bytes(), watch.oldest_age_s()) == ({}, {}, {})
        assert watch.check() == (False, "The outbox cannot be read: how many events wait in it is not known.")
        other.execute("ROLLBACK")
    cart.relay()
    cart.look()

    assert watch.events() == {("waiting",): 0, ("held",): 0}
    assert cart.parts.publisher.breaker.closed, "what was delivered meanwhile is noticed"


def test_the_watch_over_kafka_survives_an_error_that_nobody_foresaw(
    cart: Cart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is free, say: without it nothing would ever be verified."""

    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("cart_service.kafka_watch.ensure_topic", fail)
    problem = cart.parts.kafka._reach()

    assert problem is not None
    assert "Too many open files" in problem


def test_each_outcome_of_a_write_is_there_before_the_first_one(cart: Cart) -> None:
    """A rule must see the step from 0 to 1."""
    found = Scrape.of(make_service(cart.settings, cart.parts).metrics.render().decode())

    published = found.all("orderflow_events_published_total")
    assert {outcome for outcome, _ in published} == {"published", "spooled", "refused", "unknown"}
    assert {kind for _, kind in published} == {"order.created", "order.status_changed"}
    assert set(published.values()) == {0}
