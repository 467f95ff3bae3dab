"""What holds for every command: its help, its examples, ``--json``, its exit codes, and completion."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.core import TyperGroup

from orderflow.cli.main import app
from tests.support.command import completed
from tests.support.commands import commands

if TYPE_CHECKING:
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
