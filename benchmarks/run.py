"""Measure orderflow on a stack of its own, beside the ceilings of this machine: ``python benchmarks/run.py``.

It takes about four minutes. Run it on a machine that does nothing else: it says how busy the machine was before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ceilings
import checking
import filling
import phases
import psutil
from figures import Figure, as_json, median_of, table
from wire import Sample, percentile

from orderflow.stack import Stack

ORDERS = 120_000
EVENTS = 2 * ORDERS
REPEAT = 3

#: Above this share of the machine in use by others, figures are not worth keeping.
QUIET_PERCENT = 10.0


def main() -> int:
    """Measure, print the table, and write the file."""
    parser = argparse.ArgumentParser(description="Measure orderflow beside the ceilings of this machine.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="a setting of the stack")
    arguments = parser.parse_args()
    machine = _machine()
    tell(f"{machine['cpus']} CPUs, {machine['busy_percent']:.0f} % of them busy before the start")
    if machine["busy_percent"] > QUIET_PERCENT:
        tell("  OTHERS USE THIS MACHINE: the figures will be too low")
    with tempfile.TemporaryDirectory(prefix="orderflow-bench-") as folder:
        begin = time.monotonic()
        stack = Stack.create(Path(folder) / "stack", **_settings(arguments.set))
        try:
            stack.up()
            figures = [Figure("whole stack ready", time.monotonic() - begin, "s", note="first start, formats Kafka")]
            figures += measure_all(stack, Path(folder))
        finally:
            stack.down()
    tell("")
    sys.stdout.write(table(figures) + "\n")
    if arguments.json:
        content = {"machine": machine, "settings": arguments.set, "figures": as_json(figures)}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def measure_all(stack: Stack, folder: Path) -> list[Figure]:
    """Go through the phases."""
    return [
        *_applying(stack, folder),
        *_checking(stack),
        *_reading(stack),
        *_creating(stack),
        *_readable(stack),
        *(
            Figure(f"memory {name}", value, "MB", at_most=120 if name in phases.PYTHON else None, note="resident")
            for name, value in phases.memory_mb(stack).items()
        ),
        *_starting(stack),
        *_outage(stack, folder),
    ]


def _applying(stack: Stack, folder: Path) -> list[Figure]:
    tell(f"filling the topic with {EVENTS:,} events")
    stack.stop(phases.CONSUMER)
    filling.fill(stack.settings, ORDERS)
    tell(f"applying them, {REPEAT} times")
    rate = median_of(REPEAT, lambda: phases.applied(stack, EVENTS))
    tell("ceilings: polling the same topic, inserting the same rows")
    polled = median_of(REPEAT, lambda: ceilings.poll(stack.settings, EVENTS))
    inserted = ceilings.inserts(stack.settings.orders_db, folder)
    both = 1 / (1 / polled + 1 / inserted)
    return [
        Figure("events applied", rate, "/s", at_least=45_000, of="poll, then insert"),
        Figure("poll, then insert", both, "/s", note="the two ceilings below, one after the other"),
        Figure("kafka-python poll", polled, "/s"),
        Figure("SQLite inserts", inserted, "/s", note="history and order rows, 2,000 a transaction"),
    ]


def _checking(stack: Stack) -> list[Figure]:
    tell("auditing, and rebuilding")
    return checking.measured(stack, EVENTS)


def _reading(stack: Stack) -> list[Figure]:
    tell("reading")
    samples = [phases.reads(stack, ORDERS) for _ in range(REPEAT)]
    ceiling = phases.healthz(stack.settings.order_port)
    return [
        *_load("order-details", samples, at_least=15_000, of="healthz order-service"),
        Figure("healthz order-service", ceiling.rate, "/s", note="client and server alone"),
    ]


def _creating(stack: Stack) -> list[Figure]:
    tell("creating")
    phases.creates(stack, 10.0)  # The broker compiles what it needs in the first seconds of a new load.
    samples = [phases.creates(stack) for _ in range(REPEAT)]
    ceiling = phases.healthz(stack.settings.cart_port)
    tell("ceilings: producing")
    single, grouped = ceilings.single_sends(stack.settings), ceilings.grouped_sends(stack.settings)
    return [
        *_load("create-order", samples, at_least=6_000, of="send().get(), 32 threads"),
        Figure("send().get(), 32 threads", single, "/s", note="kafka-python alone"),
        Figure("sends in groups of 32", grouped, "/s", note="kafka-python alone"),
        Figure("healthz cart-service", ceiling.rate, "/s", note="client and server alone"),
    ]


def _load(name: str, samples: list[Sample], *, at_least: float, of: str) -> list[Figure]:
    median = statistics.median
    return [
        Figure(name, median(sample.rate for sample in samples), "/s", at_least=at_least, of=of, note="32 connections"),
        Figure(f"{name} p50", median(sample.percentile_ms(50) for sample in samples), "ms"),
        Figure(f"{name} p99", median(sample.percentile_ms(99) for sample in samples), "ms"),
    ]


def _readable(stack: Stack) -> list[Figure]:
    tell("how soon a create can be read")
    times = phases.readable(stack)
    return [
        Figure("readable after p50", percentile(times, 50) * 1000, "ms", at_most=15, note="from the answer on"),
        Figure("readable after p99", percentile(times, 99) * 1000, "ms"),
    ]


def _starting(stack: Stack) -> list[Figure]:
    tell("restarting each program")
    return [Figure(f"start {name}", phases.start_up_s(stack, name), "s", note="alone") for name in phases.PYTHON]


def _outage(stack: Stack, folder: Path) -> list[Figure]:
    tell("spooling while Kafka is away, and draining")
    samples = [(phases.spooled(stack), phases.drained(stack)) for _ in range(REPEAT)]
    rate = statistics.median(drained for _, drained in samples)
    commits = ceilings.synced_commits(folder, rows=32)
    sends = ceilings.grouped_sends(stack.settings)
    return [
        *_load("spooled", [sample for sample, _ in samples], at_least=1_000, of="synced commits of 32 rows"),
        Figure("synced commits of 32 rows", commits, "/s", note="SQLite alone, rows a second"),
        Figure("drained by the relay", rate, "/s", at_least=2_000, of="sends in groups of 32 again"),
        Figure("sends in groups of 32 again", sends, "/s", note="kafka-python alone"),
    ]


def _settings(pairs: list[str]) -> dict[str, Any]:
    named = dict(pair.split("=", 1) for pair in pairs)
    return {name: int(value) if value.lstrip("-").isdigit() else value for name, value in named.items()}


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "system": platform.platform(),
        "busy_percent": psutil.cpu_percent(2),
    }


def tell(line: str) -> None:
    """Show progress, apart from the result."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
