"""Group commit, breaker and spool: order per key, no lost wake-up, and an outcome that is true for everyone."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from orderflow.broker.requests import Result
from orderflow.errors import NotAccepted, Rejected, StoreUnavailable, StoreUncertain, Unacknowledged, Unsent
from orderflow.messages import Message, Outcome, Published, Refused, Spooled, Unknown
from orderflow.publishing.breaker import State
from orderflow.publishing.lanes import Waiter
from orderflow.publishing.publisher import Publisher
from orderflow.publishing.retries import RetryPolicy
from orderflow.publishing.spool import Spool
from orderflow.settings import Settings
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from tests.support.waiting import until

FAST = RetryPolicy(retries=2, first_s=0.01, factor=2, cap_s=0.05, jitter_s=0, attempt_s=0.2, deadline_s=2)


@dataclass
class ScriptedProducer:
    """Stands in for Kafka: the failures wanted here cannot be made otherwise at the moment they are wanted."""

    script: list[Result | Exception] = field(default_factory=list)
    delay_s: float = 0.0
    groups: list[list[Message]] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    at_work: int = 0

    def deliver(self, messages: Sequence[Message], timeout_s: float | None = None) -> list[Result]:
        self.at_work += 1
        assert self.at_work == 1, "two groups in flight"
        self.groups.append(list(messages))
        self.timeouts.append(timeout_s)
        time.sleep(self.delay_s)
        self.at_work -= 1
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception) and not isinstance(step, Unsent | Unacknowledged | Rejected):
            raise step
        number = sum(len(group) for group in self.groups)
        if step is None:
            self.acknowledged += [message.event_id for message in messages]
        return [step or Published(0, number + i) for i, _ in enumerate(messages)]

    def drop(self) -> None:
        pass


Make = Callable[..., Publisher]


@dataclass
class Bench:
    """Publishers on one outbox, which is a real one."""

    settings: Settings
    outbox: Outbox
    desk: OutboxDesk
    spool: Spool

    def publisher(self, producer: ScriptedProducer, policy: RetryPolicy = FAST, **settings: Any) -> Publisher:
        """A publisher whose topic was verified."""
        publisher = Publisher(Settings(**settings), producer, self.spool, policy)  # type: ignore[arg-type]
        publisher.verified()
        return publisher

    def waiting(self) -> list[str]:
        """The ids of what waits, in order."""
        return [entry.event_id for entry in self.desk.entries(("waiting",), limit=10_000)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    settings = Settings(var_dir=str(tmp_path))
    outbox = Outbox(settings)
    spool = Spool(outbox)
    spool.refresh(outbox)
    return Bench(settings, outbox, OutboxDesk(settings), spool)


@pytest.fixture
def publisher(bench: Bench) -> Make:
    return bench.publisher


def message(key: str, number: int = 0) -> Message:
    return Message(key.encode(), b"%d" % number, (), key, f"{key}-{number}")


def in_threads(publisher: Publisher, messages: Sequence[Message]) -> list[Outcome | None]:
    outcomes: list[Outcome | None] = [None] * len(messages)

    def run(index: int) -> None:
        outcomes[index] = publisher.publish(messages[index])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(messages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return outcomes


def test_all_are_published_and_no_group_holds_two_events_of_one_order(publisher: Make) -> None:
    """40 callers on 4 orders: everyone is answered, at most one event of an order is in flight."""
    producer = ScriptedProducer(delay_s=0.002)

    outcomes = in_threads(publisher(producer), [message(f"o{i % 4}", i) for i in range(40)])

    assert all(isinstance(outcome, Published) for outcome in outcomes)
    assert all(len({m.key for m in group}) == len(group) for group in producer.groups)
    assert sum(len(group) for group in producer.groups) == 40


def test_a_hundred_callers_at_once_are_all_taken(publisher: Make) -> None:
    """With the settings as they come, while the first group is on its way for long."""
    producer = ScriptedProducer(delay_s=0.3)

    outcomes = in_threads(publisher(producer), [message(f"o{i}") for i in range(100)])

    assert all(isinstance(outcome, Published) for outcome in outcomes)
    assert len(producer.groups) < 5, "they waited together"


def test_callers_that_wait_share_a_group(publisher: Make) -> None:
    """While one group is in flight the others gather: 33 callers need few groups."""
    producer = ScriptedProducer(delay_s=0.05)

    in_threads(publisher(producer), [message(f"o{i}") for i in range(33)])

    assert len(producer.groups) < 10


def test_a_retry_is_logged_and_counted_and_leads_to_published(publisher: Make) -> None:
    """Two failures, then success: two lines with attempt and delay, growing."""
    publishes = publisher(ScriptedProducer([Unsent("down"), Unsent("down")]))

    with structlog.testing.capture_logs() as lines:
        import stamina.instrumentation  # noqa: PLC0415

        from orderflow.logs import log_retry  # noqa: PLC0415

        stamina.instrumentation.set_on_retry_hooks([log_retry])
        outcome = publishes.publish(message("o"))

    assert isinstance(outcome, Published)
    assert publishes.retries == 2
    retries = [line for line in lines if line["event"] == "publish.retry_scheduled"]
    assert [line["attempt"] for line in retries] == [1, 2]
    assert [line["delay_s"] for line in retries] == [0.01, 0.02]
    assert retries[0]["event_ids"] == ["o-0"]


@pytest.mark.parametrize("failure", [Unsent("away"), Unacknowledged("silent")])
def test_what_is_given_up_is_spooled_and_says_whether_it_was_sent(bench: Bench, failure: Result) -> None:
    """Once one attempt was handed to the network, a later one that was not cannot make it undone."""
    publishes = bench.publisher(ScriptedProducer([failure, Unsent("b"), Unsent("c")]))

    with structlog.testing.capture_logs() as lines:
        outcome = publishes.publish(message("o"))

    assert outcome == Spooled(0)
    assert [bool(entry.sent) for entry in bench.desk.find("o-0")] == [isinstance(failure, Unacknowledged)]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["publish.gave_up", "breaker.opened"]


def test_once_the_breaker_is_open_events_are_spooled_at_once_behind_what_waits(bench: Bench) -> None:
    """Retries are spent once; later events make no attempt, and are told how many are in front of them."""
    producer = ScriptedProducer([Unsent("away")] * 3)
    publishes = bench.publisher(producer, breaker_probe_interval_s=60)

    outcomes = [publishes.publish(message(f"o{number}")) for number in range(4)]

    assert outcomes == [Spooled(0), Spooled(1), Spooled(2), Spooled(3)]
    assert len(producer.groups) == FAST.retries + 1
    assert publishes.retries == FAST.retries
    assert bench.waiting() == ["o0-0", "o1-0", "o2-0", "o3-0"]
    assert publishes.breaker.state is State.OPEN


def test_all_that_waits_spools_in_order_of_arrival_when_the_breaker_opens(bench: Bench) -> None:
    """Ten events of one order, of which one was tried: the outbox has them in the order of their arrival."""
    producer = ScriptedProducer([Unsent("away")] * 3, delay_s=0.1)
    publishes = bench.publisher(producer, breaker_probe_interval_s=60)
    threads = []

    for number in range(10):
        threads.append(threading.Thread(target=publishes.publish, args=[message("o", number)]))
        threads[-1].start()
        until(lambda: publishes.in_flight == number + 1, "it waits", within_s=5)  # noqa: B023
    for thread in threads:
        thread.join(10)

    assert bench.waiting() == [f"o-{number}" for number in range(10)]


def test_the_next_event_of_an_order_that_has_nothing_spooled_is_the_probe(bench: Bench) -> None:
    """One at a time, with a short deadline; its success closes the breaker. A spooled order stays behind its event."""
    producer = ScriptedProducer([Unsent("away")] * 4)
    publishes = bench.publisher(producer, breaker_probe_interval_s=0.01, breaker_probe_timeout_s=0.3)
    publishes.publish(message("o"))
    time.sleep(0.02)

    behind = publishes.publish(message("o", 1))
    failed_probe = publishes.publish(message("p"))
    time.sleep(0.02)
    probe = publishes.publish(message("q"))

    assert isinstance(behind, Spooled)
    assert isinstance(failed_probe, Spooled)
    assert isinstance(probe, Published)
    assert producer.timeouts == [None, None, None, 0.3, 0.3]
    assert publishes.breaker.closed
    assert isinstance(publishes.publish(message("o", 2)), Spooled)
    assert isinstance(publishes.publish(message("r")), Published)


def test_while_a_probe_is_on_its_way_others_spool_and_its_own_order_waits_behind_it(bench: Bench) -> None:
    """An event that overtook the probe into the outbox could come to Kafka before it."""
    producer = ScriptedProducer([Unsent("away")] * 4)
    publishes = bench.publisher(producer, breaker_probe_interval_s=0.01)
    publishes.publish(message("o"))
    time.sleep(0.02)
    producer.delay_s = 0.5
    outcomes: dict[str, Outcome] = {}

    def publish(order: str, number: int = 0) -> threading.Thread:
        def run() -> None:
            outcomes[f"{order}-{number}"] = publishes.publish(message(order, number))

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [publish("p")]
    until(lambda: publishes.breaker.state is State.HALF_OPEN, "the probe is on its way", within_s=5)
    threads.append(publish("p", 1))
    publish("q").join(10)
    alone = dict(outcomes)
    for thread in threads:
        thread.join(10)

    assert list(alone) == ["q-0"], "only the other order was answered meanwhile"
    assert all(isinstance(outcome, Spooled) for outcome in outcomes.values())
    waiting = bench.waiting()
    assert waiting.index("p-0") < waiting.index("p-1")


def test_nothing_is_sent_before_the_topic_was_verified(bench: Bench) -> None:
    """Events are spooled meanwhile, and no probe is made."""
    producer = ScriptedProducer()
    publishes = Publisher(Settings(breaker_probe_interval_s=0.001), producer, bench.spool, FAST)  # type: ignore[arg-type]

    before = publishes.publish(message("o"))
    publishes.verified()
    after = publishes.publish(message("p"))

    assert isinstance(before, Spooled)
    assert isinstance(after, Published)
    assert [m.event_id for group in producer.groups for m in group] == ["p-0"]


def test_before_the_outbox_was_read_nothing_is_taken(bench: Bench) -> None:
    """An order may have an event in it that must go first."""
    publishes = Publisher(Settings(), ScriptedProducer(), Spool(bench.outbox), FAST)  # type: ignore[arg-type]
    publishes.verified()

    outcome = publishes.publish(message("o"))

    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, NotAccepted)


def test_where_the_outbox_fails_what_was_sent_is_unknown_and_what_was_not_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> list[Any]:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(bench.outbox, "add", fail)
    never = bench.publisher(ScriptedProducer([Unsent("a")] * 3)).publish(message("o"))
    once = bench.publisher(ScriptedProducer([Unacknowledged("a"), Unsent("b"), Unsent("c")])).publish(message("p"))
    bench.spool.refresh(bench.outbox)

    assert isinstance(never, Refused)
    assert isinstance(once, Unknown)
    assert isinstance(bench.publisher(ScriptedProducer()).publish(message("o", 1)), Published), (
        "the order is free again"
    )


def test_when_the_outbox_is_full_only_what_must_spool_is_refused(tmp_path: Path) -> None:
    outbox = Outbox(Settings(var_dir=str(tmp_path), outbox_max_events=2))
    spool = Spool(outbox)
    spool.refresh(outbox)
    publishes = Publisher(Settings(breaker_probe_interval_s=0.001), ScriptedProducer([Unsent("a")] * 3), spool, FAST)  # type: ignore[arg-type]
    publishes.verified()

    outcomes = [publishes.publish(message("o", number)) for number in range(3)]
    time.sleep(0.01)
    other = publishes.publish(message("p"))

    assert [type(outcome) for outcome in outcomes] == [Spooled, Spooled, Refused]
    assert isinstance(other, Published)


def test_an_event_that_is_sent_again_by_its_caller_waits_once(bench: Bench) -> None:
    """The second answer is the first one's; delivered meanwhile, it says where the event is."""
    publishes = bench.publisher(ScriptedProducer([Unsent("a")] * 3), breaker_probe_interval_s=60)
    publishes.publish(message("o"))
    first = publishes.publish(message("p"))

    again = publishes.publish(message("p"))
    (entry,) = bench.desk.find("p-0")
    bench.outbox.settle(delivered=[(entry.seq, 4, 2)])
    later = publishes.publish(message("p"))

    assert first == again == Spooled(1)
    assert later == Published(4, 2)
    assert bench.waiting() == ["o-0"]


def test_an_order_whose_events_were_delivered_is_published_directly_again(bench: Bench) -> None:
    publishes = bench.publisher(ScriptedProducer([Unsent("a")] * 3), breaker_probe_interval_s=0.001)
    publishes.publish(message("o"))
    time.sleep(0.01)
    publishes.publish(message("p"))
    (entry,) = bench.desk.find("o-0")
    bench.outbox.settle(delivered=[(entry.seq, 0, 0)])

    before = publishes.publish(message("o", 1))
    bench.outbox.settle(delivered=[(entry.seq + 1, 0, 1)])
    bench.spool.refresh(bench.outbox)
    after = publishes.publish(message("o", 2))

    assert isinstance(before, Spooled), "what is not known to be delivered errs on the safe side"
    assert isinstance(after, Published)


def test_a_rejected_event_is_not_retried(publisher: Make) -> None:
    """What no retry can mend is refused at once, and says nothing of Kafka: the breaker stays closed."""
    producer = ScriptedProducer([Rejected("too large")])
    publishes = publisher(producer)

    outcome = publishes.publish(message("o"))

    assert isinstance(outcome, Refused)
    assert len(producer.groups) == 1
    assert publishes.breaker.closed


def test_an_event_that_is_rejected_after_it_was_sent_is_spooled_alone(bench: Bench) -> None:
    """Its first copy may arrive: nobody can call it refused."""
    publishes = bench.publisher(ScriptedProducer([Unacknowledged("a"), Rejected("b")]))

    assert isinstance(publishes.publish(message("o")), Spooled)
    assert publishes.breaker.closed
    assert isinstance(publishes.publish(message("p")), Published)


def test_an_unforeseen_error_loses_nothing_and_the_next_group_goes_on(bench: Bench) -> None:
    """A bug in a delivery ends nobody's wait for ever, and is never called refused: the event may have been sent."""
    producer = ScriptedProducer([RuntimeError("bug")])
    publishes = bench.publisher(producer, breaker_probe_interval_s=0.001)

    with structlog.testing.capture_logs() as lines:
        assert isinstance(publishes.publish(message("o")), Spooled)

    assert [line["event"] for line in lines] == ["publish.failed", "publish.gave_up", "breaker.opened"]
    time.sleep(0.01)
    assert isinstance(publishes.publish(message("p")), Published)
    assert [entry.sent for entry in bench.desk.find("o-0")] == [1]


def test_a_caller_that_waited_too_long_withdraws_unsent(publisher: Make) -> None:
    """A follower whose deadline passes in the queue is refused, never sent, and blocks nobody behind it."""
    policy = RetryPolicy(retries=0, first_s=0.01, factor=1, cap_s=0.01, jitter_s=0, attempt_s=0.1, deadline_s=0.1)
    producer = ScriptedProducer(delay_s=0.4)
    publishes = publisher(producer, policy)

    outcomes = in_threads(publishes, [message("o", i) for i in range(3)])
    producer.delay_s = 0
    after = publishes.publish(message("o", 9))

    sent = {m.event_id for group in producer.groups for m in group}
    refused = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
    assert len(refused) == 2
    assert not sent & {f"o-{i}" for i in refused}
    assert isinstance(after, Published)


def test_beyond_the_bound_callers_are_refused_at_once(publisher: Make) -> None:
    """What is in flight is bounded."""
    producer = ScriptedProducer(delay_s=0.2)

    outcomes = in_threads(publisher(producer, publish_waiting_max=4), [message(f"o{i}") for i in range(10)])

    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 6


@pytest.mark.parametrize("keys", [1, 3, 400])
def test_hammered_from_many_threads_every_call_ends_and_order_is_kept(bench: Bench, keys: int) -> None:
    """50 threads, 600 events, outages among them, and a relay: no lost wake-up, and each order in order."""
    producer = ScriptedProducer([*[Unsent("away")] * 3, *[None] * 9] * 12)  # type: ignore[list-item]
    publishes = bench.publisher(producer, publish_waiting_max=50, breaker_probe_interval_s=0.01)
    told: list[tuple[str, Outcome]] = []
    stop = threading.Event()
    relayed = Relay(bench, producer, stop)

    def run(worker: int) -> None:
        mine = [message(f"o{number % keys}", number) for number in range(worker * 12, worker * 12 + 12)]
        told.extend((one.event_id, publishes.publish(one)) for one in mine)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(50)]
    for thread in [*threads, relayed.thread]:
        thread.start()
    for thread in threads:
        thread.join(60)
    until(lambda: bench.outbox.totals().waiting == 0, "the relay has delivered all", within_s=20)
    stop.set()
    relayed.thread.join(10)

    assert len(told) == 600
    assert publishes.in_flight == 0
    outcomes = {event_id: type(outcome) for event_id, outcome in told}
    assert set(outcomes.values()) <= {Published, Spooled}
    assert keys < 400 or set(outcomes.values()) == {Published, Spooled}, "a few orders alone may never catch up"
    at = {event_id: index for index, event_id in reversed(list(enumerate(producer.acknowledged)))}
    assert at.keys() == outcomes.keys(), "each event came to Kafka"
    for worker in range(50):  # a worker awaits each answer: its events of an order are in sequence
        for key in range(keys):
            mine = [at[f"o{key}-{n}"] for n in range(worker * 12, worker * 12 + 12) if n % keys == key]
            assert mine == sorted(mine)


class Relay:
    """Delivers what waits, as the relay does, and has the spool ask the outbox now and then."""

    def __init__(self, bench: Bench, producer: ScriptedProducer, stop: threading.Event) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._bench = bench
        self._producer = producer
        self._stop = stop
        self._own = Outbox(bench.settings)

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            first: dict[str, Any] = {}
            for entry in self._own.deliverable(20):
                first.setdefault(entry.order_id, entry)
            self._producer.acknowledged += [entry.event_id for entry in first.values()]
            self._own.settle(delivered=[(entry.seq, 0, entry.seq) for entry in first.values()])
            self._bench.spool.refresh(self._own)


def test_an_order_in_the_outbox_pauses_until_it_is_free_and_goes_to_kafka_again(bench: Bench) -> None:
    """Sent behind it at once, an order in constant use would stay in the outbox for ever. Its sequence is kept."""
    producer = ScriptedProducer([Unsent("a")] * 3)
    publishes = bench.publisher(producer, breaker_probe_interval_s=0.001, outbox_pause_s=0.9)
    publishes.publish(message("o"))
    time.sleep(0.01)
    publishes.publish(message("p"))
    publishes.draining = True
    outcomes: list[Outcome | None] = []
    callers = [
        threading.Thread(target=lambda n=n: outcomes.append(publishes.publish(message("o", n)))) for n in (1, 2, 3)
    ]

    for number, caller in enumerate(callers):
        caller.start()
        until(lambda: publishes.in_flight == number + 1, "it pauses", within_s=5)  # noqa: B023
    (entry,) = bench.desk.find("o-0")
    bench.outbox.settle(delivered=[(entry.seq, 0, 0)])
    bench.spool.refresh(bench.outbox)
    publishes.go_on()
    for caller in callers:
        caller.join(10)

    assert all(isinstance(outcome, Published) for outcome in outcomes)
    assert producer.acknowledged == ["p-0", "o-1", "o-2", "o-3"]


def test_a_pause_ends_and_the_order_goes_behind_what_waits(bench: Bench) -> None:
    """All that pauses of an order goes into the outbox in order of arrival, whoever's pause ends first."""
    publishes = bench.publisher(ScriptedProducer([Unsent("a")] * 3), breaker_probe_interval_s=0.001, outbox_pause_s=0.2)
    publishes.publish(message("o"))
    time.sleep(0.01)
    publishes.publish(message("p"))
    publishes.draining = True

    began = time.monotonic()
    in_threads(publishes, [message("o", 1)])
    took_s = time.monotonic() - began

    assert bench.waiting() == ["o-0", "o-1"]
    assert 0.2 <= took_s < 1


def test_an_order_that_is_held_does_not_pause(bench: Bench) -> None:
    """Nobody knows when a person comes."""
    publishes = bench.publisher(ScriptedProducer([Unsent("a")] * 3), breaker_probe_interval_s=0.001, outbox_pause_s=5)
    publishes.publish(message("o"))
    time.sleep(0.01)
    publishes.publish(message("p"))
    publishes.draining = True
    bench.outbox.settle(held=[(1, "no")])
    bench.spool.refresh(bench.outbox)

    began = time.monotonic()
    assert isinstance(publishes.publish(message("o", 1)), Spooled)
    assert time.monotonic() - began < 1


def test_a_probe_that_goes_away_leaves_the_breaker_open_for_the_next(bench: Bench) -> None:
    """Its leader is late, and its own deadline passes: the breaker must not wait for it for ever."""
    policy = RetryPolicy(retries=0, first_s=0.01, factor=1, cap_s=0.01, jitter_s=0, attempt_s=0.05, deadline_s=0.2)
    producer = ScriptedProducer([Unsent("away")])
    publishes = bench.publisher(producer, policy, breaker_probe_interval_s=0.01)
    publishes.publish(message("o"))
    time.sleep(0.02)
    producer.delay_s = 1.0  # The first probe takes longer than any deadline.
    slow = threading.Thread(target=publishes.publish, args=[message("p")])
    slow.start()
    until(lambda: publishes.breaker.state is State.HALF_OPEN, "the probe is on its way", within_s=5)

    outcome = publishes.publish(message("p", 1))
    slow.join(10)
    producer.delay_s = 0

    assert isinstance(outcome, Refused)
    assert publishes.breaker.state is not State.HALF_OPEN
    time.sleep(0.02)
    assert isinstance(publishes.publish(message("q")), Published)


def test_a_caller_that_has_gone_is_never_made_leader(bench: Bench) -> None:
    """One that was told `unknown` while its leader was late: in the lane to the outbox nobody would lead for it."""
    producer = ScriptedProducer()
    publishes = bench.publisher(producer, breaker_probe_interval_s=60)
    gone, there = Waiter(message("o"), time.monotonic() + 5), Waiter(message("p"), time.monotonic() + 5)
    gone.sent = True
    gone.give_up(Unacknowledged("late"))

    with publishes._lock:
        publishes._send_behind([gone, there])

    assert there.leads
    assert not gone.leads


def test_while_the_breaker_is_open_an_acknowledged_event_holds_no_later_one_of_its_order(bench: Bench) -> None:
    """Its group is still at work: the next event of its order must not go through retries of its own."""
    settled = Waiter(message("o"), time.monotonic() + 5, outcome=Published(0, 0))
    publishes = bench.publisher(ScriptedProducer(), breaker_probe_interval_s=60)
    with publishes._lock:
        publishes._direct._group = [settled]
        settled.lane = publishes._direct
        publishes.breaker.fail("away")

    assert isinstance(publishes.publish(message("o", 1)), Spooled)


def test_a_commit_that_may_have_taken_effect_is_unknown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk at the very end of a commit can leave the row committed: refused would be a lie."""

    def fail(_: object) -> list[Any]:
        raise StoreUncertain("the last sync failed")

    monkeypatch.setattr(bench.outbox, "add", fail)

    assert isinstance(bench.publisher(ScriptedProducer([Unsent("a")] * 3)).publish(message("o")), Unknown)


def test_an_error_of_the_outbox_that_nobody_foresaw_reaches_all_as_unknown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> list[Any]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench.outbox, "add", fail)
    publishes = bench.publisher(ScriptedProducer([Unsent("a")] * 3, delay_s=0.05), breaker_probe_interval_s=60)

    outcomes = in_threads(publishes, [message(f"o{number}") for number in range(5)])

    assert {type(outcome) for outcome in outcomes} == {Unknown}
