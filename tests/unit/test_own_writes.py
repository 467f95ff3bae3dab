"""What a client remembers of its writes: which events a read must not miss."""

from __future__ import annotations

import threading
import time

from orderflow.client.own_writes import KNOWN_MAX, OwnWrites


def test_the_last_write_of_an_order_counts() -> None:
    own = OwnWrites()

    for event_id in ("e-1", "e-2"):
        own.note("ord-1", event_id, time.monotonic())
    own.note("ord-2", "e-3", time.monotonic())

    assert (own.last("ord-1"), own.last("ord-2"), own.last("ord-3")) == (("e-2",), ("e-3",), ())


def test_of_writes_that_overlapped_each_counts() -> None:
    """Given a second one that began before the first was acknowledged, nobody can say which is later."""
    own = OwnWrites()
    began_at = time.monotonic()

    own.note("ord-1", "e-1", began_at)
    own.note("ord-1", "e-2", began_at)
    assert own.last("ord-1") == ("e-1", "e-2")

    own.note("ord-1", "e-3", time.monotonic())
    assert own.last("ord-1") == ("e-3",)


def test_an_event_that_is_sent_once_more_is_no_later_than_it_was() -> None:
    """Its first copy may be applied while the write behind it is not."""
    own = OwnWrites()

    for event_id in ("e-1", "e-2", "e-1"):
        own.note("ord-1", event_id, time.monotonic())

    assert own.last("ord-1") == ("e-2",)


def test_what_is_remembered_is_bounded() -> None:
    """The order that was written longest ago is forgotten first; of one order few ids are kept."""
    own = OwnWrites(orders_max=2)

    for order_id in ("a", "b", "a", "c"):
        for number in range(KNOWN_MAX * 2):
            own.note(order_id, f"{order_id}-{number}", time.monotonic())

    assert [bool(own.last(order_id)) for order_id in "abc"] == [True, False, True]
    assert len(own._orders["a"].known) == KNOWN_MAX


def test_threads_may_write_at_once() -> None:
    own = OwnWrites(orders_max=50)

    def write(name: str) -> None:
        for number in range(500):
            own.note(f"ord-{number % 60}", f"{name}-{number}", time.monotonic())

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(own._orders) == 50
    assert all(own.last(order_id) for order_id in own._orders)
