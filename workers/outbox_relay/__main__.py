"""Run the outbox relay: ``python -m outbox_relay``."""

from __future__ import annotations

import sys

import structlog

from orderflow import logs, process
from orderflow.alerts import AlertBook, Cause
from orderflow.broker import Producer
from orderflow.errors import StoreIncompatible, TopicMisconfigured
from orderflow.store.outbox import Outbox
from outbox_relay.relay import PROGRAM, OutboxRelay


def main() -> int:
    """Take the relay's lock, then deliver until asked to stop."""
    settings = process.read_settings(PROGRAM)
    logs.set_up(settings, PROGRAM)
    log = structlog.get_logger(PROGRAM)
    stop = process.StopFlag().install()
    process.stop_with_supervisor()
    heartbeat = process.Heartbeat(settings, PROGRAM)
    alerts = AlertBook(settings, PROGRAM)

    def waiting(holder: int | None) -> None:
        heartbeat.beat("waiting", f"the relay's lock, held by process {holder}")

    with process.exclusive_lock(settings.run_dir / f"{PROGRAM}.lock", stop, waiting) as held:
        if not held:
            return process.EX_OK
        try:
            OutboxRelay(settings, Outbox(settings), Producer(settings, PROGRAM), alerts, stop, heartbeat).run()
        except TopicMisconfigured as error:
            alerts.open(Cause.TOPIC_MISCONFIGURED, str(error))
            return process.EX_CONFIG
        except StoreIncompatible as error:
            alerts.open(Cause.OUTBOX_UNWRITABLE, str(error))
            return process.EX_CONFIG
        finally:
            alerts.close()
    log.info("process.stopped")
    return process.EX_OK


if __name__ == "__main__":
    sys.exit(main())
