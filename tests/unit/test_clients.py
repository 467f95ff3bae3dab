"""The options of every Kafka client: the selector that asks no system call about a socket it does not know."""

from __future__ import annotations

import selectors
import socket

import pytest

from orderflow.broker.clients import shared_options
from orderflow.settings import Settings


def test_the_selector_finds_what_is_registered_and_says_so_of_all_else() -> None:
    """As the standard one does: also a socket that was closed while it was registered, which is then taken out."""
    selector = shared_options(Settings(), "test")["selector"]()
    known, unknown = socket.socketpair()
    with selector, known, unknown:
        key = selector.register(known, selectors.EVENT_READ, "data")

        assert selector.get_key(known) is key
        with pytest.raises(KeyError):
            selector.get_key(unknown)
        known.close()
        assert selector.get_key(known) is key
        selector.unregister(known)
        with pytest.raises((KeyError, ValueError)):
            selector.get_key(known)
