"""The options that every Kafka client of orderflow shares, and why."""

from __future__ import annotations

import selectors
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orderflow.settings import Settings

#: Naming the broker's version keeps constructors from asking for it: they return at once and connect when needed.
API_VERSION = (4, 3)

#: The client's own backoff grows to 30 s; then it would sleep long after the broker is back.
RECONNECT_MAX_MS = 1_000


class _QuickSelector(selectors.DefaultSelector):
    """Does not describe a socket that it does not know: kafka-python asks for such a one twice a request.

    The standard selector asks that socket for its addresses, for the text of an error that nobody reads. The system
    call lets go of Python's lock, and among many threads it takes long to get it back.
    """

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Give the socket's key; KeyError when there is none."""
        if fileobj.fileno() < 0:  # closed while registered: found by identity
            return super().get_key(fileobj)
        key: selectors.SelectorKey = self._fd_to_key[fileobj.fileno()]  # type: ignore[attr-defined]  # typeshed hides it
        return key


def shared_options(settings: Settings, client_id: str) -> dict[str, Any]:
    """Give the options for any client, in kafka-python's names."""
    return {
        "bootstrap_servers": settings.bootstrap,
        "client_id": client_id,
        "api_version": API_VERSION,
        "reconnect_backoff_max_ms": RECONNECT_MAX_MS,
        "selector": _QuickSelector,
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
