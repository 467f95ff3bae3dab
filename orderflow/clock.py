"""The clock of this machine, as it stands in files and answers."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Tell the time in ms since 1970."""
    return time.time_ns() // 1_000_000


def moment(at_ms: int | None) -> str | None:
    """Write a time in ms since 1970 as RFC 3339, in UTC."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
