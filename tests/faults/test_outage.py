"""Kafka away while orders come in: every answer is true, nothing is lost, one alert tells of it and of its end."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import store
from tests.support.load import Load, run_together
from tests.support.outage import Rounds, alerts, ask, by_order, log_lines, slowest_s, went_and_came_back
from tests.support.store_trouble import small_disk
from tests.support.truth import check_truth
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.settings import Settings
    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack
    from tests.support.load import Writer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SHORT_WAITS = {
    "publish_attempt_timeout_s": 0.3,
    "publish_deadline_s": 5.0,
    "publish_retry_first_delay_s": 0.05,
    "breaker_probe_interval_s": 0.2,
    "breaker_probe_timeout_s": 0.5,
}

OUTAGE_S = 20.0
ORDERS = 200
AWAY_AT_BOOT_S = 60.0

#: What an answer may take beyond its deadlines on a busy machine.
MARGIN_S = 1.0


def deadline_s(settings: Settings) -> float:
    """Within which a write must be answered: Kafka's part, then the outbox's."""
    return settings.write_answered_within_s + MARGIN_S


def _resolved(stack: Stack) -> dict[str, object] | None:
    found = alerts(stack, "kafka_unreachable")
    return found[0] if found and found[0]["resolvedAt"] else None


def test_kafka_stopped_in_the_middle_of_a_load(make_stack: MakeStack, figures: Figures) -> None:
    """Orders are published before and after, spooled meanwhile; one alert opens once, and resolves."""
    stack = make_stack()
    stack.up()

    with Load(stack.settings, work=Rounds()) as load:
        until(lambda: len(by_order(load.ledger)) >= 320, "all orders are created", within_s=30)
        stopped = time.monotonic()
        stack.stop("kafka")
        time.sleep(OUTAGE_S)
        started = time.monotonic()
        stack.start("kafka")
        back = until(lambda: load.ledger.first_published_after(started), "an event is published", within_s=30)
        until(lambda: store.undelivered(stack.settings) == 0, "the outbox is drained", within_s=30)
        drained_s = time.monotonic() - started
        time.sleep(3)
    alert = until(lambda: _resolved(stack), "the alert is resolved", within_s=10)
    verdict = check_truth(load.ledger, stack.settings)

    orders = by_order(load.ledger).values()
    before = {e.order_id for e in load.ledger if e.accepted and e.ended < stopped}
    during = {e.order_id for e in load.ledger if e.accepted and stopped < e.sent and e.ended < started}
    after = {e.order_id for e in load.ledger if e.accepted and e.sent > started}
    came_back = sum(map(went_and_came_back, orders))
    figures(
        f"Kafka stopped for {OUTAGE_S:g} s",
        **verdict.outcomes,
        duplicates_on_topic=verdict.duplicates,
        orders_before_during_after=len(before & during & after),
        orders_that_came_back=came_back,
        published_again_s=back - started,
        drained_s=drained_s,
        slowest_answer_s=slowest_s(load.ledger),
        alert_s=alert["durationS"],
    )
    assert set(verdict.outcomes) == {"published", "spooled"}
    assert len(before & during & after) >= ORDERS
    assert came_back > 0
    assert slowest_s(load.ledger) < deadline_s(stack.settings)
    assert len(alerts(stack, "kafka_unreachable")) == 1
    assert len(log_lines(stack, "cart-service", "alert.opened")) == 1
    assert alert["affected"] == verdict.outcomes["spooled"]


def test_kafka_absent_at_boot_for_a_minute(make_stack: MakeStack, figures: Figures) -> None:
    """Nothing restarts, orders are spooled from the first on, one alert opens; then all is delivered."""
    programs = ("order-consumer", "outbox-relay", "cart-service", "order-service")
    stack = make_stack(programs)
    stack.launch()
    until(lambda: all(stack.pid(name) for name in programs), "all programs run", within_s=20)
    pids = [stack.pid(name) for name in programs]
    until(lambda: isinstance(_try_readyz(stack), dict), "the cart service answers", within_s=20)
    booted = time.monotonic()

    with Load(stack.settings, writers=4, work=Rounds(pause_s=0.2)) as load:
        time.sleep(AWAY_AT_BOOT_S - (time.monotonic() - booted))
        said = [row.says for row in stack.status() if not row.ok]
        told = alerts(stack, "kafka_unreachable")
        same = [stack.pid(name) for name in programs] == pids
        stack.start("kafka")
        until(lambda: load.ledger.first_published_after(booted), "an event is published", within_s=30)
    alert = until(lambda: _resolved(stack), "the alert is resolved", within_s=20)
    verdict = check_truth(load.ledger, stack.settings)

    figures(f"Kafka absent at boot for {AWAY_AT_BOOT_S:g} s", **verdict.outcomes, alert_s=alert["durationS"])
    assert same, "a program was restarted"
    assert len(told) == len(alerts(stack, "kafka_unreachable")) == 1
    assert any("waits for Kafka" in text for text in said)
    assert set(verdict.outcomes) == {"published", "spooled"}
    assert slowest_s(load.ledger) < MARGIN_S, "nobody waited for a Kafka that was never seen"


def _try_readyz(stack: Stack) -> object:
    return ask(stack.settings.cart_port, "/readyz")


def test_when_the_outbox_is_full_only_what_must_spool_is_refused(make_stack: MakeStack, figures: Figures) -> None:
    """Kafka is back while the relay is held: other orders are published, those that wait stay behind what waits."""
    stack = make_stack(**SHORT_WAITS, outbox_max_events=100)
    stack.up()
    stack.stop("outbox-relay")
    stack.stop("kafka")

    def fill(writer: Writer) -> None:
        for number in range(40):
            writer.create(f"full-{writer.index}-{number}")

    full = run_together(stack.settings, 8, fill)
    ready = ask(stack.settings.cart_port, "/readyz")
    stack.start("kafka")
    spooled = [entry.order_id for entry in full if entry.outcome == "spooled"]
    refused = [entry for entry in full if entry.outcome in {"refused", "unknown"}]
    until(lambda: _published(stack, full, "after"), "another order is published", within_s=30)

    def update(writer: Writer) -> None:
        for order_id in spooled[writer.index :: 4]:
            writer.update(order_id, "shipped")

    behind = run_together(stack.settings, 4, update)
    (alert,) = until(lambda: alerts(stack, "outbox_nearly_full"), "an alert is open", within_s=5)
    full.entries += behind.entries
    stack.start("outbox-relay")
    until(lambda: store.undelivered(stack.settings) == 0, "the outbox is drained", within_s=30)
    until(lambda: alerts(stack, "outbox_nearly_full")[0]["resolvedAt"], "the alert is resolved", within_s=10)
    _published(stack, full, "late")
    verdict = check_truth(full, stack.settings)

    figures("outbox full", **verdict.outcomes, unknown_on_topic=verdict.unknown_on_topic)
    assert len(spooled) == 100
    assert len(refused) == 8 * 40 - 100
    assert ready["status"] == "unready", ready
    assert behind.outcomes() == {"refused": 100}, "they must spool, and there is no room"
    assert {entry.answer.status for entry in refused} == {503}
    assert (alert["severity"], alert["affected"]) == ("critical", 0)


def _published(stack: Stack, ledger: object, name: str) -> bool:
    """Whether a new order is published; what was told goes into the ledger."""
    (entry,) = run_together(stack.settings, 1, lambda writer: writer.create(f"{name}-{time.monotonic_ns()}") and None)
    ledger.entries.append(entry)  # type: ignore[attr-defined]
    return bool(entry.published)


def test_the_outbox_on_a_full_disk(make_stack: MakeStack, figures: Figures, tmp_path: Path) -> None:
    """What cannot be stored is refused or unknown, what was stored is delivered; with room again all goes on."""
    with small_disk(tmp_path / "disk", 512) as disk:
        stack = make_stack(**SHORT_WAITS)
        stack.settings.var.mkdir(parents=True, exist_ok=True)
        stack.settings.outbox_db.symlink_to(disk / "outbox.db")
        stack.up()
        stack.stop("kafka")

        def fill(writer: Writer) -> None:
            for number in range(60):
                writer.create(f"disk-{writer.index}-{number}", items_num=20)

        full = run_together(stack.settings, 8, fill)
        until(lambda: log_lines(stack, "cart-service", "alert.opened"), "it is told", within_s=5)
        time.sleep(2)  # The disk stays full, and nobody writes: no second alert, and no recovery.
        causes = sorted(line["cause"] for line in log_lines(stack, "cart-service", "alert.opened"))
        resolved = log_lines(stack, "cart-service", "alert.resolved")
        stack.start("kafka")
        until(lambda: _published(stack, full, "after"), "another order is published", within_s=30)
        subprocess.run(["/bin/mount", "-o", "remount,size=4096k", str(disk)], check=True)
        until(lambda: store.undelivered(stack.settings) == 0, "the outbox is drained", within_s=30)
        until(lambda: alerts(stack, "outbox_unwritable")[0]["resolvedAt"], "the alert is resolved", within_s=10)
        verdict = check_truth(full, stack.settings)
        stack.down()

    figures("outbox on a full disk", **verdict.outcomes, unknown_on_topic=verdict.unknown_on_topic)
    assert verdict.outcomes["spooled"] > 0
    assert verdict.outcomes["refused"] > 0
    assert causes == ["kafka_unreachable", "outbox_unwritable"]
    assert not resolved


def test_orders_in_constant_use_leave_the_outbox(make_stack: MakeStack, figures: Figures) -> None:
    """Writers that never pause, one order each: after the outage they are published again, and its alert resolves."""
    stack = make_stack(**SHORT_WAITS)
    stack.up()

    with Load(stack.settings, writers=40, work=Rounds(orders=1, pause_s=0.002)) as load:
        until(lambda: len(by_order(load.ledger)) == 40, "all orders are created", within_s=30)
        stack.stop("kafka")
        away = time.monotonic()
        until(lambda: sum(e.outcome == "spooled" and e.sent > away for e in load.ledger) > 500, "it is spooled", 30)
        stack.start("kafka")
        started = time.monotonic()
        until(lambda: _only_published(load), "all is published directly again", within_s=60)
        direct_s = time.monotonic() - started
        until(lambda: _resolved(stack), "the alert is resolved while the load goes on", within_s=10)
        latest = list(load.ledger)[-200:]
    verdict = check_truth(load.ledger, stack.settings)

    figures("40 orders in constant use", **verdict.outcomes, all_direct_again_s=direct_s)
    assert max(entry.ended - entry.sent for entry in latest) < stack.settings.publish_deadline_s
    assert set(verdict.outcomes) == {"published", "spooled"}


def _only_published(load: Load) -> bool:
    """Whether the last answers of all writers, some of each, are of events that went to Kafka directly."""
    latest = list(load.ledger)[-200:]
    return len(latest) == 200 and all(entry.published for entry in latest)
