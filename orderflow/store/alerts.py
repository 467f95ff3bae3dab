"""The alerts: a row each, at most one of a cause open. Any process opens one; its owner or a person resolves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orderflow.clock import now_ms
from orderflow.store.outbox_file import OutboxFile

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from orderflow.store.sqlite import Connection


class Opening(NamedTuple):
    """What is to be written of an alert that opens; ``opened_at`` is in ms since 1970."""

    cause: str
    severity: str
    program: str
    detail: str
    affected: int
    opened_at: int


class AlertRow(NamedTuple):
    """A row; the columns of the table. A newer version may have written a cause or severity that is not known here."""

    id: int
    cause: str
    severity: str
    program: str
    detail: str
    affected: int
    opened_at: int
    updated_at: int
    acknowledged_at: int | None
    acknowledged_by: str | None
    note: str | None
    resolved_at: int | None
    resolution: str | None

    @property
    def duration_s(self) -> float | None:
        """How long it was open; None while it is."""
        return None if self.resolved_at is None else max(0, self.resolved_at - self.opened_at) / 1000


class Alerts:
    """The table. Thread-safe. Each method may raise `StoreError`: then nothing was changed.

    It waits ``busy_timeout_s`` for a locked file; by default as long as the settings say.
    """

    def __init__(self, settings: Settings, busy_timeout_s: float | None = None) -> None:
        self._file = OutboxFile(settings, busy_timeout_s)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    # Opening and resolving.

    def open(self, opening: Opening) -> tuple[int, bool]:
        """Open an alert; give its id and whether it is new.

        To one of this cause that is open already, only the affected are added.
        """
        with self._file.transaction() as connection:
            row = _find_open(connection, opening.cause)
            if row is not None:
                _add(connection, row.id, opening.affected)
                return row.id, False
            ((new_id,),) = connection.execute(_OPEN, (*opening, opening.opened_at)).fetchall()
            return int(new_id), True

    def add(self, cause: str, affected: int) -> bool:
        """Count further affected events of the open alert of this cause; False when none is open."""
        with self._file.transaction() as connection:
            row = _find_open(connection, cause)
            if row is not None:
                _add(connection, row.id, affected)
            return row is not None

    def resolve(self, cause: str, resolution: str, resolved_at: int | None = None) -> AlertRow | None:
        """Resolve the open alert of this cause and give it; None when none is open, which is told without a write."""
        if not self._file.query("SELECT 1 FROM alerts WHERE cause = ? AND resolved_at IS NULL", (cause,)):
            return None
        with self._file.transaction() as connection:
            row = _find_open(connection, cause)
            if row is None:
                return None
            connection.execute(_RESOLVE, (resolved_at or now_ms(), resolution, row.id))
            return _get(connection, row.id)

    def acknowledge(self, alert_id: int, author: str, note: str | None, *, resolves: bool) -> AlertRow | None:
        """Take note of who looks after an open alert, which may resolve it; None when there is no open one of this id.

        The last acknowledgement counts.
        """
        with self._file.transaction() as connection:
            now = now_ms()
            if not connection.execute(_ACKNOWLEDGE, (now, author, note, alert_id)).rowcount:
                return None
            if resolves:
                connection.execute(_RESOLVE, (now, f"Closed by {author}.", alert_id))
            return _get(connection, alert_id)

    # Looking.

    def get(self, alert_id: int) -> AlertRow | None:
        """Give one alert; None when there is none of this id."""
        rows = self._file.query(f"{_SELECT} WHERE id = ?", (alert_id,))
        return AlertRow(*rows[0]) if rows else None

    def rows(self, *, open_only: bool = True, limit: int = 100, before_id: int = 2**63 - 1) -> list[AlertRow]:
        """Give alerts, newest first, older than the one with the id ``before_id``."""
        state = "AND resolved_at IS NULL" if open_only else ""
        sql = f"{_SELECT} WHERE id < ? {state} ORDER BY id DESC LIMIT ?"  # no outside text
        return [AlertRow(*row) for row in self._file.query(sql, (before_id, limit))]

    def open_counts(self) -> dict[tuple[str, ...], float]:
        """Count the open alerts by cause and severity."""
        rows = self._file.query("SELECT cause, severity FROM alerts WHERE resolved_at IS NULL")
        return dict.fromkeys(rows, 1)  # at most one of a cause


_SELECT = f"SELECT {', '.join(AlertRow._fields)} FROM alerts"  # noqa: S608 (no outside text)

_OPEN = """
INSERT INTO alerts (cause, severity, program, detail, affected, opened_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)
RETURNING id
"""

_RESOLVE = "UPDATE alerts SET resolved_at = ?1, updated_at = ?1, resolution = ?2 WHERE id = ?3"

_ACKNOWLEDGE = """
UPDATE alerts SET acknowledged_at = ?1, updated_at = ?1, acknowledged_by = ?2, note = ?3
WHERE id = ?4 AND resolved_at IS NULL
"""


def _find_open(connection: Connection, cause: str) -> AlertRow | None:
    row = connection.execute(f"{_SELECT} WHERE cause = ? AND resolved_at IS NULL", (cause,)).fetchone()
    return AlertRow(*row) if row else None


def _get(connection: Connection, alert_id: int) -> AlertRow:
    return AlertRow(*connection.execute(f"{_SELECT} WHERE id = ?", (alert_id,)).fetchone())


def _add(connection: Connection, alert_id: int, affected: int) -> None:
    connection.execute(
        "UPDATE alerts SET affected = affected + ?, updated_at = ? WHERE id = ?", (affected, now_ms(), alert_id)
    )
