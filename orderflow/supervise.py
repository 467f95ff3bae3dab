"""Supervisor, asked over its unix socket. The only importer of ``supervisor``."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import xmlrpc.client
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from supervisor.datatypes import dict_of_key_value_pairs
from supervisor.xmlrpc import Faults

from orderflow.errors import NoSupervisor, StackError, SupervisorRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Longer than any start or stop that a call waits for: stopwaitsecs is 30 at most.
CALL_TIMEOUT_S = 60.0

#: The longest path the kernel takes for a unix socket is 107 bytes; Supervisor first binds it with ".<pid>" behind.
SOCKET_PATH_MAX_BYTES = 107 - len(".4194304")


@dataclass(frozen=True, slots=True)
class ProgramState:
    """What Supervisor knows of one program.

    ``state`` is Supervisor's word: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL, UNKNOWN.
    ``pid`` and ``uptime_s`` are None unless it runs, ``exit_code`` unless it has ended.
    """

    name: str
    state: str
    autostart: bool
    pid: int | None
    uptime_s: int | None
    exit_code: int | None
    log: Path

    @property
    def running(self) -> bool:
        """Whether it has been up for its startsecs."""
        return self.state == "RUNNING"

    @property
    def ended_as_expected(self) -> bool:
        """Whether it ended by itself, saying that there is nothing for it to do."""
        return self.state == "EXITED" and self.exit_code == 0


class Supervisor:
    """A supervisord behind a unix socket. Every call raises `NoSupervisor` when nothing answers there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def alive(self) -> bool:
        """Whether a supervisord answers."""
        try:
            self.pid()
        except NoSupervisor:
            return False
        return True

    def pid(self) -> int:
        """The process id of supervisord itself."""
        return cast("int", self._call("getPID"))

    def programs(self) -> list[ProgramState]:
        """All programs in the sequence in which they start."""
        configs = {config["name"]: config for config in self._call("getAllConfigInfo")}
        states = [_state(info, configs[info["name"]]) for info in self._call("getAllProcessInfo")]
        return sorted(states, key=lambda state: (configs[state.name]["process_prio"], state.name))

    def program(self, name: str) -> ProgramState:
        """One program; `SupervisorRefused` when there is none of this name."""
        return next((state for state in self.programs() if state.name == name), None) or _unknown(name)

    def start(self, name: str) -> None:
        """Start a program and wait for its startsecs; one that runs already is left alone."""
        self._call("startProcess", name, unless=Faults.ALREADY_STARTED)

    def stop(self, name: str) -> None:
        """Stop a program and wait for its end; one that does not run is left alone."""
        self._call("stopProcess", name, unless=Faults.NOT_RUNNING)

    def shutdown(self) -> None:
        """Begin to stop everything, in reverse sequence. Returns at once."""
        self._call("shutdown", unless=Faults.SHUTDOWN_STATE)

    def _call(self, method: str, *arguments: object, unless: int | None = None) -> Any:
        """Call ``supervisor.<method>``; the fault ``unless`` means that there is nothing left to do."""
        with xmlrpc.client.ServerProxy("http://supervisor", transport=_UnixTransport(self.path)) as server:
            try:
                return getattr(server.supervisor, method)(*arguments)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode == unless:
                    return None
                said = f"{method}{arguments}: {fault.faultString}"
                raise SupervisorRefused(f"Supervisor on {self.path} refused {said}") from None
            except TimeoutError:
                raise SupervisorRefused(f"supervisord on {self.path} gave no answer to {method} in time") from None
            except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
                raise NoSupervisor(f"no supervisord answers on {self.path} ({error}); `make up` starts it") from None


def start_supervisord(conf: Path, environ: Mapping[str, str]) -> None:
    """Start a supervisord in the background; it opens its socket before this returns."""
    _run("supervisord", conf, environ)


def update(conf: Path) -> str:
    """Let a running supervisord read its file again and restart what changed there; its account of it, or ""."""
    return _run("supervisorctl", conf, None, "update")


def _run(tool: str, conf: Path, environ: Mapping[str, str] | None, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-m", f"supervisor.{tool}", "-c", str(conf), *arguments],
        cwd=conf.parent,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise NoSupervisor(f"{tool} -c {conf} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def read_environment(conf: Path) -> dict[str, str]:
    """What a configuration file puts into its programs' environment."""
    text = read_conf(conf).get("supervisord", "environment", fallback="")
    return {name: value.replace("%%", "%") for name, value in dict_of_key_value_pairs(text).items()}


def write_environment(environ: Mapping[str, str]) -> str:
    """The value of ``environment=`` that `read_environment` gives back."""
    return ",".join(f"{name}={_quoted(name, value)}" for name, value in environ.items())


def read_socket(conf: Path) -> Path:
    """The unix socket that a configuration file names."""
    return Path(read_conf(conf).get("unix_http_server", "file").replace("%(here)s", str(conf.parent)))


def read_conf(conf: Path) -> RawConfigParser:
    """The file as Supervisor parses it, before it fills in ``%(here)s``."""
    parser = RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(conf.read_text(encoding="utf-8"), str(conf))
    return parser


def _quoted(name: str, value: str) -> str:
    # Supervisor's syntax has no escapes, and takes " ;" and " #" for comments even inside quotes.
    if '"' in value or " ;" in value or " #" in value or value.strip("'") != value or not value.isprintable():
        raise StackError(f"{name}: supervisord.conf cannot hold a value with quotes, comment signs or line breaks")
    return '"' + value.replace("%", "%%") + '"'


def _state(info: Mapping[str, Any], config: Mapping[str, Any]) -> ProgramState:
    up = info["statename"] in {"RUNNING", "STARTING", "STOPPING"}
    return ProgramState(
        name=info["name"],
        state=info["statename"],
        autostart=config["autostart"],
        pid=info["pid"] or None,
        uptime_s=max(0, info["now"] - info["start"]) if up else None,
        exit_code=info["exitstatus"] if info["statename"] == "EXITED" else None,
        log=Path(info["logfile"]),
    )


def _unknown(name: str) -> ProgramState:
    raise SupervisorRefused(f"Supervisor runs no program {name!r}")


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket, with a deadline: a supervisord that is frozen must not freeze its caller."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self.path)
        self._connection = host, connection  # what close() closes
        return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CALL_TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))
