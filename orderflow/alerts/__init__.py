"""Alerts: what needs a person. `causes` says what there can be, `book` opens and resolves, `webhook` tells others.

Rows are in outbox.db, see `orderflow.store.alerts`. What to do about each is in docs/operations.md.
"""

from orderflow.alerts.book import AlertBook
from orderflow.alerts.causes import Cause

__all__ = ["AlertBook", "Cause"]
