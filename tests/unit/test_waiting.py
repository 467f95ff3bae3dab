"""Reads that wait: they go on as soon as their event was read, and nobody else waits for them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from order_service.waiting import Stopping, TooManyWait, WaitingRoom
from orderflow.errors import StoreUnavailable
from orderflow.store.reader import Reader
from orderflow.timeline.fate import Fate, Fates
from orderflow.wsgi import draining
from tests.support.applied_log import AppliedLog
from tests.support.waiting import until
from tests.unit.test_projection import changed, created, uuid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from orderflow.settings import Settings
    from orderflow.timeline.fate import EventName

SEATS = 4

#: Longer than any test waits for what comes.
LONG_S = 20.0


@pytest.fixture
def room(settings: Settings) -> WaitingRoom:
    reader = Reader(settings)
    return WaitingRoom(settings, reader, Fates(reader), SEATS)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(SEATS + 1) as pool:
        yield pool


def test_an_event_that_was_read_is_not_waited_for(log: AppliedLog, room: WaitingRoom) -> None:
    log.lay(b"a", created("a", 1))

    assert room.wait(("a", uuid(1)), LONG_S) == Fate("applied")
    assert room.outcomes.total() == 0


def test_each_read_goes_on_with_its_own_event(log: AppliedLog, room: WaitingRoom, pool: ThreadPoolExecutor) -> None:
    first = pool.submit(room.wait, ("a", uuid(1)), LONG_S)
    second = pool.submit(room.wait, ("a", uuid(2)), LONG_S)
    third = pool.submit(room.wait, ("b", uuid(3)), LONG_S)
    until(lambda: room.waiting == 3, "all three wait", LONG_S)

    log.lay(b"a", created("a", 1))
    assert first.result(LONG_S) == Fate("applied")
    assert not second.done()
    log.lay(b"b", changed("b", 3, "shipped"))
    skipped = third.result(LONG_S)
    assert skipped is not None
    assert (skipped.word, skipped.reason) == ("skipped", "unknown_order")
    log.lay(b"a", changed("a", 2, "shipped"))
    assert second.result(LONG_S) == Fate("applied")
    assert (room.waiting, room.outcomes["applied"], room.outcomes["skipped"]) == (0, 2, 1)


def test_an_event_that_comes_just_before_its_read_sits_down_is_not_missed(
    log: AppliedLog, room: WaitingRoom, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another read has had the change looked at, and nothing is committed after it."""
    other = pool.submit(room.wait, ("b", uuid(2)), LONG_S)
    until(lambda: room.waiting == 1, "the other waits", LONG_S)
    look, looks = room._fates.of, threading.Semaphore(0)

    def noted(names: Collection[EventName]) -> dict[EventName, Fate]:
        fates = look(names)
        looks.release()
        if ("a", uuid(1)) in names and not laid:
            laid.append(log.lay(b"a", created("a", 1)))
            assert looks.acquire(timeout=LONG_S)  # this one
            assert looks.acquire(timeout=LONG_S)  # the one for the other
        return fates

    laid: list[str] = []
    monkeypatch.setattr(room._fates, "of", noted)

    before = time.monotonic()
    assert room.wait(("a", uuid(1)), LONG_S) == Fate("applied")
    assert time.monotonic() - before < LONG_S / 2
    log.lay(b"b", created("b", 2))
    assert other.result(LONG_S) == Fate("applied")


def test_whoever_waits_in_vain_is_told_after_its_time(log: AppliedLog, room: WaitingRoom) -> None:
    log.lay(b"a", created("a", 1))
    before = time.monotonic()

    assert room.wait(("a", uuid(2)), 0.1) is None
    assert 0.1 <= time.monotonic() - before < LONG_S
    assert room.wait(("a", uuid(2)), 0) is None
    assert (room.waiting, room.outcomes["late"]) == (0, 1)


def test_when_all_seats_are_taken_the_next_is_refused_at_once(
    log: AppliedLog, room: WaitingRoom, pool: ThreadPoolExecutor
) -> None:
    reads = [pool.submit(room.wait, ("a", uuid(1)), LONG_S) for _ in range(SEATS)]
    until(lambda: room.waiting == SEATS, "all seats are taken", LONG_S)

    with pytest.raises(TooManyWait):
        room.wait(("a", uuid(1)), LONG_S)
    log.lay(b"a", created("a", 1))
    assert [read.result(LONG_S) for read in reads] == [Fate("applied")] * SEATS
    assert room.wait(("a", uuid(2)), 0.01) is None
    assert room.outcomes["refused"] == 1


def test_a_service_that_stops_keeps_nobody_waiting(
    log: AppliedLog, room: WaitingRoom, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log.epoch == 1
    read = pool.submit(room.wait, ("a", uuid(1)), LONG_S)
    until(lambda: room.waiting == 1, "it waits", LONG_S)

    monkeypatch.setattr(draining, "_draining", type("Flag", (), {"value": True}))

    with pytest.raises(Stopping):
        read.result(LONG_S)
    with pytest.raises(Stopping):
        room.wait(("a", uuid(1)), LONG_S)


def test_a_projection_that_goes_away_meanwhile_is_an_error_and_the_next_read_finds_the_new_one(
    settings: Settings, log: AppliedLog, room: WaitingRoom, pool: ThreadPoolExecutor
) -> None:
    read = pool.submit(room.wait, ("a", uuid(1)), 0.3)
    until(lambda: room.waiting == 1, "it waits", LONG_S)
    log.writer.close()
    for path in settings.var.glob("orders.db*"):
        path.unlink()

    with pytest.raises(StoreUnavailable):
        read.result(LONG_S)
    new = AppliedLog(settings)
    with closing(new.writer):
        waits = pool.submit(room.wait, ("a", uuid(1)), LONG_S)
        until(lambda: room.waiting == 1, "it waits for the new one", LONG_S)
        new.lay(b"a", created("a", 1))
        assert waits.result(LONG_S) == Fate("applied")
