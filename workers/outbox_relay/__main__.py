"""Run the outbox relay: ``python -m outbox_relay``."""

from __future__ import annotations

import sys

from orderflow.alerts import Cause
from orderflow.broker import Producer
from orderflow.store.outbox import Outbox
from orderflow.worker import Worker, run
from outbox_relay.dead_letters import Copier
from outbox_relay.relay import PROGRAM, OutboxRelay


def main() -> int:
    """Take the relay's lock, then deliver until asked to stop."""
    return run(PROGRAM, "the relay's lock", deliver, incompatible=Cause.OUTBOX_UNWRITABLE)


def deliver(worker: Worker) -> None:
    """Deliver until asked to stop."""
    settings = worker.settings
    OutboxRelay(worker, Outbox(settings), Producer(settings, PROGRAM), Copier.of(settings)).run()


if __name__ == "__main__":
    sys.exit(main())
