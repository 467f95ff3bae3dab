"""Run the order consumer: ``python -m order_consumer``."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import structlog

from order_consumer.consumer import PROGRAM, OrderConsumer
from orderflow.alerts import Cause
from orderflow.delays import growing_delays
from orderflow.errors import StoreDamaged
from orderflow.store.sqlite import DatabaseError, is_damage, is_transient
from orderflow.store.writer import Writer
from orderflow.worker import Worker, run

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.settings import Settings

#: So long the file is looked through for damage at a start: a file of 200 MB takes half a second.
CHECK_S = 2.0

log = structlog.get_logger(PROGRAM)


def main() -> int:
    """Take the writer's lock, then consume until asked to stop."""
    return run(PROGRAM, "the writer's lock", consume, incompatible=Cause.STORE_INCOMPATIBLE)


def consume(worker: Worker) -> None:
    """Consume until asked to stop."""
    # Thousands of records live as long as their batch: looking for garbage among them cost a tenth of the time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    settings, alerts, stop, heartbeat = worker
    try:
        writer = open_writer(worker)
        if writer is None:
            return
        for cause in (Cause.STORE_INCOMPATIBLE, Cause.STORE_DAMAGED):
            alerts.resolve(cause, "The database was opened.")
        OrderConsumer(settings, writer, alerts, stop, heartbeat).run()
    except DatabaseError as error:
        if not is_damage(error):
            raise
        raise _damaged(settings.orders_db, error) from error


def _damaged(path: Path, found: object) -> StoreDamaged:
    return StoreDamaged(f"{path} is damaged ({found}); build it anew with `orderflow rebuild --from-scratch`")


def _open(settings: Settings) -> Writer:
    writer = Writer(settings)
    found = writer.damage(CHECK_S)
    if found is not None:
        raise _damaged(settings.orders_db, found)
    return writer


def open_writer(worker: Worker) -> Writer | None:
    """Open the store, and look for damage; wait while it is locked or the disk is full.

    None when asked to stop meanwhile.
    """
    for delay_s in growing_delays(worker.settings):
        try:
            return _open(worker.settings)
        except DatabaseError as error:
            if not is_transient(error):
                raise
            log.error("store.retry_scheduled", delay_s=delay_s, error=str(error))  # noqa: TRY400 (no bug: no trace)
            worker.heartbeat.beat("waiting", f"the store: {error}")
        if worker.stop.wait(delay_s):
            break
    return None


if __name__ == "__main__":
    sys.exit(main())
