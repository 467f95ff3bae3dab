"""Whether the order service can do its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow.errors import StoreError
from orderflow.process import CONSUMER, fresh_heartbeat
from orderflow.wsgi.service import NotReady

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from orderflow.store.reader import Reader


class Readiness:
    """The checks."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self._settings = settings
        self._reader = reader

    def check_store(self) -> tuple[bool, str]:
        """Ready while the projection can be read."""
        try:
            self._reader.check()
        except StoreError as error:
            raise NotReady(str(error)) from error
        return True, "The projection can be read."

    def check_consumer(self) -> tuple[bool, str]:
        """Degraded while nobody applies what is published, or the consumer waits for something."""
        beat = fresh_heartbeat(self._settings, CONSUMER)
        if beat is None:
            return False, f"The {CONSUMER} does not beat: what is published is not applied."
        if beat.waits_for is not None or beat.state != "running":
            waits = f", and waits for {beat.waits_for}" if beat.waits_for else ""
            return False, f"The {CONSUMER} is {beat.state}{waits}."
        return True, f"The {CONSUMER} applies what is published."
