"""What a Kafka that hangs costs: processor time, the patience of probes, and nothing that grows."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from orderflow.store.outbox_desk import OutboxDesk
from tests.support import store
from tests.support.calls import Answer, Caller
from tests.support.load import Load, Writer
from tests.support.outage import Rounds, log_lines, slowest_s
from tests.support.truth import check_truth
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings
    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

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
    processes = _working_processes(stack)
    trickle = Trickle(time.monotonic(), threading.Event())

    with Load(stack.settings, writers=TRICKLE_WRITERS, work=trickle) as load:
        until(lambda: len(load.ledger.published()) >= 10, "the trickle flows", within_s=20)
        with frozen(_kafka(stack)):
            began = time.monotonic()
            shares = _cpu_shares(processes, FROZEN_S)
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


def _cpu_shares(processes: dict[str, psutil.Process], seconds: float) -> dict[str, list[float]]:
    """How much of a core each took, part by part."""
    shares: dict[str, list[float]] = {name: [] for name in processes}
    at, used = time.monotonic(), _cpu_s(processes)
    for part in range(1, round(seconds / PART_S) + 1):
        ...
    return shares
