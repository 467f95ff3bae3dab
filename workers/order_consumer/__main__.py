"""Run the order consumer: ``python -m order_consumer``."""

from __future__ import annotations

import gc
import sys

from order_consumer.consumer import PROGRAM, OrderConsumer
from orderflow.alerts import Cause
from orderflow.errors import StoreDamaged
from orderflow.store.sqlite import DatabaseError, is_damage
from orderflow.store.writer import Writer
from orderflow.worker import Worker, run


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
        writer = Writer(settings)
        for cause in (Cause.STORE_INCOMPATIBLE, Cause.STORE_DAMAGED):
            alerts.resolve(cause, "The database was opened.")
        OrderConsumer(settings, writer, alerts, stop, heartbeat).run()
    except DatabaseError as error:
        if not is_damage(error):
            raise
        raise StoreDamaged(
            f"{settings.orders_db} is damaged ({error}); build it anew with `orderflow rebuild --from-scratch`"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
