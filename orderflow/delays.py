"""How long to wait before something is tried again that has no end: twice as long each time, up to a longest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings


def growing_delays(settings: Settings, times: float = 1) -> Iterator[float]:
    """Yield the delays, in seconds, without end; the longest is so many times that of the settings."""
    delay_s = settings.wait_first_delay_s
    while True:
        yield delay_s
        delay_s = min(delay_s * 2, settings.wait_max_delay_s * times)
