"""What a Kafka that hangs costs: processor time, the patience of probes, and nothing that grows."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from orderflow.process import read_heartbeat
from orderflow.store.outbox_desk import OutboxDesk
from tests.support import store
from tests.support.calls import Caller
from tests.support.load import Load, Writer, run_together
from tests.support.outage import Rounds, log_lines, slowest_s
from tests.support.truth import check_truth
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack
    from tests.support.ledger import Entry

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: What an answer may take beyond its deadlines on a busy machine.
MARGIN_S = 1.0


def _working_processes(stack: Stack) -> dict[str, psutil.Process]:
    """The processes that do the work of an outage. The cart service's is the one that its main process started."""
    found = {}
    for program in ("cart-service", "outbox-relay", "order-consumer"):
        pid = stack.pid(program)
        assert pid is not None
        found[program] = psutil.Process(pid)
    (found["cart-service"],) = [
        child
        for child in found["cart-service"].children(recursive=True)
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    return found


def _kafka(stack: Stack) -> int:
    pid = stack.pid("kafka")
    assert pid is not None
    return pid


# Processor time.

FROZEN_S = 30.0

#: One write each so many seconds, whether earlier ones are answered or not.
WRITE_EVERY_S = 0.2

#: More writers than writes wait at once, in the time until the breaker opens.
TRICKLE_WRITERS = 60

#: Of a core, over the freeze and in each of its parts.
CPU_SHARE_MAX = 0.2
PART_S = 3.0


@dataclass
class Trickle:
    """A writer's work: a new order whenever its turn comes round."""

    began: float
    ended: threading.Event

    def __call__(self, writer: Writer, number: int) -> None:
        turn = self.began + (number * TRICKLE_WRITERS + writer.index) * WRITE_EVERY_S
        if not self.ended.wait(max(0.0, turn - time.monotonic())):
            writer.create(f"trickle-{writer.index}-{number}")


def test_a_freeze_of_kafka_with_a_send_in_flight_takes_little_processor_time(
    make_stack: MakeStack, figures: Figures
) -> None:
    """Writes keep trickling in for 30 s; nobody spins, and every answer comes in time."""
    stack = make_stack()
    stack.up()
    programs = _working_processes(stack)
    trickle = Trickle(time.monotonic(), threading.Event())

    with Load(stack.settings, writers=TRICKLE_WRITERS, work=trickle) as load:
        until(lambda: len(load.ledger.published()) >= 10, "the trickle flows", within_s=20)
        with frozen(_kafka(stack)):
            began = time.monotonic()
            shares = _cpu_shares(programs)
            in_flight = sum(entry.sent for entry in OutboxDesk(stack.settings).entries(("waiting",), limit=1_000))
            waiting = store.undelivered(stack.settings)
        thawed = time.monotonic()
        until(lambda: load.ledger.first_published_after(thawed), "an event is published", within_s=30)
        until(lambda: store.undelivered(stack.settings) == 0, "the outbox is drained", within_s=30)
        drained_s = time.monotonic() - thawed
        trickle.ended.set()
    verdict = check_truth(load.ledger, stack.settings)

    during = [entry for entry in load.ledger if began < entry.sent < thawed]
    gave_up = log_lines(stack, "cart-service", "publish.gave_up")
    figures(
        f"Kafka frozen for {FROZEN_S:g} s, a write each {WRITE_EVERY_S:g} s",
        **verdict.outcomes,
        duplicates_on_topic=verdict.duplicates,
        writes_during=len(during),
        in_flight=in_flight,
        cpu_share={name: round(sum(parts) / len(parts), 3) for name, parts in shares.items()},
        cpu_share_max={name: round(max(parts), 3) for name, parts in shares.items()},
        slowest_answer_s=slowest_s(load.ledger),
        drained_s=drained_s,
    )
    assert in_flight >= 1
    assert [line["sent"] for line in gave_up] == [in_flight], "what was sent was not noted as sent"
    assert len(during) > 0.9 * FROZEN_S / WRITE_EVERY_S
    assert waiting > 0.9 * FROZEN_S / WRITE_EVERY_S
    for name, parts in shares.items():
        assert max(parts) < CPU_SHARE_MAX, f"{name} took {parts} of a core"
    assert set(verdict.outcomes) == {"published", "spooled"}
    assert slowest_s(load.ledger) < _deadline_s(stack.settings)


def _cpu_shares(programs: dict[str, psutil.Process]) -> dict[str, list[float]]:
    """How much of a core each took, part by part."""
    shares: dict[str, list[float]] = {name: [] for name in programs}
    began = at = time.monotonic()
    used = {name: _cpu_s(program) for name, program in programs.items()}
    while at < began + FROZEN_S:
        time.sleep(PART_S)
        before, at = at, time.monotonic()
        for name, program in programs.items():
            used_before, used[name] = used[name], _cpu_s(program)
            shares[name].append((used[name] - used_before) / (at - before))
    return shares


def _cpu_s(program: psutil.Process) -> float:
    times = program.cpu_times()
    return float(times.user + times.system)


def _deadline_s(settings: Settings) -> float:
    """Within which a write must be answered: Kafka's part, then the outbox's."""
    return settings.publish_deadline_s + settings.outbox_busy_timeout_s + MARGIN_S


# Probes.

PROBES, PROBE_PAUSE_S = 40, 0.1
PROBE_MAX_S = 1.0


def test_probes_are_answered_while_as_many_senders_wait_as_may(make_stack: MakeStack, figures: Figures) -> None:
    """Kafka hangs; one sender more is refused at once, those that wait are spooled within their deadline."""
    stack = make_stack()
    stack.up()
    settings = stack.settings
    ended = threading.Event()
    took_s: list[float] = []
    waiting: list[int] = []
    before = run_together(settings, 1, lambda writer: writer.create("waiting-before") and None)

    def create_one(writer: Writer, number: int) -> None:
        if number == 0:
            writer.create(f"waiting-{writer.index}")
        else:
            ended.wait(60)

    with (
        closing(Caller(settings.cart_port, keep=False)) as caller,
        frozen(_kafka(stack)),
        Load(settings, writers=settings.publish_waiting_max, work=create_one) as load,
    ):
        until(lambda: load.in_flight == settings.publish_waiting_max, "all wait", within_s=5)
        for _ in range(PROBES):
            began = time.monotonic()
            assert caller.call("GET", "/healthz").status == 200
            took_s.append(time.monotonic() - began)
            waiting.append(load.in_flight)
            time.sleep(PROBE_PAUSE_S)
        began = time.monotonic()
        refused = caller.call("POST", "/create-order", {"orderId": "waiting-too-many", "itemsNum": 1})
        refused_s = time.monotonic() - began
        waiting.append(load.in_flight)
        until(lambda: len(load.ledger) == settings.publish_waiting_max, "all are answered", within_s=20)
        ended.set()
    load.ledger.entries += before.entries
    verdict = check_truth(load.ledger, settings)

    figures(
        f"{PROBES} probes while {settings.publish_waiting_max} senders wait",
        **verdict.outcomes,
        waiting=min(waiting),
        healthz_median_s=sorted(took_s)[PROBES // 2],
        healthz_max_s=max(took_s),
        refused_s=refused_s,
        slowest_answer_s=slowest_s(load.ledger),
    )
    assert set(waiting) == {settings.publish_waiting_max}
    assert max(took_s) < PROBE_MAX_S
    assert (refused.status, refused.body["type"]) == (503, "/problems/not-accepted")
    assert refused_s < PROBE_MAX_S
    assert verdict.outcomes == {"published": 1, "spooled": settings.publish_waiting_max}
    assert slowest_s(load.ledger) < settings.publish_deadline_s + MARGIN_S


# Growth.

OUTAGES, FIRST_LOOK = 50, 10

SHORT_WAITS = {
    "publish_attempt_timeout_s": 0.2,
    "publish_retry_max": 1,
    "publish_retry_first_delay_s": 0.05,
    "publish_deadline_s": 1.0,
    "outbox_pause_s": 0.3,
    "breaker_probe_interval_s": 0.1,
    "breaker_probe_timeout_s": 0.3,
    "wait_first_delay_s": 0.05,
    "wait_max_delay_s": 0.2,
}

#: A look may meet what is gone a moment later: a thread that granian has started for a request, or the client that asks
#: for the topic after an outage, with its thread, selector, sockets. The smallest of these last looks has none of that.
LOOKS = 5

#: Yet one such thread or connection may be there in all of them. A leak of one an outage would be forty.
THREADS_MORE, DESCRIPTORS_MORE = 1, 2

RSS_GROWTH_MAX = 15 * 2**20


class Size(NamedTuple):
    """How large a process is."""

    threads: int
    descriptors: int
    rss: int

    @classmethod
    def of(cls, program: psutil.Process) -> Size:
        return cls(program.num_threads(), program.num_fds(), program.memory_info().rss)


def test_nothing_grows_with_the_number_of_outages(make_stack: MakeStack, figures: Figures) -> None:
    """Fifty freezes in which service and relay fail to send: threads, descriptors and memory are as after the tenth."""
    stack = make_stack(**SHORT_WAITS)
    stack.up()
    programs = _working_processes(stack)
    sizes: list[dict[str, Size]] = []
    spooled_s, back_s, drained_s = [], [], []

    with Load(stack.settings, writers=4, work=Rounds(pause_s=0.05)) as load:
        for _ in range(OUTAGES):
            with frozen(_kafka(stack)):
                began = time.monotonic()
                assert _create_anew(stack, load).outcome == "spooled"
                spooled_s.append(time.monotonic() - began)
                until(lambda: _relay_waits_since(stack, began), "the relay fails, too", within_s=10)  # noqa: B023 (asked at once)
            thawed = time.monotonic()
            until(lambda: _create_anew(stack, load).published, "a new order is published", within_s=20)
            back_s.append(time.monotonic() - thawed)
            until(lambda: store.undelivered(stack.settings) == 0, "the outbox is drained", within_s=20)
            drained_s.append(time.monotonic() - thawed)
            sizes.append({name: Size.of(program) for name, program in programs.items()})
    verdict = check_truth(load.ledger, stack.settings)

    early, late = _smallest(sizes[FIRST_LOOK - LOOKS : FIRST_LOOK]), _smallest(sizes[-LOOKS:])
    opened = len(log_lines(stack, "cart-service", "breaker.opened"))
    figures(
        f"{OUTAGES} outages",
        **verdict.outcomes,
        duplicates_on_topic=verdict.duplicates,
        breaker_opened=opened,
        spooled_max_s=max(spooled_s),
        published_again_max_s=max(back_s),
        drained_max_s=max(drained_s),
        threads={name: (early[name].threads, late[name].threads) for name in programs},
        descriptors={name: (early[name].descriptors, late[name].descriptors) for name in programs},
        rss_growth_mib={name: round((late[name].rss - early[name].rss) / 2**20, 2) for name in programs},
    )
    assert opened >= OUTAGES
    assert {entry.outcome for entry in load.ledger} == {"published", "spooled"}
    for name in programs:
        assert abs(late[name].threads - early[name].threads) <= THREADS_MORE, name
        assert abs(late[name].descriptors - early[name].descriptors) <= DESCRIPTORS_MORE, name
        assert late[name].rss - early[name].rss < RSS_GROWTH_MAX, name


def _smallest(sizes: list[dict[str, Size]]) -> dict[str, Size]:
    """Of each program the fewest threads, the fewest descriptors and the least memory."""
    return {name: Size(*map(min, zip(*(size[name] for size in sizes), strict=True))) for name in sizes[0]}


def _relay_waits_since(stack: Stack, moment: float) -> bool:
    beat = read_heartbeat(stack.settings, "outbox-relay")
    return beat is not None and beat.waits_for is not None and beat.age_s() < time.monotonic() - moment


def _create_anew(stack: Stack, load: Load) -> Entry:
    """Create an order of which nothing can wait yet; what was told goes into the ledger."""
    with closing(Writer(-1, stack.settings, load.ledger)) as writer:
        return writer.create(f"anew-{time.monotonic_ns()}")
