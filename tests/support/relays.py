"""The relay, in a thread or in a process of its own, and what it is to deliver."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orderflow.alerts import AlertBook
from orderflow.broker import Producer
from orderflow.process import Heartbeat, StopFlag
from orderflow.settings import inherited
from orderflow.stack import project_file
from orderflow.store.outbox import Outbox
from orderflow.worker import Worker
from outbox_relay.dead_letters import Copier
from outbox_relay.relay import PROGRAM, OutboxRelay
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orderflow.messages import Message
    from orderflow.settings import Settings

SHORT = {"publish_attempt_timeout_s": 0.5, "wait_first_delay_s": 0.05, "wait_max_delay_s": 0.2}


@contextmanager
def relaying(settings: Settings, producer: Producer | None = None, copier: Copier | None = None) -> Iterator[None]:
    """Run a relay in a thread until the end of the block."""
    worker = Worker(settings, AlertBook(settings, PROGRAM), StopFlag(), Heartbeat(settings, PROGRAM))
    own = producer or Producer(settings, PROGRAM)
    relay = OutboxRelay(worker, Outbox(settings), own, copier or Copier.of(settings))
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop.set()
        thread.join(20)
        worker.alerts.close()
    assert not thread.is_alive()


@contextmanager
def relay_process(settings: Settings, code: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a relay as Supervisor does, until the end of the block, in which it may be killed; first runs ``code``."""
    program = f"{code}\nimport sys\nfrom outbox_relay.__main__ import main\nsys.exit(main())"
    log = settings.var / "outbox-relay.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=project_file("."),
            env=inherited(settings=False) | settings.environ() | {"PYTHONPATH": ".:http:workers"},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=20)


def fill(settings: Settings, messages: Sequence[Message]) -> Outbox:
    outbox = Outbox(settings)
    outbox.add([(one, False) for one in messages])
    return outbox


def wait_until_empty(outbox: Outbox, within_s: float = 30) -> None:
    until(lambda: outbox.totals().waiting == 0, "the outbox is drained", within_s)
