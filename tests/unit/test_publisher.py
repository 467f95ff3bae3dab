"""Group commit: order per key, no lost wake-up, and an outcome that is true for everyone."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import structlog.testing

from orderflow.broker import Message, Outcome, Published, Publisher, Refused, Unknown
from orderflow.broker.requests import Result
from orderflow.broker.retries import RetryPolicy
from orderflow.errors import Rejected, Unacknowledged, Unsent
from orderflow.settings import Settings

FAST = RetryPolicy(retries=2, first_s=0.01, factor=2, cap_s=0.05, jitter_s=0, attempt_s=0.2, deadline_s=2)


@dataclass
class ScriptedProducer:
    """Stands in for Kafka: the failures wanted here cannot be made otherwise at the moment they are wanted."""

    script: list[Result | Exception] = field(default_factory=list)
    delay_s: float = 0.0
    groups: list[list[Message]] = field(default_factory=list)
    at_work: int = 0

    def deliver(self, messages: Sequence[Message]) -> list[Result]:
        self.at_work += 1
        assert self.at_work == 1, "two groups in flight"
        self.groups.append(list(messages))
        time.sleep(self.delay_s)
        self.at_work -= 1
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception) and not isinstance(step, Unsent | Unacknowledged | Rejected):
            raise step
        number = sum(len(group) for group in self.groups)
        return [step or Published(0, number + i) for i, _ in enumerate(messages)]

    def drop(self) -> None:
        pass


def publisher(producer: ScriptedProducer, policy: RetryPolicy = FAST, **settings: int) -> Publisher:
    return Publisher(Settings(**settings), producer, policy)  # type: ignore[arg-type]


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


def test_all_are_published_and_no_group_holds_two_events_of_one_order() -> None:
    """40 callers on 4 orders: everyone is answered, at most one event of an order is in flight."""
    producer = ScriptedProducer(delay_s=0.002)

    outcomes = in_threads(publisher(producer), [message(f"o{i % 4}", i) for i in range(40)])

    assert all(isinstance(outcome, Published) for outcome in outcomes)
    assert all(len({m.key for m in group}) == len(group) for group in producer.groups)
    assert sum(len(group) for group in producer.groups) == 40


def test_a_hundred_callers_at_once_are_all_taken() -> None:
    """With the settings as they come, while the first group is on its way for long."""
    producer = ScriptedProducer(delay_s=0.3)

    outcomes = in_threads(publisher(producer), [message(f"o{i}") for i in range(100)])

    assert all(isinstance(outcome, Published) for outcome in outcomes)
    assert len(producer.groups) < 5, "they waited together"


def test_callers_that_wait_share_a_group() -> None:
    """While one group is in flight the others gather: 33 callers need few groups."""
    producer = ScriptedProducer(delay_s=0.05)

    in_threads(publisher(producer), [message(f"o{i}") for i in range(33)])

    assert len(producer.groups) < 10


def test_a_retry_is_logged_and_leads_to_published() -> None:
    """Two failures, then success: two lines with attempt and delay, growing."""
    producer = ScriptedProducer([Unsent("down"), Unsent("down")])

    with structlog.testing.capture_logs() as lines:
        import stamina.instrumentation  # noqa: PLC0415

        from orderflow.logs import log_retry  # noqa: PLC0415

        stamina.instrumentation.set_on_retry_hooks([log_retry])
        outcome = publisher(producer).publish(message("o"))

    assert isinstance(outcome, Published)
    retries = [line for line in lines if line["event"] == "publish.retry_scheduled"]
    assert [line["attempt"] for line in retries] == [1, 2]
    assert [line["delay_s"] for line in retries] == [0.01, 0.02]
    assert retries[0]["event_ids"] == ["o-0"]


def test_nothing_sent_is_refused_and_something_sent_is_unknown() -> None:
    """Once one attempt was handed to the network, a later one that was not cannot make it certain."""
    never = publisher(ScriptedProducer([Unsent("a")] * 3)).publish(message("o"))
    once = publisher(ScriptedProducer([Unacknowledged("a"), Unsent("b"), Unsent("c")])).publish(message("o"))

    assert isinstance(never, Refused)
    assert isinstance(once, Unknown)


def test_a_rejected_event_is_not_retried() -> None:
    """What no retry can mend is refused at once; after an attempt that may have arrived it is unknown."""
    producer = ScriptedProducer([Rejected("too large")])

    outcome = publisher(producer).publish(message("o"))

    assert isinstance(outcome, Refused)
    assert len(producer.groups) == 1
    assert isinstance(publisher(ScriptedProducer([Unacknowledged("a"), Rejected("b")])).publish(message("o")), Unknown)


def test_an_unforeseen_error_reaches_its_callers_as_unknown_and_the_next_group_goes_on() -> None:
    """A bug in a delivery ends nobody's wait for ever, and is never called refused."""
    producer = ScriptedProducer([RuntimeError("bug")])
    publishes = publisher(producer)

    with structlog.testing.capture_logs() as lines:
        assert isinstance(publishes.publish(message("o")), Unknown)

    assert [line["event"] for line in lines] == ["publish.failed"]
    assert isinstance(publishes.publish(message("o", 1)), Published)


def test_a_caller_that_waited_too_long_withdraws_unsent() -> None:
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


def test_beyond_the_bound_callers_are_refused_at_once() -> None:
    """What is in flight is bounded."""
    producer = ScriptedProducer(delay_s=0.2)

    outcomes = in_threads(publisher(producer, publish_waiting_max=4), [message(f"o{i}") for i in range(10)])

    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 6


@pytest.mark.parametrize("keys", [1, 3, 50])
def test_hammered_from_many_threads_every_call_ends(keys: int) -> None:
    """No lost wake-up over 50 threads and 2,000 events, failures among them."""
    producer = ScriptedProducer([Unsent("now and then"), *[None] * 5] * 20)  # type: ignore[list-item]
    publishes = publisher(producer, publish_waiting_max=50)
    done: list[Outcome] = []

    def run(worker: int) -> None:
        done.extend(publishes.publish(message(f"o{(worker * 40 + i) % keys}", worker * 40 + i)) for i in range(40))

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(done) == 2_000
    assert publishes.in_flight == 0
