"""Searches through everything: they end, and leave most threads to what is quick."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orderflow.errors import SearchTooLong
from orderflow.wsgi.problems import RETRY_AFTER, Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings


class Searches:
    """How many may search at a time."""

    def __init__(self, settings: Settings) -> None:
        self._seats = threading.BoundedSemaphore(max(1, settings.order_threads // 16))

    @contextmanager
    def one(self, way_out: str) -> Iterator[None]:
        """Take a seat for one search.

        Raises:
            Problem: 503, all are taken, or the search takes too long: then asking again does not help.

        """
        if not self._seats.acquire(blocking=False):
            detail = f"Too many others search through everything just now; ask again, or {way_out}."
            raise Problem(Kind.SEARCH_TOO_LONG, detail, RETRY_AFTER)
        try:
            yield
        except SearchTooLong as error:
            raise Problem(Kind.SEARCH_TOO_LONG, f"{error} Asking again does not help; {way_out}.") from error
        finally:
            self._seats.release()
