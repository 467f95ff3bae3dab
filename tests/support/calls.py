"""HTTP calls that say how they ended: answered, or at which point the connection was lost."""

from __future__ import annotations

import http.client
import json
import select
from dataclasses import dataclass
from enum import Enum
from typing import Any

#: Longer than any deadline of a service under test: a call that takes longer was forgotten.
TIMEOUT_S = 60.0


class Ending(Enum):
    ANSWERED = "answered"
    #: No connection: the request does not exist for the service.
    UNREACHABLE = "unreachable"
    #: The connection broke before all of the request was handed to the kernel.
    UNSENT = "unsent"
    #: The whole request was sent, and no answer came.
    CUT = "cut"


@dataclass(frozen=True)
class Answer:
    ending: Ending
    status: int = 0
    body: Any = None
    error: str = ""
    #: Whether the request was the first on its connection.
    fresh: bool = True

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Caller:
    """Calls one service over a connection that is kept, or (``keep=False``) a new one for each call. For one thread."""

    def __init__(self, port: int, *, keep: bool = True) -> None:
        self._keep = keep
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def close(self) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        """Call once. A body is sent as JSON; nothing is tried again."""
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
        if not self._keep:
            sent["Connection"] = "close"
        ending, fresh = Ending.UNREACHABLE, True
        try:
            fresh = self._connect()
            ending = Ending.UNSENT
            self._connection.request(method, path, None if body is None else json.dumps(body).encode(), sent)
            ending = Ending.CUT
            response = self._connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(ending, error=f"{type(error).__name__}: {error}", fresh=fresh)
        if not self._keep:
            self._connection.close()
        return Answer(Ending.ANSWERED, response.status, _decoded(raw), fresh=fresh)

    def _connect(self) -> bool:
        """Make sure of a connection; whether it is a new one."""
        sock = self._connection.sock
        if sock is not None and select.select([sock], [], [], 0)[0]:  # the service has closed it since
            self._connection.close()
        fresh = self._connection.sock is None
        if fresh:
            self._connection.connect()
        return fresh


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
