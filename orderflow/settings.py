"""All settings, read once from the environment into one frozen value. The only reader of ``os.environ``.

A field ``cart_port`` is set by ``ORDERFLOW_CART_PORT``; `KAFKA_BOOTSTRAP_SERVERS` alone keeps the name that every
Kafka tool knows. Units are in the names: ``_s`` seconds, ``_ms`` milliseconds, ``_mb`` MiB.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from orderflow.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "ORDERFLOW_"

#: Fields whose variable does not follow from their name.
OTHER_NAMES = {"kafka_bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS"}

#: Fields that are never shown.
SECRETS = frozenset({"token", "alert_webhook"})

#: What handing an event from one thread to another may take on a busy machine.
GRACE_S = 1.0

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its default. `docs/settings.md` says what each is for."""

    # Where things are.
    var_dir: Annotated[str, Meta(min_length=1)] = "var"

    # Kafka.
    kafka_bootstrap_servers: Annotated[str, Meta(pattern=r"^[^\s,]+:\d+(,[^\s,]+:\d+)*$")] = "127.0.0.1:9092"
    kafka_port: Port = 9092
    kafka_controller_port: Port = 9093
    kafka_heap_mb: Annotated[int, Meta(ge=256, le=65_536)] = 512
    kafka_request_timeout_s: Seconds = 3.0
    kafka_replication_factor: Annotated[int, Meta(ge=1, le=32)] = 1
    topic: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,200}$")] = "order_events"
    dead_letter_topic: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,200}$")] = ""
    dead_letter_retention_days: Annotated[int, Meta(ge=1, le=3_650)] = 30
    consumer_group: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,200}$")] = "order-consumer"

    # HTTP.
    http_host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    cart_port: Port = 5000
    order_port: Port = 5001
    cart_threads: Annotated[int, Meta(ge=4, le=2_048)] = 320
    order_threads: Annotated[int, Meta(ge=8, le=512)] = 64
    order_look_s: Annotated[float, Meta(gt=0, le=1)] = 0.005
    order_cpu: Annotated[int, Meta(ge=-1, le=4095)] = 1
    http_backpressure: Annotated[int, Meta(ge=8, le=10_000)] = 512
    http_body_limit_bytes: Annotated[int, Meta(ge=1024, le=10_485_760)] = 65_536
    http_drain_timeout_s: Seconds = 15.0
    http_stop_notice_s: Seconds = 0.3
    allowed_hosts: str = ""
    token: str = ""
    cart_cpu: Annotated[int, Meta(ge=-1, le=4095)] = 0

    # Publishing: a send, its retries, and the request that waits for both.
    publish_attempt_timeout_s: Seconds = 2.0
    publish_retry_max: Annotated[int, Meta(ge=0, le=100)] = 3
    publish_retry_first_delay_s: Seconds = 0.2
    publish_retry_factor: Annotated[float, Meta(ge=1, le=10)] = 2.0
    publish_retry_max_delay_s: Seconds = 2.0
    publish_retry_jitter_s: Annotated[float, Meta(ge=0, le=60)] = 0.1
    publish_deadline_s: Seconds = 10.0
    publish_group_max: Annotated[int, Meta(ge=1, le=1_000)] = 128
    publish_waiting_max: Count = 128
    breaker_probe_interval_s: Seconds = 1.0
    breaker_probe_timeout_s: Seconds = 1.0

    # The outbox: what was not acknowledged, and its way to Kafka.
    outbox_max_events: Count = 100_000
    outbox_max_mb: Annotated[int, Meta(ge=1, le=65_536)] = 256
    outbox_keep_delivered_s: Seconds = 3_600.0
    outbox_busy_timeout_s: Seconds = 2.0
    outbox_watch_s: Seconds = 0.2
    outbox_pause_s: Seconds = 1.0
    relay_batch_max: Annotated[int, Meta(ge=1, le=10_000)] = 500
    relay_poll_s: Seconds = 0.1

    # Alerts.
    alert_webhook: Annotated[str, Meta(pattern=r"^(https?://[^\s]+)?$")] = ""
    alert_webhook_timeout_s: Seconds = 5.0
    alert_webhook_retry_max: Annotated[int, Meta(ge=0, le=100)] = 4

    # Consuming.
    poll_timeout_s: Seconds = 0.5
    gather_max_s: Annotated[float, Meta(ge=0, le=1)] = 0.01
    poll_max_records: Annotated[int, Meta(ge=1, le=100_000)] = 2_000
    session_timeout_s: Annotated[float, Meta(ge=6, le=1_800)] = 10.0
    unreadable_retries: Annotated[int, Meta(ge=0, le=100)] = 2
    log_check_s: Seconds = 5.0
    flood_records: Annotated[int, Meta(ge=10, le=1_000_000)] = 500
    flood_share: Annotated[float, Meta(gt=0, le=1)] = 0.2
    wait_first_delay_s: Seconds = 0.2
    wait_max_delay_s: Seconds = 2.0

    # The store.
    store_busy_timeout_s: Seconds = 5.0
    wal_limit_mb: Annotated[int, Meta(ge=1, le=65_536)] = 64

    # Workers' heartbeats and logs.
    heartbeat_interval_s: Seconds = 1.0
    heartbeat_stale_s: Seconds = 10.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_events_max: Annotated[int, Meta(ge=0, le=100_000)] = 100
    log_format: Literal["auto", "json", "console"] = "auto"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environ``, the process's own by default.

        Raises:
            SettingsError: a value is wrong, a name with the prefix is unknown, or two settings contradict.

        """
        environ = os.environ if environ is None else environ
        names = {variable(field): field for field in cls.__struct_fields__}
        _refuse_unknown(environ, names)
        found = {field: environ[name] for name, field in names.items() if name in environ}
        for field, text in found.items():
            _check(field, text)
        settings = msgspec.convert(found, cls, strict=False)
        if "kafka_bootstrap_servers" not in found:
            local = f"127.0.0.1:{settings.kafka_port}"
            settings = msgspec.structs.replace(settings, kafka_bootstrap_servers=local)
        _check_together(settings)
        return settings

    def __repr__(self) -> str:
        return f"Settings({self.public()})"

    @property
    def var(self) -> Path:
        """The folder of all data, absolute."""
        return Path(self.var_dir).absolute()

    @property
    def orders_db(self) -> Path:
        """The projection: orders, history, skips and offsets. One writer."""
        return self.var / "orders.db"

    @property
    def outbox_db(self) -> Path:
        """What is true nowhere else: events that wait for Kafka, and alerts."""
        return self.var / "outbox.db"

    @property
    def outbox_max_bytes(self) -> int:
        """How much the undelivered events of the outbox may take."""
        return self.outbox_max_mb * 1024 * 1024

    @property
    def write_answered_within_s(self) -> float:
        """The longest time that a write waits for its answer: Kafka's part, the outbox's, and handing over."""
        return self.publish_deadline_s + self.publish_attempt_timeout_s + self.outbox_busy_timeout_s + 2 * GRACE_S

    @property
    def dead_letter_topic_name(self) -> str:
        """The topic of the copies of skipped messages."""
        return self.dead_letter_topic or f"{self.topic}.dlq"

    @property
    def run_dir(self) -> Path:
        """Heartbeats, locks, sockets."""
        return self.var / "run"

    @property
    def log_dir(self) -> Path:
        """What Supervisor keeps of each program's output."""
        return self.var / "log"

    @property
    def bootstrap(self) -> list[str]:
        """The brokers to ask first."""
        return self.kafka_bootstrap_servers.split(",")

    def public(self) -> dict[str, Any]:
        """All settings under the names of their variables, secrets masked."""
        shown = msgspec.structs.asdict(self)
        return {variable(f): ("********" if f in SECRETS and v else v) for f, v in shown.items()}

    def environ(self) -> dict[str, str]:
        """What to put into the environment of a process so that it reads these settings; defaults left out."""
        default = Settings()
        return {
            variable(field): str(value)
            for field, value in msgspec.structs.asdict(self).items()
            if value != getattr(default, field)
        }


def variable(field: str) -> str:
    """The environment variable of a field."""
    return OTHER_NAMES.get(field, PREFIX + field.upper())


def inherited(*, settings: bool) -> dict[str, str]:
    """The environment that this process was started in, with or without the variables that are settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if settings or not (name.startswith(PREFIX) or name in OTHER_NAMES.values())
    }


def supervised() -> bool:
    """Whether Supervisor has started this process."""
    return "SUPERVISOR_ENABLED" in os.environ


def _refuse_unknown(environ: Mapping[str, str], names: Mapping[str, str]) -> None:
    for name in environ:
        if name.startswith(PREFIX) and name not in names:
            ours = [known.removeprefix(PREFIX) for known in names]
            near = difflib.get_close_matches(name.removeprefix(PREFIX), ours, n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else "`orderflow config` lists all"
            raise SettingsError(f"{name} is no setting of orderflow; {hint}")


def _check_together(settings: Settings) -> None:
    if settings.http_host not in LOOPBACK and not settings.token:
        raise SettingsError(
            f"{variable('http_host')}={settings.http_host!r} lets other machines in, so {variable('token')} must be "
            "set; set a token, or bind to 127.0.0.1"
        )
    if settings.publish_waiting_max >= settings.cart_threads:
        raise SettingsError(
            f"{variable('publish_waiting_max')}={settings.publish_waiting_max} must be below "
            f"{variable('cart_threads')}={settings.cart_threads}, so that a thread is left for /healthz when all "
            "senders wait"
        )
    if settings.dead_letter_topic == settings.topic:
        raise SettingsError(
            f"{variable('dead_letter_topic')}={settings.dead_letter_topic!r} is the topic of the orders, where each "
            "copy of a skipped message would be skipped again; give another name"
        )
    if settings.publish_attempt_timeout_s > settings.publish_deadline_s:
        raise SettingsError(
            f"{variable('publish_attempt_timeout_s')}={settings.publish_attempt_timeout_s} must not be above "
            f"{variable('publish_deadline_s')}={settings.publish_deadline_s}"
        )


def _check(field: str, text: str) -> None:
    one = next(f for f in msgspec.structs.fields(Settings) if f.name == field)
    try:
        msgspec.convert(text, one.type, strict=False)
    except msgspec.ValidationError as error:
        shown = "********" if field in SECRETS else repr(text)
        raise SettingsError(f"{variable(field)}={shown} is not valid: {error} (default {one.default!r})") from None
