"""Run the order consumer: ``python -m order_consumer``."""

from __future__ import annotations

import gc
import sys

import structlog

from order_consumer.consumer import PROGRAM, OrderConsumer
from orderflow import logs, process
from orderflow.alerts import AlertBook, Cause
from orderflow.errors import StoreIncompatible, TopicMisconfigured
from orderflow.store.writer import Writer


def main() -> int:
    """Take the writer's lock, then consume until asked to stop."""
    settings = process.read_settings(PROGRAM)
    logs.set_up(settings, PROGRAM)
    log = structlog.get_logger(PROGRAM)
    # Thousands of records live as long as their batch: looking for garbage among them cost a tenth of the time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    stop = process.StopFlag().install()
    process.stop_with_supervisor()
    heartbeat = process.Heartbeat(settings, PROGRAM)
    alerts = AlertBook(settings, PROGRAM)

    def waiting(holder: int | None) -> None:
        heartbeat.beat("waiting", f"the writer's lock, held by process {holder}")

    with process.exclusive_lock(settings.run_dir / f"{PROGRAM}.lock", stop, waiting) as held:
        if not held:
            return process.EX_OK
        try:
            writer = Writer(settings)
            alerts.resolve(Cause.STORE_INCOMPATIBLE, "The database was opened.")
            OrderConsumer(settings, writer, alerts, stop, heartbeat).run()
        except StoreIncompatible as error:
            alerts.open(Cause.STORE_INCOMPATIBLE, str(error))
            return process.EX_CONFIG
        except TopicMisconfigured as error:
            alerts.open(Cause.TOPIC_MISCONFIGURED, str(error))
            return process.EX_CONFIG
        finally:
            alerts.close()
    log.info("process.stopped")
    return process.EX_OK


if __name__ == "__main__":
    sys.exit(main())
