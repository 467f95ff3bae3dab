"""Running a worker: its settings, logs, signals, lock and alerts, its exit code for Supervisor; standing in for it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple

import structlog

from orderflow import logs, process
from orderflow.alerts import AlertBook, Cause
from orderflow.errors import StoreDamaged, StoreIncompatible, TopicMisconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orderflow.settings import Settings


class Worker(NamedTuple):
    """What a worker is given to do its work with."""

    settings: Settings
    alerts: AlertBook
    stop: process.StopFlag
    heartbeat: process.Heartbeat


def run(program: str, lock: str, work: Callable[[Worker], None], *, incompatible: Cause) -> int:
    """Take the lock, then work until asked to stop; give the exit code.

    ``lock`` names the lock for people, ``incompatible`` is the alert of a store that another version has written.
    """
    settings = process.read_settings(program)
    logs.set_up(settings, program)
    log = structlog.get_logger(program)
    stop = process.StopFlag().install()
    process.stop_with_supervisor()
    heartbeat = process.Heartbeat(settings, program)
    alerts = AlertBook(settings, program)

    def waiting(holder: int | None) -> None:
        heartbeat.stand_by(f"{lock}, held by process {holder}")

    with process.exclusive_lock(settings.run_dir / f"{program}.lock", stop, waiting) as held:
        if not held:
            return process.EX_OK
        try:
            work(Worker(settings, alerts, stop, heartbeat))
        except StoreIncompatible as error:
            alerts.open(incompatible, str(error))
            return process.EX_CONFIG
        except StoreDamaged as error:
            alerts.open(Cause.STORE_DAMAGED, str(error))
            return process.EX_CONFIG
        except TopicMisconfigured as error:
            alerts.open(Cause.TOPIC_MISCONFIGURED, str(error))
            return process.EX_CONFIG
        finally:
            alerts.close()
    log.info("process.stopped")
    return process.EX_OK


@contextmanager
def standing_in(settings: Settings, program: str, what: str) -> Iterator[None]:
    """Beat in a worker's stead, from a thread, while ``what`` does its work. The caller holds the worker's lock."""
    heartbeat = process.Heartbeat(settings, program)
    waits_for = f"{what}, process {os.getpid()}"
    over = Event()

    def beat() -> None:
        heartbeat.stand_in(waits_for)
        while not over.wait(settings.heartbeat_interval_s):
            heartbeat.stand_in(waits_for)

    thread = Thread(target=beat, name="standing-in", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
