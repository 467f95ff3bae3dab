"""A stack: a folder with a supervisord.conf and all data of the programs that it runs.

The project's own folder is one. `Stack.create` makes others, on ports of their own, from the same supervisord.conf.
"""

from __future__ import annotations

import os
import random
import re
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import orderflow
from orderflow.errors import NoSupervisor, StackError
from orderflow.process import exists
from orderflow.settings import Settings, inherited
from orderflow.status import ON_DEMAND, Row, status
from orderflow.supervise import (
    SOCKET_PATH_MAX_BYTES,
    Supervisor,
    read_environment,
    read_socket,
    start_supervisord,
    update,
    write_environment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

CONF = "supervisord.conf"

#: How often something is asked that is waited for.
POLL_S = 0.2

#: Longer than all stopwaitsecs of supervisord.conf together.
DOWN_TIMEOUT_S = 120.0

#: The settings that name a port, each of which a new stack gets for itself.
PORTS = ("cart_port", "order_port", "kafka_port", "kafka_controller_port")

#: Where to look for free ports: below the ports that the kernel gives to outgoing connections. A client that tries
#: again and again to reach a broker which is down could otherwise get the broker's own port, and keep it from starting.
PORT_RANGE = range(10_000, 32_768)


def project_file(name: str) -> Path:
    """A file of the project outside its packages: beside them in a checkout, below ``share`` when installed."""
    beside = Path(orderflow.__file__).parents[1]
    for folder in (beside, Path(sys.prefix, "share", "orderflow"), beside / "share" / "orderflow"):
        if (folder / name).exists():
            return folder / name
    raise StackError(f"{name} is neither in {beside} nor in {sys.prefix}/share/orderflow; install orderflow again")


@dataclass(frozen=True)
class Stack:
    """The stack in ``directory``, which holds a supervisord.conf.

    A made stack carries its settings in that file, and does not see those of the environment; the project's own has
    none there, and takes the environment's.
    """

    directory: Path

    @classmethod
    def create(cls, directory: Path, programs: Collection[str] | None = None, **settings: Any) -> Stack:
        """Make a folder with a stack on free ports; ``settings`` are fields of `Settings`.

        With ``programs`` only these are started with the stack, the others on demand.
        """
        directory = directory.absolute()
        if (directory / CONF).exists():
            raise StackError(f"{directory} holds a stack already; choose another folder, or remove this one")
        chosen = dict(zip(PORTS, free_ports(len(PORTS)), strict=True)) | settings
        chosen.setdefault("kafka_bootstrap_servers", f"127.0.0.1:{chosen['kafka_port']}")
        own = {"var_dir": str(directory / "var"), **chosen}
        environ = Settings(**own).environ()
        Settings.from_env(environ)  # the values were not checked so far
        directory.mkdir(parents=True, exist_ok=True)
        conf = _render(project_file(CONF).read_text(encoding="utf-8"), directory, environ, programs)
        (directory / CONF).write_text(conf, encoding="utf-8")
        return cls(directory)

    @classmethod
    def open(cls, directory: Path) -> Stack:
        """The stack that is in a folder."""
        directory = directory.absolute()
        if not (directory / CONF).exists():
            raise StackError(f"there is no {CONF} in {directory}; `orderflow stack new DIR` makes a stack")
        return cls(directory)

    @property
    def conf(self) -> Path:
        """Its supervisord.conf."""
        return self.directory / CONF

    @cached_property
    def env(self) -> dict[str, str]:
        """The environment of its programs, and of whatever else should see its settings."""
        own = read_environment(self.conf)
        return inherited(settings=not own) | own

    @cached_property
    def settings(self) -> Settings:
        """Its settings; ``var_dir`` is absolute, so that they hold in any working directory."""
        settings = Settings.from_env(self.env)
        return msgspec.structs.replace(settings, var_dir=str(self.directory / settings.var_dir))

    @cached_property
    def supervisor(self) -> Supervisor:
        """Its supervisord, running or not."""
        return Supervisor(read_socket(self.conf))

    def status(self) -> list[Row]:
        """How each of its programs is."""
        return status(self.supervisor, self.settings)

    def up(self, timeout_s: float = 90.0, tell: Callable[[str], None] = lambda _: None) -> None:
        """Start supervisord, or what is stopped below a running one, and wait until nothing is degraded.

        Raises:
            StackError: a program ended for good, or the time is over; the message says who waits for what.

        """
        self.launch(tell)
        self.wait_ready(timeout_s, tell)

    def launch(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Start everything, and wait for nothing."""
        _ = self.settings  # a wrong one is told now, and not by every program in its log
        if not self.supervisor.alive():
            for folder in ("log", "run"):
                (self.directory / "var" / folder).mkdir(parents=True, exist_ok=True)
            self.supervisor.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            tell(f"starting supervisord in {self.directory}")
            start_supervisord(self.conf, self.env)
            return
        tell("supervisord runs already")
        for line in update(self.conf).splitlines():
            tell(line)
        for program in self.supervisor.programs():
            if program.autostart and program.state in {"STOPPED", "EXITED", "FATAL"} and not program.ended_as_expected:
                tell(f"{program.name}: starting it again")
                self.supervisor.start(program.name)

    def wait_ready(self, timeout_s: float = 90.0, tell: Callable[[str], None] = lambda _: None) -> None:
        """Wait until nothing is degraded, telling what changes."""
        deadline = time.monotonic() + timeout_s
        told: dict[str, str] = {}
        while True:
            rows = self.status()
            for row in rows:
                if row.says not in {told.get(row.program), ON_DEMAND}:
                    tell(f"{row.program}: {row.says}")
                told[row.program] = row.says
            if all(row.ok for row in rows):
                return
            if any(row.hopeless for row in rows):
                raise StackError(f"it does not start: {_complaints(rows)}")
            if time.monotonic() > deadline:
                raise StackError(f"not ready within {timeout_s:g} s: {_complaints(rows)}")
            time.sleep(POLL_S)

    def down(self, timeout_s: float = DOWN_TIMEOUT_S) -> bool:
        """Stop everything in the right sequence and wait until supervisord has gone; False when none ran."""
        try:
            pid = self.supervisor.pid()
            self.supervisor.shutdown()
        except NoSupervisor:
            return False
        deadline = time.monotonic() + timeout_s
        while exists(pid):
            if time.monotonic() > deadline:
                raise StackError(f"supervisord (pid {pid}) still stops its programs after {timeout_s:g} s")
            time.sleep(POLL_S / 4)
        return True

    def start(self, program: str) -> None:
        """Start one program."""
        self.supervisor.start(program)

    def stop(self, program: str) -> None:
        """Stop one program."""
        self.supervisor.stop(program)

    def pid(self, program: str) -> int | None:
        """The process of one program; None when it does not run."""
        return self.supervisor.program(program).pid


def free_ports(count: int) -> list[int]:
    """So many ports of the loopback that nobody listens on."""
    ports: set[int] = set()
    while len(ports) < count:
        port = random.choice(PORT_RANGE)  # noqa: S311 - to keep two stacks apart, not to keep a secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.add(port)
    return list(ports)


def _render(conf: str, directory: Path, environ: dict[str, str], programs: Collection[str] | None) -> str:
    """The project's supervisord.conf for another folder. Its paths of code become absolute, those of data stay."""
    conf = _replace(conf, '"%(here)s/.venv/bin/python"', _path(sys.executable))
    conf = _replace(conf, '"%(here)s/deploy/kafka/launch"', _path(project_file("deploy/kafka/launch")))
    conf = _replace(conf, "[supervisord]\n", f"[supervisord]\nenvironment={write_environment(environ)}\n")
    if len(os.fsencode(directory / "var/run/supervisor.sock")) > SOCKET_PATH_MAX_BYTES:
        short = tempfile.mkdtemp(prefix="orderflow-")
        conf = _replace(conf, "%(here)s/var/run/supervisor.sock", f"{short}/supervisor.sock")
    if programs is not None:
        for name in set(re.findall(r"^\[program:(.+)\]$", conf, re.MULTILINE)).difference(programs):
            conf = _replace(conf, f"[program:{name}]\n", f"[program:{name}]\nautostart=false\n")
    return conf


def _replace(text: str, old: str, new: str) -> str:
    if old not in text:
        raise StackError(f"{project_file(CONF)} says nowhere {old!r}, which a new stack must replace")
    return text.replace(old, new)


def _path(path: str | Path) -> str:
    return '"' + str(path).replace("%", "%%") + '"'


def _complaints(rows: list[Row]) -> str:
    return "; ".join(f"{row.program} ({row.state}): {row.says}" for row in rows if not row.ok)
