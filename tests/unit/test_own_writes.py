"""What a client remembers of its writes: which events a read must not miss."""

from __future__ import annotations

import threading
import time

from orderflow.client.own_writes import EVENTS_MAX, OwnWrites


def ids(own: OwnWrites, order_id: str = "ord-1") -> tuple[str, ...]:
    return tuple(one.event_id for one in own.awaited(order_id))


def test_the_last_write_of_an_order_counts() -> None:
    own = OwnWrites()

    for event_id in ("e-1", "e-2"):
        own.note("ord-1", event_id, time.monotonic(), is_new=True)
    own.note("ord-2", "e-3", time.monotonic(), is_new=True)

    assert (ids(own), ids(own, "ord-2"), ids(own, "ord-3")) == (("e-2",), ("e-3",), ())


def test_of_writes_that_overlapped_each_counts() -> None:
    """Given a second one that began before the first was acknowledged, nobody can say which is later."""
    own = OwnWrites()
    began_at = time.monotonic()

    own.note("ord-1", "e-1", began_at, is_new=True)
    own.note("ord-1", "e-2", began_at, is_new=True)
    assert own.awaited("ord-1") == (("e-1", True), ("e-2", True))

    own.note("ord-1", "e-3", time.monotonic(), is_new=True)
    assert ids(own) == ("e-3",)


def test_an_event_that_may_have_been_sent_before_takes_the_place_of_none() -> None:
    """Its first copy may be applied while the writes behind it are not: however many those are, the last counts."""
    own = OwnWrites()

    own.note("ord-1", "e-0", time.monotonic(), is_new=False)
    for number in range(1, 30):
        own.note("ord-1", f"e-{number}", time.monotonic(), is_new=True)
    own.note("ord-1", "e-0", time.monotonic(), is_new=False)

    assert own.awaited("ord-1") == (("e-29", False), ("e-0", True))


def test_an_event_that_was_not_the_last_is_forgotten_once_it_is_settled() -> None:
    """So one who always gives keys waits for few; the last one tells its fate at every read."""
    own = OwnWrites()
    for event_id in ("e-1", "e-2"):
        own.note("ord-1", event_id, time.monotonic(), is_new=False)

    for event_id in ("e-1", "e-2", "e-3"):
        own.settled("ord-1", event_id)

    assert own.awaited("ord-1") == (("e-2", True),)


def test_what_is_remembered_is_bounded() -> None:
    """The order that was written longest ago is forgotten first, and of one order the event that was."""
    own = OwnWrites(orders_max=2)

    for order_id in ("a", "b", "a", "c"):
        for number in range(EVENTS_MAX * 2):
            own.note(order_id, f"{order_id}-{number}", time.monotonic(), is_new=False)

    assert [bool(ids(own, order_id)) for order_id in "abc"] == [True, False, True]
    assert ids(own, "a") == tuple(f"a-{number}" for number in range(EVENTS_MAX, EVENTS_MAX * 2))


def test_threads_may_write_at_once() -> None:
    own = OwnWrites(orders_max=50)

    def write(name: str) -> None:
        for number in range(500):
            own.note(f"ord-{number % 60}", f"{name}-{number}", time.monotonic(), is_new=number % 2 == 0)
            own.settled(f"ord-{number % 60}", f"{name}-{number - 60}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(own._orders) == 50
    assert all(ids(own, order_id) for order_id in own._orders)
