"""Whole stacks: a real supervisord with a real Kafka, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orderflow.errors import NoSupervisor, SettingsError, StackError
from orderflow.stack import CONF, PORT_RANGE, PORTS, Stack, free_ports, project_file
from orderflow.status import ON_DEMAND
from orderflow.supervise import SOCKET_PATH_MAX_BYTES, read_environment, write_environment
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kafka_alone(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack.create(tmp_path / "stack", programs=["kafka"])
    yield stack
    stack.down()


def _orderflow(directory: Path, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orderflow.cli.main", *map(str, arguments)],
        cwd=directory,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def _supervisor_log(stack: Stack) -> str:
    return (stack.settings.log_dir / "supervisord.log").read_text(encoding="utf-8")


def _kafka_log(stack: Stack) -> str:
    return (stack.settings.log_dir / "kafka.log").read_text(encoding="utf-8")


@pytest.mark.faults
def test_kafka_is_formatted_on_the_first_start_only_and_says_what_it_does(kafka_alone: Stack) -> None:
    kafka_alone.up()
    meta = (kafka_alone.settings.var / "kafka/data/meta.properties").read_text(encoding="utf-8")
    kafka_alone.down()
    kafka_alone.up()

    # It answers before it says so, and what it says is read a moment later.
    until(lambda: _kafka_log(kafka_alone).count("Kafka Server started") == 2, "it has started twice", within_s=10)
    assert _kafka_log(kafka_alone).count("kafka: formatted ") == 1
    assert (kafka_alone.settings.var / "kafka/data/meta.properties").read_text(encoding="utf-8") == meta


def test_a_format_that_was_cut_short_is_made_anew(kafka_alone: Stack) -> None:
    data = kafka_alone.settings.var / "kafka"
    (data / "data/__cluster_metadata-0").mkdir(parents=True)
    (data / "data/meta.properties").touch()
    (data / "data.new").mkdir()

    kafka_alone.up()

    assert _kafka_log(kafka_alone).count("kafka: formatted ") == 1
    assert not (data / "data.new").exists()


def test_storage_with_topics_is_never_formatted(kafka_alone: Stack) -> None:
    topic = kafka_alone.settings.var / "kafka/data/order_events-0"
    topic.mkdir(parents=True)

    done = _launch(kafka_alone)

    assert done.returncode == os.EX_CONFIG
    assert "order_events-0 is there, but no meta.properties" in done.stderr
    assert topic.exists()


def test_no_broker_is_started_when_another_cluster_is_named(kafka_alone: Stack) -> None:
    done = _launch(kafka_alone, KAFKA_BOOTSTRAP_SERVERS="kafka.example:9092")

    assert done.returncode == 0
    assert "no local broker is needed, KAFKA_BOOTSTRAP_SERVERS=kafka.example:9092" in done.stdout


@pytest.mark.faults
def test_a_stack_comes_up_again_after_supervisord_was_killed(kafka_alone: Stack) -> None:
    kafka_alone.up()
    before = kafka_alone.pid("kafka")
    os.kill(kafka_alone.supervisor.pid(), signal.SIGKILL)
    kafka_alone.up()

    assert kafka_alone.pid("kafka") not in {None, before}
    assert kafka_alone.status()[0].ok


@pytest.mark.faults
def test_a_broker_of_somebody_else_is_not_taken_for_ours(kafka_alone: Stack) -> None:
    told: list[str] = []
    foreign = socket.create_server(("127.0.0.1", kafka_alone.settings.kafka_port))
    with foreign, pytest.raises(StackError, match="not ready within 4 s"):
        kafka_alone.up(timeout_s=4, tell=told.append)

    assert any("kafka: another process listens on 127.0.0.1" in line for line in told), told
    kafka_alone.wait_ready()


def _launch(stack: Stack, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [project_file("deploy/kafka/launch")],
        cwd=stack.directory,
        env={**stack.env, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_with_another_cluster_the_local_broker_is_not_missed(tmp_path: Path) -> None:
    stack = Stack.create(tmp_path / "s", programs=["kafka"], kafka_bootstrap_servers="kafka.example:9092")
    try:
        stack.up()
        kafka = stack.status()[0]

        assert (kafka.state, kafka.ok) == ("EXITED", True)
        assert kafka.says == "not needed: Kafka is kafka.example:9092"
    finally:
        stack.down()


@pytest.mark.faults
def test_up_starts_again_what_was_stopped_and_down_can_be_said_twice(kafka_alone: Stack) -> None:
    kafka_alone.up()
    first = kafka_alone.pid("kafka")
    kafka_alone.up()
    assert kafka_alone.pid("kafka") == first

    kafka_alone.stop("kafka")
    assert kafka_alone.pid("kafka") is None
    kafka_alone.up()

    assert kafka_alone.pid("kafka") not in {None, first}
    assert kafka_alone.down()
    assert not kafka_alone.down()
    with pytest.raises(NoSupervisor, match="make up"):
        kafka_alone.status()


def test_up_says_who_waits_for_what_when_the_time_is_over(kafka_alone: Stack) -> None:
    with pytest.raises(StackError, match=r"not ready within 0.1 s: kafka \(STARTING\): starting"):
        kafka_alone.up(timeout_s=0.1)


def test_up_gives_up_at_once_on_what_a_person_must_mend(kafka_alone: Stack) -> None:
    conf = kafka_alone.conf.read_text(encoding="utf-8")
    command = f'command="{project_file("deploy/kafka/launch")}"'
    assert command in conf
    kafka_alone.conf.write_text(conf.replace(command, "command=sh -c 'sleep 1.5; echo why; exit 78'"), encoding="utf-8")

    with pytest.raises(StackError, match=r"kafka \(EXITED\): ended with exit code 78, see .*kafka\.log: why"):
        kafka_alone.up(timeout_s=30)


def test_status_has_an_exit_code_for_each_case(kafka_alone: Stack) -> None:
    here = kafka_alone.directory
    assert _orderflow(here, "status").returncode == 4

    up = _orderflow(here, "stack", "up", "--json")
    assert (up.returncode, json.loads(up.stdout)["programs"][0]["state"]) == (0, "RUNNING")
    assert "kafka: " in up.stderr, "what it tells on the way"
    well = _orderflow(here, "status", "--json")
    assert well.returncode == 0
    (kafka, *others) = json.loads(well.stdout)["programs"]
    assert kafka["says"] == f"listens on 127.0.0.1:{kafka_alone.settings.kafka_port}"
    assert {row["says"] for row in others} == {ON_DEMAND}

    kafka_alone.stop("kafka")
    degraded = _orderflow(here, "status")
    assert degraded.returncode == 3
    assert "LOOK" in degraded.stdout
    assert _orderflow(here, "stack", "down").stdout.startswith("stopped in ")
    assert _orderflow(here, "stack", "down").stdout == "nothing runs here\n"
    assert json.loads(_orderflow(here, "stack", "down", "--json").stdout)["stopped"] is False


def test_plain_supervisor_commands_work_in_a_stack_s_folder(kafka_alone: Stack) -> None:
    kafka_alone.up()
    done = subprocess.run(
        [Path(sys.executable).parent / "supervisorctl", "status", "kafka"],
        cwd=kafka_alone.directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "RUNNING" in done.stdout
    assert stat.S_IMODE(kafka_alone.supervisor.path.stat().st_mode) == 0o700


def test_all_programs_start_kafka_first_and_stop_kafka_last(tmp_path: Path) -> None:
    stack = Stack.create(tmp_path / "stack")
    try:
        stack.up()
        programs = [row.program for row in stack.status() if row.says != ON_DEMAND]
    finally:
        stack.down()

    log = _supervisor_log(stack)
    started = [program for _, program in sorted((log.index(f"spawned: '{p}'"), p) for p in programs)]
    stopped = [program for _, program in sorted((log.index(f"stopped: {p} "), p) for p in programs)]
    assert started[0] == "kafka"
    assert stopped == started[::-1]
    assert "killing" not in log


def test_a_stack_in_a_deep_folder_has_its_socket_in_a_short_one(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / "stack"
    stack = Stack.create(deep, programs=[])
    try:
        assert len(bytes(stack.supervisor.path)) <= SOCKET_PATH_MAX_BYTES
        stack.up()
        assert stack.supervisor.alive()
    finally:
        stack.down()


def test_a_stack_does_not_see_the_settings_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERFLOW_CART_PORT", "1")
    monkeypatch.setenv("ORDERFLOW_LOG_LEVEL", "error")
    stack = Stack.create(tmp_path / "stack", log_format="json")

    settings = Stack.open(stack.directory).settings

    assert settings.cart_port != 1
    assert (settings.log_level, settings.log_format) == ("info", "json")
    assert settings.kafka_bootstrap_servers == f"127.0.0.1:{settings.kafka_port}"
    assert settings.var == stack.directory / "var"
    assert len({getattr(settings, port) for port in PORTS}) == len(PORTS)


def test_a_folder_that_holds_a_stack_is_left_alone(tmp_path: Path) -> None:
    Stack.create(tmp_path)

    with pytest.raises(StackError, match="holds a stack already"):
        Stack.create(tmp_path)
    with pytest.raises(StackError, match="holds a stack already"):
        Stack.create(ROOT)


def test_a_wrong_setting_is_told_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ORDERFLOW_CART_THREADS='1' is not valid"):
        Stack.create(tmp_path / "stack", cart_threads=1)

    assert not (tmp_path / "stack").exists()


def test_commands_say_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    wrong = _orderflow(tmp_path, "config", ORDERFLOW_CART_PORT="x")
    nowhere = _orderflow(tmp_path, "status")

    assert wrong.returncode == os.EX_CONFIG
    assert wrong.stderr.startswith("orderflow: ORDERFLOW_CART_PORT='x' is not valid")
    assert nowhere.returncode == 1
    assert nowhere.stderr.startswith("orderflow: there is no supervisord.conf in ")
    assert nowhere.stderr.count("\n") == 1


def test_config_shows_every_setting_and_no_secret(tmp_path: Path) -> None:
    secret = {"ORDERFLOW_TOKEN": "x"}
    made = json.loads(_orderflow(tmp_path, "stack", "mine", "--json").stdout)
    assert made["directory"] == str(tmp_path / "mine")
    shown = json.loads(_orderflow(tmp_path, "config", "--json", "--stack", "mine", **secret).stdout)
    outside = json.loads(_orderflow(tmp_path, "config", "--json", **secret).stdout)

    assert shown["ORDERFLOW_TOKEN"] == {"value": "", "default": True}
    assert not shown["ORDERFLOW_CART_PORT"]["default"]
    assert outside["ORDERFLOW_TOKEN"] == {"value": "********", "default": False}
    assert (tmp_path / "mine" / CONF).exists()


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert set(ports) <= set(PORT_RANGE)
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_an_environment_survives_supervisor_s_syntax(tmp_path: Path) -> None:
    environ = {"A": "x y,z=1", "B": "100%", "C": "", "D": "é'é"}
    conf = tmp_path / CONF
    conf.write_text(f"[supervisord]\nenvironment={write_environment(environ)}\n", encoding="utf-8")

    assert read_environment(conf) == environ
