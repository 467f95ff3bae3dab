"""The book of alerts: how a process opens and resolves them without waiting for the store.

Calls note what is to be written, at most one `Change` for each cause; a thread writes it, and tells people of what is
new. Where the store takes nothing, they are told all the same, and the change is kept and tried again.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from orderflow.alerts.webhook import Webhook
from orderflow.clock import now_ms
from orderflow.errors import StoreError
from orderflow.store.alerts import Alerts, Opening

if TYPE_CHECKING:
    from orderflow.alerts.causes import Cause
    from orderflow.settings import Settings

log = structlog.get_logger(__name__)

#: A detail is cut off behind so many characters.
DETAIL_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written of one cause, in this sequence: it opens, more is affected, it is over."""

    opening: Opening | None = None
    affected: int = 0
    over: tuple[str, int] | None = None  # the resolution, and when
    told: bool = False  # the opening, before it could be written

    def then(self, later: Change) -> Change:
        """Give this change and a later one as one. What opens again before it was written as over stays open."""
        return Change(
            self.opening or later.opening,
            self.affected + later.affected,
            later.over if later.opening else later.over or self.over,
            self.told or later.told,
        )


class AlertBook:
    """Opens and resolves alerts. Thread-safe; no call waits. Its thread is started by the first use."""

    def __init__(self, settings: Settings, program: str) -> None:
        self._program = program
        self._alerts = Alerts(settings)
        self._webhook = Webhook(settings)
        self._pause_s = settings.wait_max_delay_s
        self._changed = threading.Condition()
        #: What this process knows: True while an alert is open, missing before it has looked.
        self._open: dict[Cause, bool] = {}
        #: What waits, in order of arrival, each with the time from which it may be written.
        self._waiting: dict[Cause, tuple[float, Change]] = {}
        self._next_try: dict[Cause, float] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    def open(self, cause: Cause, detail: str, affected: int = 0) -> None:
        """Open an alert, or count further affected events of the one that is open."""
        with self._changed:
            known = self._open.get(cause, False)
            if known and not affected and not cause.facts.occurrence:
                return
            self._open[cause] = True
            opening = Opening(cause, cause.facts.severity, self._program, _plain(detail), 0, now_ms())
            # Once it is open nothing is urgent: whoever counts a thousand events a second shall not write as often.
            self._note(cause, Change(opening, affected), urgent=not known)

    def add(self, cause: Cause, affected: int) -> None:
        """Count further affected events of an alert that this process has opened; nothing where it has not."""
        with self._changed:
            if self._open.get(cause, False):
                self._note(cause, Change(affected=affected), urgent=False)

    def resolve(self, cause: Cause, resolution: str) -> None:
        """Resolve the alert of a cause, whoever opened it. Free of cost where this process knows that none is open."""
        with self._changed:
            if self._open.get(cause, True):
                self._open[cause] = False
                self._note(cause, Change(over=(resolution, now_ms())), urgent=True)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits and send what is to be sent, at most so long. A later use begins anew."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            thread, self._closing = self._thread, True
            self._waiting = {cause: (0.0, change) for cause, (_, change) in self._waiting.items()}
            self._changed.notify()
        if thread is not None:
            thread.join(timeout_s)
        self._webhook.close(max(0.0, deadline - time.monotonic()))

    def _note(self, cause: Cause, change: Change, *, urgent: bool) -> None:
        due = 0.0 if urgent else self._next_try.get(cause, 0.0)
        if cause in self._waiting:
            before, earlier = self._waiting[cause]
            due, change = min(before, due), earlier.then(change)
        self._waiting[cause] = (due, change)
        if self._thread is None:
            self._closing = False
            self._thread = threading.Thread(target=self._run, name="alert-book", daemon=True)
            self._thread.start()
        self._changed.notify()

    # The thread.

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            cause, change = taken
            try:
                left = self._write(cause, change)
            except Exception:
                log.exception("alert.not_written", cause=cause)
                left = change
            if left is not None:
                with self._changed:
                    _, later = self._waiting.pop(cause, (0.0, Change()))
                    self._waiting[cause] = (time.monotonic() + self._pause_s, left.then(later))
        self._alerts.close()

    def _take(self) -> tuple[Cause, Change] | None:
        """Wait for a change that may be written; None when the book is closed and nothing is left."""
        with self._changed:
            while True:
                now = time.monotonic()
                for cause, (due, change) in self._waiting.items():
                    if due <= now:
                        del self._waiting[cause]
                        self._next_try[cause] = now + self._pause_s
                        return cause, change
                if self._closing and not self._waiting:
                    self._thread = None
                    return None
                first = min((due for due, _ in self._waiting.values()), default=None)
                self._changed.wait(None if first is None else first - now)

    def _write(self, cause: Cause, change: Change) -> Change | None:
        """Write a change, and tell of what is new; give what the store did not take."""
        opening = change.opening and change.opening._replace(affected=change.affected)
        try:
            if opening is not None:
                alert_id, new = self._alerts.open(opening)
                if new and not change.told:
                    self._tell(opening, alert_id)
            elif change.affected:
                self._alerts.add(cause, change.affected)
            opening, change = None, Change(over=change.over)
            if change.over is not None and (row := self._alerts.resolve(cause, *change.over)) is not None:
                log.info(
                    "alert.resolved",
                    cause=cause,
                    duration_s=row.duration_s,
                    resolution=row.resolution,
                    alert_id=row.id,
                )
        except StoreError:
            if opening is not None and not change.told:
                self._tell(opening, None)
            return replace(change, told=opening is not None)
        return None

    def _tell(self, opening: Opening, alert_id: int | None) -> None:
        log.error(
            "alert.opened",
            cause=opening.cause,
            severity=opening.severity,
            detail=opening.detail,
            affected=opening.affected,
            alert_id=alert_id,
        )
        self._webhook.send(opening, alert_id)


def _plain(detail: str) -> str:
    """Make a detail one line that is not too long, of text that a store takes: an error's message may be anything."""
    return " ".join(detail.split())[:DETAIL_MAX].encode(errors="backslashreplace").decode()
