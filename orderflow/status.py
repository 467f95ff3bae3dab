"""How each program is: what Supervisor says, the worker's heartbeat file, the service's ``/readyz``, in one row."""

from __future__ import annotations

import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from orderflow.process import exists, read_heartbeat

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.settings import Settings
    from orderflow.supervise import ProgramState, Supervisor

#: How long a service may take to say how it is.
PROBE_TIMEOUT_S = 2.0

#: How much of a log is shown to say why its program ended.
LAST_WORDS_BYTES = 400

#: The one program that is not ours: it is asked by opening a connection.
KAFKA = "kafka"

#: ``cart-service`` listens on the setting ``cart_port``.
SERVICE_SUFFIX = "-service"

#: What is said of a program that is started by hand, and need not run.
ON_DEMAND = "on demand"

#: Where to reach what listens everywhere.
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


class Row(msgspec.Struct, frozen=True):
    """One program. ``ok`` is False when somebody should look; ``says`` is the reason, or what it is doing."""

    program: str
    state: str
    pid: int | None
    uptime_s: int | None
    ok: bool
    says: str
    log: str
    #: It ended for good: waiting does not help.
    hopeless: bool = False


def status(supervisor: Supervisor, settings: Settings) -> list[Row]:
    """All programs, in the sequence in which they start. `NoSupervisor` when there is no supervisord."""
    programs = supervisor.programs()
    with ThreadPoolExecutor(max_workers=len(programs) or 1) as pool:
        return list(pool.map(lambda program: _row(program, settings), programs))


def _row(program: ProgramState, settings: Settings) -> Row:
    ok, says = _running(program, settings) if program.running else _not_running(program, settings)
    return Row(
        program=program.name,
        state=program.state,
        pid=program.pid,
        uptime_s=program.uptime_s,
        ok=ok,
        says=says,
        log=str(program.log),
        hopeless=not ok and program.autostart and program.state in {"EXITED", "FATAL"},
    )


def _not_running(program: ProgramState, settings: Settings) -> tuple[bool, str]:
    if not program.autostart:
        return True, ON_DEMAND
    if program.name == KAFKA and program.ended_as_expected:
        return True, f"not needed: Kafka is {settings.kafka_bootstrap_servers}"
    if program.state in {"EXITED", "BACKOFF", "FATAL"}:
        ended = f"ended with exit code {program.exit_code}" if program.state == "EXITED" else "does not stay up"
        return False, f"{ended}, see {program.log}: {_last_line(program.log)}"
    return False, program.state.lower()


def _last_line(log: Path) -> str:
    """What a program said last, which is mostly why it ended."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_WORDS_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        return str(error)
    return next((line.strip() for line in reversed(lines) if line.strip()), "it is empty")


def _running(program: ProgramState, settings: Settings) -> tuple[bool, str]:
    if program.name == KAFKA:
        return _kafka(settings)
    port = _port(program.name, settings)
    if port is not None:
        return _service(WILDCARDS.get(settings.http_host, settings.http_host), port)
    return _worker(program, settings)


def _port(name: str, settings: Settings) -> int | None:
    if not name.endswith(SERVICE_SUFFIX):
        return None
    return getattr(settings, f"{name.removesuffix(SERVICE_SUFFIX)}_port", None)


def _kafka(settings: Settings) -> tuple[bool, str]:
    try:
        socket.create_connection(("127.0.0.1", settings.kafka_port), timeout=PROBE_TIMEOUT_S).close()
    except OSError:
        return False, f"starting: does not listen on 127.0.0.1:{settings.kafka_port} yet"
    return True, f"listens on 127.0.0.1:{settings.kafka_port}"


def _service(host: str, port: int) -> tuple[bool, str]:
    """Ready without a word; what is not as it should be is named."""
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = msgspec.json.decode(connection.getresponse().read())
        checks, state = answer["checks"], answer["status"]
    except ConnectionRefusedError:
        return False, f"starting: does not listen on {host}:{port} yet"
    except OSError as error:
        return False, f"no answer from {host}:{port}/readyz ({error})"
    except (http.client.HTTPException, msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return False, f"something else answers on {host}:{port}"
    finally:
        connection.close()
    if state == "ready":
        return True, f"ready on {host}:{port}"
    return False, f"{state}: " + " ".join(checks.values())


def _worker(program: ProgramState, settings: Settings) -> tuple[bool, str]:
    beat = read_heartbeat(settings, program.name)
    if beat is not None and beat.pid != program.pid and beat.age_s() <= settings.heartbeat_stale_s and exists(beat.pid):
        return False, f"waits for process {beat.pid}, which works in its stead"
    if beat is None or beat.pid != program.pid:  # another pid: the file of a process that has gone
        # What is started on demand need not be one of our workers.
        return not program.autostart, "" if not program.autostart else "no heartbeat yet"
    if beat.age_s() > settings.heartbeat_stale_s:
        return False, f"no heartbeat for {beat.age_s():.0f} s"
    if beat.waits_for:
        return False, f"waits for {beat.waits_for}"
    return beat.state == "running", beat.state
