"""What is checked before a handler runs: the host, the token, the body's type and length, and its fields."""

from __future__ import annotations

import hmac
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import msgspec

from orderflow.errors import InvalidBody, InvalidEvent
from orderflow.events import text_of
from orderflow.orders import from_json
from orderflow.settings import LOOPBACK
from orderflow.wording import plain, split_path, words_of
from orderflow.wsgi.parameters import from_wsgi
from orderflow.wsgi.problems import RETRY_AFTER, Kind, Problem

if TYPE_CHECKING:
    from orderflow.settings import Settings


#: So many fields that a request does not have are named.
STRANGE_MAX = 20


class HostGuard:
    """Lets requests for known hosts through, and no page's but its own.

    What another site shows in a browser cannot reach a service on loopback.
    """

    def __init__(self, settings: Settings) -> None:
        extra = {host.strip().lower() for host in settings.allowed_hosts.split(",") if host.strip()}
        self._allowed = LOOPBACK | extra | {settings.http_host.lower()}
        self._is_allowed = lru_cache(maxsize=256)(self._look_up)

    def check(self, host: str, origin: str | None) -> None:
        """Refuse a foreign ``Host`` header, and a page's request (``Origin``) to a host that is not its own.

        Raises:
            Problem: 403.

        """
        if not self._is_allowed(host):
            raise Problem(
                Kind.FOREIGN_HOST,
                f"This service does not answer for the host {host[:100]!r}; see ORDERFLOW_ALLOWED_HOSTS.",
            )

        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Problem(
                Kind.FOREIGN_ORIGIN, f"This service does not answer a page of {origin[:100]!r}, only one of its own."
            )

    def _look_up(self, host: str) -> bool:
        name = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.rsplit(":", 1)[0]
        return name.lower() in self._allowed


def check_path(path: str) -> None:
    """Refuse a path that is not UTF-8: without the bytes that are not, it would be another one.

    Raises:
        Problem: 400.

    """
    try:
        from_wsgi(path)
    except ValueError:
        raise Problem(Kind.BAD_REQUEST, "The path is not text in UTF-8.") from None


def require_token(settings: Settings, authorization: str | None) -> None:
    """Ask for the bearer token, where one is set.

    Raises:
        Problem: 401.

    """
    if not settings.token:
        return
    given = (authorization or "").encode()
    if not hmac.compare_digest(given, f"Bearer {settings.token}".encode()):
        challenge = {"WWW-Authenticate": 'Bearer realm="orderflow"'}
        raise Problem(Kind.TOKEN_REQUIRED, "This route asks for the operator's bearer token.", challenge)


class BodyReader:
    """Reads JSON bodies of at most ``limit`` bytes, ``at_once`` of them at the same time."""

    def __init__(self, limit: int, at_once: int) -> None:
        self._limit = limit
        self._at_once = at_once
        self._reading = 0
        self._lock = threading.Lock()  # a counter under it takes a third of what a semaphore takes

    def read(self, environ: dict[str, Any]) -> bytes:
        """Read one body, chunked or not.

        Raises:
            Problem: 413, 415, or 503 while too many others are being read.

        """
        with self._lock:
            if self._reading >= self._at_once:
                detail = "Too many callers are sending their bodies; try again later."
                raise Problem(Kind.TOO_MANY_BODIES, detail, RETRY_AFTER)
            self._reading += 1
        try:
            return _read(environ, self._limit)
        finally:
            with self._lock:
                self._reading -= 1


def _read(environ: dict[str, Any], limit: int) -> bytes:
    media_type = environ.get("CONTENT_TYPE", "").split(";", 1)[0].strip().lower()
    if media_type != "application/json":
        raise Problem(
            Kind.JSON_REQUIRED, f"The body's Content-Type must be application/json, not {media_type[:100]!r}."
        )
    length = environ.get("CONTENT_LENGTH") or "0"
    told = length.isdigit() and int(length) > limit
    body: bytes = b"" if told else environ["wsgi.input"].read(limit + 1)
    if told or len(body) > limit:
        raise Problem(Kind.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
    return body


class BodyDecoder:
    """Decodes the JSON body that a type declares."""

    def __init__(self, kind: Any) -> None:
        self._struct: type[msgspec.Struct] = kind.__origin__ if get_origin(kind) is Annotated else kind
        self._decoder = msgspec.json.Decoder(kind, dec_hook=from_json)

    def decode(self, body: bytes) -> Any:
        """Decode a request's body.

        Raises:
            InvalidBody: it is not valid; ``fields`` names every field that is wrong.

        """
        try:
            return self._decoder.decode(text_of(body))
        except InvalidEvent as error:
            raise InvalidBody("malformed-json", error.detail) from None
        except msgspec.ValidationError as error:
            fields = _wrong_fields(body, self._struct)
            listed = "; ".join(f"{name}: {problem}" for name, problem in fields.items())
            raise InvalidBody("invalid-body", f"The body is not valid. {listed or plain(str(error))}", fields) from None
        except msgspec.DecodeError as error:
            raise InvalidBody("malformed-json", f"The body is not JSON: {error}.") from None
        except RecursionError:
            raise InvalidBody("malformed-json", "The body's JSON is nested too deeply.") from None


def _wrong_fields(body: bytes, kind: type[Any]) -> dict[str, str]:
    """Find each field's own problem: the decoder stops at the first."""
    try:
        given = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return {}
    wrong: dict[str, str] = {}
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, field in known.items():
        if name not in given:
            if field.required:
                wrong[name] = "is required"
            continue
        try:
            msgspec.json.decode(given[name], type=field.type, dec_hook=from_json)
        except msgspec.ValidationError as error:
            inner, problem = split_path(str(error))
            wrong[name + inner] = plain(problem) + _choices(field.type)
    strange = [name for name in given if name not in known]
    wrong |= {name[:100]: "is not a field of this request" for name in strange[:STRANGE_MAX]}
    if len(strange) > STRANGE_MAX:
        wrong["…"] = f"and {len(strange) - STRANGE_MAX} more are no fields of this request"
    return wrong


def _choices(kind: Any) -> str:
    """List the values of a field that is one of a closed set."""
    words = words_of(kind)
    return f"; expected one of {', '.join(words)}" if words else ""
