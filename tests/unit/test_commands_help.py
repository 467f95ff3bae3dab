"""What holds for every command: its help, its examples, ``--json``, its exit codes, and completion."""

from __future__ import annotations

import re
import shlex
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.core import TyperGroup

from orderflow.cli.main import app
from tests.support.command import completed, run_here
from tests.support.commands import commands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMANDS = commands()


def examples(command: Any) -> list[str]:
    """The lines of a command's help that begin with a prompt."""
    return re.findall(r"^\s*\$ (.+)$", command.help or "", re.MULTILINE)


def parsed(line: str) -> str:
    """Parse a line as the shell and the command line do; give the words of the command that it is of."""
    words = shlex.split(line)
    assert words[0] == "orderflow"
    command: Any = typer.main.get_group(app)
    context: Any = None
    path: list[str] = []
    arguments = words[1:]
    while isinstance(command, TyperGroup):
        context = command.make_context(" ".join(["orderflow", *path]), list(arguments), parent=context)
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)
    command.make_context(path[-1], list(arguments), parent=context)
    return " ".join(path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_sentence_and_examples_that_parse(name: str) -> None:
    help_text = COMMANDS[name].help

    assert re.match(r"[A-Z][^\n]*", help_text), name
    assert examples(COMMANDS[name]), f"{name} has no example"
    assert {parsed(line) for line in examples(COMMANDS[name])} == {name}


def test_every_group_has_examples_that_parse_too() -> None:
    root = typer.main.get_group(app)
    groups = {name: one for name, one in root.commands.items() if isinstance(one, TyperGroup)}

    assert {"orders", "stack"} <= groups.keys()
    for name, group in groups.items():
        assert examples(group), f"{name} has no example"
        assert all(parsed(line).startswith(f"{name} ") for line in examples(group))
    assert all(parsed(line) in COMMANDS for line in examples(root))
    assert examples(root)


@pytest.mark.parametrize("line", ["orderflow orders lst", "orderflow outbox list --stat held", "orderflow event"])
def test_an_example_that_does_not_parse_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"No such (command|option)|Missing parameter"):
        parsed(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    options = {option for one in COMMANDS[name].params for option in one.opts}

    assert "--json" in options


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_sentence(name: str) -> None:
    assert [one.name for one in COMMANDS[name].params if not getattr(one, "help", None)] == []


def test_bash_completes_commands_options_and_words() -> None:
    assert completed("re") == ["rebuild", "republish"]
    assert completed("skipped", "list", "--reason", "malf") == ["malformed_json"]


def test_completion_is_silent_where_no_stack_runs(tmp_path: Path) -> None:
    """Nothing is offered, nothing is written beside it, and no file is made."""
    assert completed("timeline", "--stack", str(tmp_path), "") == []
    assert completed("alerts", "show", "--stack", str(tmp_path), "") == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _signals() -> Iterator[None]:
    """What a command sets does not last."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("name", [name for name in COMMANDS if not name.startswith("stack ")])
def test_a_folder_without_a_stack_is_refused_where_it_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's settings, and so perhaps another stack, are never taken for it; and no file is made."""
    monkeypatch.chdir(tmp_path)
    for setting in ("CART_PORT", "ORDER_PORT"):
        monkeypatch.setenv(f"ORDERFLOW_{setting}", "1")
    words = shlex.split(examples(COMMANDS[name])[0])[1:]

    done = run_here(SimpleNamespace(directory=tmp_path / "typo", env={}), *words)

    assert (done.returncode, done.stdout) == (2 if name == "audit" else 1, "")
    assert f"there is no supervisord.conf in {tmp_path}/typo; " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
