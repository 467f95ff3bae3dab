"""Writers in threads, each with a connection of its own, that write down what they were told."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Self

from tests.support.calls import Answer, Caller, Ending
from tests.support.ledger import STATUSES, Entry, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.settings import Settings

#: Pause of a writer that finds nobody listening.
UNREACHABLE_PAUSE_S = 0.02


class Writer:
    """Sends one writer's events, one at a time, and keeps the ledger."""

    def __init__(self, index: int, settings: Settings, ledger: Ledger, *, keep: bool = True) -> None:
        self.index = index
        self.number = 0
        #: When the request under way was begun; None between two.
        self.since: float | None = None
        self._ledger = ledger
        self._caller = Caller(settings.cart_port, keep=keep)

    def close(self) -> None:
        self._caller.close()

    def create(self, order_id: str, items_num: int = 2) -> Entry:
        return self._write("POST", "/create-order", order_id, None, {"orderId": order_id, "itemsNum": items_num})

    def update(self, order_id: str, status: str) -> Entry:
        return self._write("PUT", "/update-order", order_id, status, {"orderId": order_id, "status": status})

    def _write(self, method: str, path: str, order_id: str, status: str | None, body: object) -> Entry:
        key = {"Idempotency-Key": f"{order_id}/{self.index}/{self.number}"}
        self.since = sent = time.monotonic()
        answer = self._caller.call(method, path, body, key)
        self.since = None
        entry = Entry(self.index, self.number, order_id, status, sent, time.monotonic(), answer)
        self.number += 1
        self._ledger.entries.append(entry)
        return entry


class Load:
    """Writers that go on until the ``with`` is left. ``work`` is one round of a writer; the default makes an order."""

    def __init__(
        self,
        settings: Settings,
        *,
        writers: int = 32,
        name: str = "load",
        keep: bool = True,
        work: Callable[[Writer, int], None] | None = None,
    ) -> None:
        self.ledger = Ledger()
        self._name = name
        self._work = work or self._one_order
        self._stop = threading.Event()
        self._writers = [Writer(index, settings, self.ledger, keep=keep) for index in range(writers)]
        self._threads = [threading.Thread(target=self._run, args=[writer], daemon=True) for writer in self._writers]
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let each writer finish its request, and wait for all. A writer that crashed fails the test."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)
        assert not any(thread.is_alive() for thread in self._threads), "a writer still waits for its answer"
        for writer in self._writers:
            writer.close()
        if self._errors:
            raise self._errors[0]

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return sum(writer.since is not None for writer in self._writers)

    def all_begun_since(self, moment: float) -> bool:
        """Whether every request that is under way was begun after a moment: the older ones all have ended."""
        return all(since is None or since > moment for since in [writer.since for writer in self._writers])

    def _run(self, writer: Writer) -> None:
        round_number = 0
        try:
            while not self._stop.is_set():
                self._work(writer, round_number)
                round_number += 1
        except BaseException as error:  # noqa: BLE001 (raised again by stop())
            self._errors.append(error)

    def _one_order(self, writer: Writer, round_number: int) -> None:
        """Create an order, then take it through all statuses; an order that was not created is left alone."""
        order_id = f"{self._name}-{writer.index}-{round_number}"
        entry = writer.create(order_id)
        for status in STATUSES:
            _pause_after(entry.answer)
            if not entry.accepted or self._stop.is_set():
                return
            entry = writer.update(order_id, status)


def _pause_after(answer: Answer) -> None:
    if answer.ending is not Ending.ANSWERED:
        time.sleep(UNREACHABLE_PAUSE_S)


def run_together(settings: Settings, writers: int, work: Callable[[Writer], None]) -> Ledger:
    """Let so many writers do their work at the same time, once each, and give the ledger of all."""
    ledger = Ledger()

    def run(index: int) -> None:
        with closing(Writer(index, settings, ledger)) as writer:
            work(writer)

    with ThreadPoolExecutor(writers) as pool:
        for future in [pool.submit(run, index) for index in range(writers)]:
            future.result()
    return ledger
