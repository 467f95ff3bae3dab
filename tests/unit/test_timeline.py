"""The timeline: every step of an order's events, wherever it is kept; and what became of one event."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from orderflow.errors import AmbiguousEvent
from orderflow.headers import to_bytes
from orderflow.healing.desk import HealingDesk
from orderflow.messages import Message
from orderflow.settings import Settings
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.store.reader import Reader
from orderflow.timeline.desk import Timeline
from orderflow.timeline.fate import Fate, Fates
from tests.support import store
from tests.support.applied_log import AppliedLog
from tests.support.healing.driver import rebuilt
from tests.support.random_log import TOPIC_ID, RandomLog, applied
from tests.unit.test_healing import DESTROYED, asked, discard, redrive
from tests.unit.test_projection import changed, created, event, uuid

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.timeline.shown import EventShown

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = to_bytes([("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())])


@pytest.fixture
def timeline(settings: Settings) -> Timeline:
    return Timeline(settings, Reader(settings))


@pytest.fixture
def desk(settings: Settings) -> HealingDesk:
    return HealingDesk(settings)


def spool(settings: Settings, *values: tuple[str, int, bytes]) -> None:
    """Put events into the outbox: order, event id, value."""
    messages = [Message(order.encode(), value, (), order, uuid(number), TRACE) for order, number, value in values]
    Outbox(settings).add([(message, False) for message in messages])


def told(timeline: Timeline, order_id: str = "a") -> list[tuple[str, list[str]]]:
    """Each event's state, and its steps."""
    return [(one["state"], words(one)) for one in timeline.of_order(order_id).events]


def words(one: EventShown | None) -> list[str]:
    assert one is not None
    return [step["step"] for step in one["steps"]]


def one(timeline: Timeline, number: int, order_id: str | None = None) -> EventShown:
    found = timeline.of_event(uuid(number), order_id)
    assert found is not None
    return found


def fate(settings: Settings, number: int, order_id: str = "a") -> Fate | None:
    return Fates(Reader(settings)).of([(order_id, uuid(number))]).get((order_id, uuid(number)))


def test_an_order_tells_each_event_with_its_place_its_times_and_its_trace(log: AppliedLog, timeline: Timeline) -> None:
    value = event("order.status_changed", "a", 2, status="shipped", occurred_at="2026-01-02T03:04:05.678Z")
    log.lay(b"a", created("a", 1))
    log.lay(b"a", value, header_bytes=TRACED)

    first, second = timeline.of_order("a").events

    assert (first["type"], first["status"], first["state"]) == ("order.created", "new", "applied")
    assert (second["type"], second["status"], second["offset"]) == ("order.status_changed", "shipped", 1)
    accepted, published, applied = second["steps"]
    assert (accepted["step"], accepted["at"]) == ("accepted", "2026-01-02T03:04:05.678Z")
    assert (published["step"], published["offset"]) == ("published", 1)
    assert applied["step"] == "applied"
    assert accepted["at"] < published["at"] <= applied["at"]  # type: ignore[operator]
    assert {second["traceId"], *(step["traceId"] for step in second["steps"])} == {TRACE}


def test_a_spooled_event_is_told_before_it_is_on_the_topic_and_after(
    settings: Settings, log: AppliedLog, timeline: Timeline
) -> None:
    log.lay(b"a", created("a", 1))
    spool(settings, ("a", 2, changed("a", 2, "shipped")), ("a", 3, changed("a", 3, "pending")))
    before = told(timeline)
    state = one(timeline, 2)["state"]

    log.relay()

    assert before == [("applied", ["published", "applied"]), ("spooled", ["spooled"]), ("spooled", ["spooled"])]
    assert state == "spooled"
    assert told(timeline)[1:] == [("applied", ["spooled", "published", "applied"])] * 2


def test_what_was_delivered_and_not_read_yet_is_published(
    settings: Settings, log: AppliedLog, timeline: Timeline
) -> None:
    spool(settings, ("a", 1, created("a", 1)))
    (entry,) = Outbox(settings).deliverable(1)
    Outbox(settings).settle(delivered=[(entry.seq, 3, 77)])

    found = one(timeline, 1)

    assert (found["state"], found["partition"], found["offset"]) == ("published", 3, 77)
    assert words(found) == ["spooled", "delivered"]
    assert fate(settings, 1) is None
    assert log.epoch == 1


def test_what_kafka_refuses_is_held_and_then_given_up_by_whom(
    settings: Settings, log: AppliedLog, timeline: Timeline
) -> None:
    del log
    spool(settings, ("a", 1, created("a", 1)))
    Outbox(settings).settle(held=[(1, "too large")])
    held = one(timeline, 1)

    OutboxDesk(settings).discard([1], "kim", "sent in two parts")

    assert (held["state"], held["detail"], words(held)) == ("held", "too large", ["spooled", "held"])
    given_up = one(timeline, 1)
    assert (given_up["state"], words(given_up)) == ("given_up", ["spooled", "given_up"])
    assert (given_up["steps"][-1]["author"], given_up["steps"][-1]["reason"]) == ("kim", "sent in two parts")
    assert [state for state, _ in told(timeline)] == ["given_up"]


def test_a_skipped_event_tells_why_and_its_sender_learns_it(
    settings: Settings, log: AppliedLog, timeline: Timeline
) -> None:
    log.lay(b"a", changed("a", 1, "shipped"))

    found = one(timeline, 1)

    assert (found["state"], found["reason"]) == ("skipped", "unknown_order")
    assert found["steps"][-1]["reason"] == "unknown_order"
    assert fate(settings, 1) == Fate("skipped", "unknown_order", found["detail"])


def test_a_repair_is_told_with_its_author_from_the_moment_it_is_asked_for(
    settings: Settings, log: AppliedLog, timeline: Timeline, desk: HealingDesk
) -> None:
    place = log.lay(b"a", DESTROYED)
    log.lay(b"a", changed("a", 2, "shipped"))

    (remedy,) = asked(desk, redrive(created("a", 1), reason="mended by hand"), place).remedies
    under_way = told(timeline)
    log.relay()

    assert under_way[0] == ("skipped", ["published", "skipped", "redrive_asked"])
    first, second = timeline.of_order("a").events
    assert (first["state"], words(first)) == ("repaired", ["published", "skipped", "repaired"])
    repaired = first["steps"][-1]
    assert (repaired["author"], repaired["reason"]) == ("mira", "mended by hand")
    assert repaired["eventId"] == remedy.control.event_id
    assert repaired["at"] is not None
    assert (second["state"], words(second)) == ("healed", ["published", "skipped", "healed"])
    assert fate(settings, 2) == Fate("applied")


def test_a_control_has_a_state_of_its_own(log: AppliedLog, timeline: Timeline, desk: HealingDesk) -> None:
    place = log.lay(b"a", changed("a", 1, "shipped"))
    (remedy,) = asked(desk, discard(), place).remedies
    control_id = remedy.control.event_id
    spooled = timeline.of_event(control_id)

    log.relay()

    assert spooled is not None
    assert (spooled["kind"], spooled["type"], spooled["state"]) == ("control", "message.discarded", "spooled")
    read = timeline.of_event(control_id)
    assert read is not None
    assert (read["state"], words(read)) == ("accepted", ["spooled", "published", "applied"])


def test_what_is_discarded_tells_by_whom_and_its_sender_that_it_is_not_applied(
    settings: Settings, log: AppliedLog, timeline: Timeline, desk: HealingDesk
) -> None:
    place = log.lay(b"a", changed("a", 1, "shipped"))
    asked(desk, discard(), place)
    log.relay()

    found = one(timeline, 1)

    assert (found["state"], words(found)) == ("discarded", ["published", "skipped", "discarded"])
    assert found["steps"][-1]["author"] == "kim"
    known = fate(settings, 1)
    assert known is not None
    assert known.word == "skipped"


def test_an_event_that_a_repair_turned_into_a_skip_tells_both(
    log: AppliedLog, timeline: Timeline, desk: HealingDesk
) -> None:
    place = log.lay(b"a", DESTROYED)
    log.lay(b"a", created("a", 2, "c-2"))

    (remedy,) = asked(desk, redrive(created("a", 1)), place).remedies
    log.relay()

    _, second = timeline.of_order("a").events
    assert (second["state"], words(second)) == ("skipped", ["published", "applied", "skipped"])
    assert second["reason"] == "duplicate_create"
    assert second["steps"][-1]["eventId"] == remedy.control.event_id


def test_copies_are_told_each_in_its_place_and_do_not_change_how_the_event_stands(
    settings: Settings, log: AppliedLog, timeline: Timeline
) -> None:
    for _ in range(2):
        log.lay(b"a", created("a", 1))

    assert told(timeline) == [("applied", ["published", "applied"]), ("duplicate", ["published", "duplicate"])]
    found = one(timeline, 1)
    assert (found["state"], found["offset"]) == ("applied", 0)
    assert words(found) == ["published", "applied", "published", "duplicate"]
    assert fate(settings, 1) == Fate("applied")


def test_a_refused_control_is_told_with_its_verdict(log: AppliedLog, timeline: Timeline, desk: HealingDesk) -> None:
    place = log.lay(b"a", DESTROYED)
    (remedy,) = asked(desk, redrive(created("a", 1)), place).remedies
    log.relay()
    message = remedy.control
    assert message.value is not None
    late = message.value.replace(b'"mira"', b'"late"').replace(message.event_id.encode(), uuid(9).encode())
    log.lay(message.key, late, message.partition)

    (found,) = timeline.of_order("a").events

    assert words(found) == ["published", "skipped", "repaired", "refused"]
    assert (found["steps"][-1]["author"], found["steps"][-1]["reason"]) == ("late", "superseded")


def test_what_lies_in_no_history_is_told_of_the_order_it_is_about(
    settings: Settings, log: AppliedLog, timeline: Timeline
) -> None:
    log.lay(b"b", changed("a", 1, "shipped"))

    assert [state for state, _ in told(timeline)] == ["skipped"]
    assert one(timeline, 1)["reason"] == "key_mismatch"
    known = fate(settings, 1)
    assert known is not None
    assert known.reason == "key_mismatch"


def test_an_event_that_nobody_knows_is_nothing(settings: Settings, log: AppliedLog, timeline: Timeline) -> None:
    log.lay(b"a", created("a", 1))

    assert timeline.of_event(uuid(2)) is None
    assert timeline.of_event(uuid(1), "b") is None
    assert timeline.of_order("b").events == []
    assert fate(settings, 2) is None
    assert fate(settings, 1, "b") is None


def test_an_id_that_two_orders_have_asks_which(log: AppliedLog, timeline: Timeline) -> None:
    log.lay(b"a", created("a", 1))
    log.lay(b"b", created("b", 1))

    with pytest.raises(AmbiguousEvent, match=r"2 orders .* 'a', 'b'"):
        timeline.of_event(uuid(1))
    assert one(timeline, 1, "b")["orderId"] == "b"


def test_a_long_history_comes_in_pages_and_the_outbox_at_the_end(
    settings: Settings, log: AppliedLog, timeline: Timeline
) -> None:
    log.lay(b"a", created("a", 0))
    for number in range(1, 7):
        log.lay(b"a", changed("a", number, "pending"))
    spool(settings, ("a", 99, changed("a", 99, "shipped")))

    ids, after, pages = [], (0, -1, -1), 0
    while True:
        page = timeline.of_order("a", after, 3)
        ids += [one["eventId"] for one in page.events]
        pages += 1
        if not page.full:
            break
        assert page.last is not None
        after = page.last

    assert ids == [*(uuid(number) for number in range(7)), uuid(99)]
    assert pages == 3


def test_the_time_of_an_event_is_that_of_its_own_batch(log: AppliedLog, timeline: Timeline) -> None:
    """Not that of a later one, however many follow."""
    log.lay(b"a", created("a", 1))
    first = timeline.of_order("a").events[0]["steps"][-1]["at"]
    for number in range(2, 5):
        log.lay(b"a", changed("a", number, "pending"))

    assert timeline.of_order("a").events[0]["steps"][-1]["at"] == first


def test_a_repair_that_is_a_copy_of_what_is_skipped_does_not_make_it_applied(
    settings: Settings, log: AppliedLog, timeline: Timeline, desk: HealingDesk
) -> None:
    log.lay(b"a", changed("a", 1, "shipped"))
    log.lay(b"a", created("a", 2))
    damaged = log.lay(b"a", changed("a", 1, "shiped"))
    asked(desk, redrive(changed("a", 1, "shipped"), force=True), damaged)
    log.relay()

    found = one(timeline, 1)

    assert [state for state, _ in told(timeline)] == ["skipped", "applied", "repaired"]
    assert (found["state"], found["offset"], found["reason"]) == ("skipped", 0, "unknown_order")
    known = fate(settings, 1)
    assert known is not None
    assert (known.word, known.reason) == ("skipped", "unknown_order")


def test_who_asked_for_a_repair_can_wait_for_it(
    settings: Settings, log: AppliedLog, timeline: Timeline, desk: HealingDesk
) -> None:
    """Also for one of a message that lies in no order's history: it is about an order all the same."""
    names = {"a": log.lay(b"a", changed("a", 1, "shipped")), "b": log.lay(b"a", changed("b", 2, "shipped"))}
    for order_id, place in names.items():
        (remedy,) = asked(desk, discard(), place).remedies
        control_id = remedy.control.event_id
        before = Fates(Reader(settings)).of([(order_id, control_id)])

        log.relay()

        assert before == {}
        assert Fates(Reader(settings)).of([(order_id, control_id)]) == {(order_id, control_id): Fate("applied")}
        named, alone = timeline.of_event(control_id, order_id), timeline.of_event(control_id)
        assert named is not None
        assert named == alone
        assert (named["state"], named["orderId"]) == ("accepted", order_id)


def test_what_was_given_up_may_be_on_the_topic_where_it_was_sent(settings: Settings, timeline: Timeline) -> None:
    AppliedLog(settings).writer.close()
    messages = [Message(b"a", created("a", number), (), "a", uuid(number)) for number in (1, 2)]
    Outbox(settings).add([(messages[0], True), (messages[1], False)])
    Outbox(settings).settle(held=[(1, "too large"), (2, "too large")])
    OutboxDesk(settings).discard([1, 2], "kim", "sent in two parts")

    found = [one(timeline, number) for number in (1, 2)]

    assert [(event["state"], event["maybeOnTopic"]) for event in found] == [("given_up", True), ("given_up", False)]


def test_a_rebuild_keeps_when_each_event_was_applied(tmp_path: Path) -> None:
    """That it was read again says nothing of when it took effect."""
    settings = Settings(var_dir=str(tmp_path))
    rng = random.Random(1)  # noqa: S311 (a test's)
    records = RandomLog(rng, 60).records
    applied(settings, [records], rng)
    with closing(sqlite3.connect(settings.orders_db)) as connection, connection:
        connection.execute("UPDATE progress SET read_at = read_at - 1000 * next_offset")
    before = store.query(settings, "SELECT * FROM progress")

    rebuilt(settings, TOPIC_ID, records)

    assert store.query(settings, "SELECT * FROM progress") == before
    assert len({at for *_, at in before}) > 3


@pytest.mark.parametrize("seed", range(6))
def test_of_any_log_every_place_is_told_once_and_the_two_answers_agree(tmp_path: Path, seed: int) -> None:
    """Damaged, misplaced, repaired and given up, rightly or not: who waits is told what the timeline tells."""
    settings = Settings(var_dir=str(tmp_path))
    rng = random.Random(seed)  # noqa: S311 (a test's)
    applied(settings, [RandomLog(rng, 100).records, RandomLog(rng, 100).records], rng, failing=0.02)
    timeline, reader = Timeline(settings, Reader(settings)), Reader(settings)
    about = "SELECT order_id, epoch, partition, offset FROM "
    places = set(reader.query(f"{about} history UNION {about} skipped_messages"))
    orders = {order_id for order_id, *_ in places if order_id is not None}
    outcomes_of: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for order_id, event_id, outcome in reader.query("SELECT order_id, event_id, outcome FROM history"):
        outcomes_of[order_id].append((event_id, outcome))

    states: Counter[str] = Counter()
    for order_id in orders:
        told = timeline.of_order(order_id, limit=1_000).events
        assert sorted((order_id, one["epoch"], one["partition"], one["offset"]) for one in told) == sorted(
            place for place in places if place[0] == order_id
        )
        ids = {one["eventId"] for one in told if one["eventId"] is not None}
        fates = Fates(reader).of([(order_id, event_id) for event_id in ids])
        for event_id in ids:
            found = timeline.of_event(event_id, order_id)
            assert found is not None
            states[found["state"]] += 1
            outcomes = {outcome for one_id, outcome in outcomes_of[order_id] if one_id == event_id}
            word = "applied" if "applied" in outcomes else "skipped"
            assert fates[order_id, event_id].word == word, found
            assert (found["state"] in ("applied", "healed", "repaired")) == (word == "applied"), found
            times = [step["at"] for step in found["steps"] if step["at"] is not None]
            assert times == sorted(times), found
            assert all(step["at"] or step["step"] == "healed" for step in found["steps"]), found
            first = [step["step"] for step in found["steps"]]
            assert first.index("published") < min(first.index(w) for w in ("applied", "skipped") if w in first)
    assert {"applied", "skipped"} <= states.keys()
