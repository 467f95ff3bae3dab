"""The options that every Kafka client of orderflow shares, and why."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orderflow.settings import Settings

#: Naming the broker's version keeps constructors from asking for it: they return at once and connect when needed.
API_VERSION = (4, 3)

#: The client's own backoff grows to 30 s; then it would sleep long after the broker is back.
RECONNECT_MAX_MS = 1_000


def shared_options(settings: Settings, client_id: str) -> dict[str, Any]:
    """Give the options for any client, in kafka-python's names."""
    return {
        "bootstrap_servers": settings.bootstrap,
        "client_id": client_id,
        "api_version": API_VERSION,
        "reconnect_backoff_max_ms": RECONNECT_MAX_MS,
    }


def reachable(settings: Settings, timeout_s: float = 1.0) -> bool:
    """Tell whether one of the brokers takes a connection. Builds no client: those leak when they fail."""
    for address in settings.bootstrap:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
        except OSError:
            continue
        return True
    return False


def milliseconds(seconds: float) -> int:
    """Turn seconds into whole milliseconds."""
    return round(seconds * 1000)
