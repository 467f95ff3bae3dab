"""A broker without Supervisor, as deploy/kafka/launch runs it, on ports of its own."""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orderflow.settings import Settings, inherited
from orderflow.stack import free_ports, project_file
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_S = 60.0

#: A request that every broker answers before anything else: ApiVersions, version 0, correlation 1, no client id.
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)


@dataclass
class Broker:
    """A running broker. `settings` gives each caller a topic of its own on it."""

    port: int
    controller_port: int
    folder: Path
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    @contextmanager
    def start(cls, folder: Path) -> Iterator[Self]:
        port, controller_port = free_ports(2)
        environ = Settings(
            var_dir=str(folder),
            kafka_port=port,
            kafka_controller_port=controller_port,
            kafka_bootstrap_servers=f"127.0.0.1:{port}",
        ).environ()
        launch = [project_file("deploy/kafka/launch")]
        with _running(launch, port, folder / "kafka.log", env=inherited(settings=False) | environ) as pid:
            yield cls(port, controller_port, folder, pid)

    @contextmanager
    def joined_by(self, folder: Path) -> Iterator[int]:
        """Run a second node, number 2, of the same cluster; give its pid. It is a broker only."""
        (port,) = free_ports(1)
        home = Path(project_file("deploy/kafka/server.properties")).parent
        properties = folder / "second.properties"
        properties.write_text(
            (home / "server.properties").read_text(encoding="utf-8")
            + f"\nprocess.roles=broker\nnode.id=2\nlog.dirs={folder / 'second'}\n"
            + f"listeners=PLAINTEXT://127.0.0.1:{port}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n"
            + f"controller.quorum.bootstrap.servers=127.0.0.1:{self.controller_port}\n",
            encoding="utf-8",
        )
        meta = (self.folder / "kafka/data/meta.properties").read_text(encoding="utf-8")
        (cluster_id,) = (line.removeprefix("cluster.id=") for line in meta.split() if line.startswith("cluster.id="))
        java = ["java", f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}", "-cp", f"{home}/libs/*"]
        storage = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)]
        subprocess.run([*java, *storage], check=True, capture_output=True)
        node = [*java, "-Xmx256m", "kafka.Kafka", str(properties)]
        with _running(node, port, folder / "second.log") as pid:
            yield pid

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def settings(self, **settings: Any) -> Settings:
        """Settings with a topic and a group that nobody else uses."""
        number = next(self._numbers)
        own = {
            "kafka_bootstrap_servers": self.bootstrap,
            "topic": f"events_{number}",
            "consumer_group": f"group_{number}",
            "var_dir": str(self.folder / str(number)),
        }
        return Settings.from_env(Settings(**own | settings).environ())


@contextmanager
def _running(command: list[str], port: int, log: Path, env: dict[str, str] | None = None) -> Iterator[int]:
    """Run a node until the end of the block, from the moment in which it answers; give its pid."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: process.poll() is not None or answers(port), "the broker answers", START_TIMEOUT_S, 0.1)
        assert process.poll() is None, log.read_text(encoding="utf-8")[-2_000:]
        yield process.pid
    finally:
        process.kill()
        process.wait(timeout=30)


def answers(port: int) -> bool:
    """Whether a broker answers on a port: connecting alone can succeed before it does."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(API_VERSIONS)
            return len(connection.recv(4)) == len("size")
    except OSError:
        return False
