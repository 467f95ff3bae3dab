"""Measure how fast a projection is checked and built anew: ``python benchmarks/checking.py --orders 500000``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import ceilings
import filling
import phases
from figures import Figure, table

from orderflow.stack import Stack

#: What an audit may take, whatever the size of the topic.
AUDIT_MB = 500

LOOK_S = 0.02


class Run(NamedTuple):
    """A command that was run: all of it, from its process's start to its end."""

    seconds: float
    peak_mb: float
    said: dict[str, object]


def command(stack: Stack, *arguments: str) -> Run:
    """Run a command of orderflow; it must end with 0."""
    whole = [sys.executable, "-m", "orderflow.cli.main", *arguments, "--json"]
    with tempfile.TemporaryFile() as output:
        begin, peak_mb = time.monotonic(), 0.0
        process = subprocess.Popen(whole, cwd=stack.directory, env=stack.env, stdout=output)  # noqa: S603 (ours)
        while process.poll() is None:
            peak_mb = max(peak_mb, _used_mb(process.pid))
            time.sleep(LOOK_S)
        seconds = time.monotonic() - begin
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, whole)
        output.seek(0)
        return Run(seconds, peak_mb, json.load(output))


def _used_mb(pid: int) -> float:
    """Read what a process and its children have in memory. What several of them share counts several times."""
    used = 0.0
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                used = int(line.split()[1]) * 1024 / 1e6
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        used += sum(_used_mb(int(child)) for child in children)
    return used


def measured(stack: Stack, events: int) -> list[Figure]:
    """Audit the filled and applied topic, and rebuild from it."""
    audit, rebuild = command(stack, "audit"), command(stack, "rebuild", "--yes")
    note = "the whole command"
    return [
        Figure("audited", events / audit.seconds, "/s", at_least=50_000, of="kafka-python poll", note=note),
        Figure("memory audit", audit.peak_mb, "MB", at_most=AUDIT_MB, note="peak, resident"),
        Figure("rebuilt", events / rebuild.seconds, "/s", of="poll, then insert", note=note),
        Figure("memory rebuild", rebuild.peak_mb, "MB", note="peak, resident"),
    ]


def main() -> int:
    """Fill a topic, apply it, and measure."""
    parser = argparse.ArgumentParser(description="Measure the audit and the rebuild.")
    parser.add_argument("--orders", type=int, default=150_000, help="two events each")
    events = 2 * parser.parse_args().orders
    with tempfile.TemporaryDirectory(prefix="orderflow-bench-") as folder:
        stack = Stack.create(Path(folder) / "stack")
        try:
            stack.up()
            stack.stop(phases.CONSUMER)
            filling.fill(stack.settings, events // 2)
            applied = phases.applied(stack, events)
            polled = ceilings.poll(stack.settings, events)
            inserted = ceilings.inserts(stack.settings.orders_db, Path(folder))
            found = [
                *measured(stack, events),
                Figure("events applied", applied, "/s"),
                Figure("poll, then insert", 1 / (1 / polled + 1 / inserted), "/s"),
                Figure("kafka-python poll", polled, "/s"),
            ]
        finally:
            stack.down()
    sys.stdout.write(table(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
