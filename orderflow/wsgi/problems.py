"""Errors as ``application/problem+json`` (RFC 9457), with ``error`` for clients that look for a sentence there.

The types are stable references, listed in docs/http.md.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error. ``extra`` are further members, ``headers`` go with it."""

    def __init__(
        self, status: int, kind: str, detail: str, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def body(self) -> bytes:
        """Encode the problem."""
        members = {
            "type": f"/problems/{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
            **{name: value for name, value in self.extra.items() if value is not None},
        }
        return msgspec.json.encode(members)


def for_status(status: int, detail: str, headers: dict[str, str] | None = None) -> Problem:
    """Build the problem of a status that Bottle decided on."""
    kinds = {400: "bad-request", 404: "no-such-route", 405: "method-not-allowed", 413: "body-too-large"}
    return Problem(
        status,
        kinds.get(status, "internal-error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "bad-request"),
        detail,
        headers,
    )
