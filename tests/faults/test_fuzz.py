"""Tens of thousands of bad records between good ones, as bytes that no client would write, read by a real worker.

Each bad record is made by a function that knows what must come of it, in tests/support/fuzz. A run tells its seed, and
is repeated with ``FUZZ_SEED=<seed>``.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from orderflow.events import SkipReason
from tests.support.broker import answers
from tests.support.command import orderflow
from tests.support.fuzz.batches import DAMAGES, LOG_DAMAGES, damage, send
from tests.support.fuzz.checks import WORKER, check, check_log, log_lines, read_all
from tests.support.fuzz.log import EVENTS_EACH, MALFORMED, ORDERS, Fuzz
from tests.support.fuzz.makers import MAKERS, begun, topic_id_of
from tests.support.raw_batches import RawSocket, Refused, batch
from tests.support.waiting import until

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

PROGRAMS = ("kafka", WORKER)

BAD = 22_000

#: From the last record sent to the last one applied.
CATCH_UP_S = 60.0

#: Where a batch goes bad whose last record was applied, or skipped: partitions.
APPLIED, SKIPPED = 1, 2

#: Kafka's number of the error that a broker gives for partitions which it does not lead.
NOT_LEADER = 6


def worker(stack: Stack) -> psutil.Process | None:
    """The process of the worker: two are equal when pid and start are. None when it does not run."""
    pid = stack.pid(WORKER)
    return psutil.Process(pid) if pid else None


def wait_until_read(stack: Stack, fuzz: Fuzz, first: psutil.Process | None) -> float:
    """Wait until all is read, by the worker that began; how long it took, in seconds."""
    began = time.monotonic()
    until(lambda: read_all(stack, fuzz) or worker(stack) != first, "all is read", CATCH_UP_S, every_s=0.2)
    assert worker(stack) == first, "the worker was restarted"
    return time.monotonic() - began


def open_socket(stack: Stack) -> AbstractContextManager[RawSocket]:
    return RawSocket.open(stack.settings.kafka_bootstrap_servers, stack.settings.topic)


def test_every_bad_record_is_kept_and_every_good_one_applied(make_stack: MakeStack, figures: Figures) -> None:
    """Whatever stands between them, in whatever batches and codecs; the worker goes on, and says no error."""
    stack = make_stack(PROGRAMS)
    stack.up()
    first = worker(stack)
    fuzz = begun(stack, figures, "fuzz")
    fuzz.fill(MAKERS, BAD)
    assert set(fuzz.called) == {make.__name__ for make in MAKERS}

    with open_socket(stack) as socket:
        send(fuzz, socket)
    took_s = wait_until_read(stack, fuzz, first)
    counts = check(stack, fuzz)
    orderflow(stack, "audit")
    assert worker(stack) == first, "the worker was restarted"
    stack.down()  # by which the last lines are written
    check_log(stack, fuzz)

    good = ORDERS * EVENTS_EACH
    figures("fuzz", good=good, bad=counts.total(), repaired=len(fuzz.mended), read_s=took_s, **counts)
    assert counts.total() >= 20_000
    assert set(counts) == set(SkipReason) - {SkipReason.INTERNAL_ERROR}


def test_batches_that_cannot_be_read_cost_only_themselves(make_stack: MakeStack, figures: Figures) -> None:
    """Some that the broker takes and nobody can unpack, some damaged in its log, on all partitions."""
    stack = make_stack(PROGRAMS, unreadable_retries=1)
    stack.up()
    fuzz = begun(stack, figures, "fuzz, unreadable batches")
    fuzz.fill(MAKERS, 2_000, DAMAGES * 2)
    stack.stop(WORKER)
    with open_socket(stack) as socket:
        to_damage = send(fuzz, socket)
    stack.stop("kafka")
    for partition, offset, kind in to_damage:
        damage(stack.settings, partition, offset, kind)
    stack.start("kafka")
    stack.start(WORKER)
    first = until(lambda: worker(stack), "the worker runs", 20)

    took_s = wait_until_read(stack, fuzz, first)
    counts = check(stack, fuzz)
    orderflow(stack, "audit")
    stack.down()
    check_log(stack, fuzz)

    lost = sum(sent.lost for log in fuzz.logs for sent in log)
    figures("fuzz, unreadable batches", lost=lost, read_s=took_s, **counts)
    assert len(to_damage) == 2 * len(LOG_DAMAGES)
    assert lost >= 2 * len(DAMAGES)


def taken(socket: RawSocket, partition: int, data: bytes) -> bool:
    """Send a batch, if the broker, which has started, leads its partition yet."""
    try:
        socket.produce({partition: data})
    except Refused as error:
        assert error.code == NOT_LEADER
        return False
    return True


def test_batches_that_go_bad_behind_the_worker(make_stack: MakeStack) -> None:
    """They were applied, and cannot be read when the worker begins anew at their last records: none is told lost."""
    stack = make_stack(PROGRAMS)
    stack.up()
    fuzz = Fuzz(1, topic_id_of(stack))
    fuzz.orders = [next(order for order in fuzz.orders if order.partition == one) for one in (APPLIED, SKIPPED)]
    for order in fuzz.orders * 3:
        fuzz.put(order.partition, order.key, order.next(), outcome="applied")
    fuzz.put(SKIPPED, fuzz.orders[1].key, b"broken", MALFORMED)
    with open_socket(stack) as socket:
        socket.produce({one: batch([sent.raw for sent in fuzz.logs[one]]) for one in (APPLIED, SKIPPED)})
    until(lambda: read_all(stack, fuzz), "all is read", 20)
    stack.stop(WORKER)
    stack.stop("kafka")
    for partition in (APPLIED, SKIPPED):
        damage(stack.settings, partition, 0, "payload")
    stack.start("kafka")
    stack.start(WORKER)
    first = until(lambda: worker(stack), "the worker runs", 20)
    until(lambda: answers(stack.settings.kafka_port), "the broker answers", 30)

    with open_socket(stack) as socket:
        for order in fuzz.orders:
            fuzz.put(order.partition, order.key, order.next(), outcome="applied")
            send_one = partial(taken, socket, order.partition, batch([fuzz.logs[order.partition][-1].raw]))
            until(send_one, "the broker leads the partition again", 30)
    wait_until_read(stack, fuzz, first)
    check(stack, fuzz)
    assert "message.unreadable" in {line["event"] for line in log_lines(stack)}
