"""The commands of the command line as typer has them, and the exit codes that their code can give."""

from __future__ import annotations

import ast
import importlib
import inspect
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from orderflow.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


@cache
def commands() -> dict[str, Any]:
    """Every command that does something, by its words: ``stack up``."""
    leaves: dict[str, Any] = {}
    for name, command in typer.main.get_group(app).commands.items():
        if isinstance(command, TyperGroup):
            leaves |= {f"{name} {word}": leaf for word, leaf in command.commands.items()}
        else:
            leaves[name] = command
    return leaves


def codes_of(name: str) -> set[int]:
    """The codes of every ``typer.Exit`` in a command's function, and in what it uses of the command line's modules."""
    function = inspect.unwrap(commands()[name].callback)
    codes: set[int] = set()
    seen: set[tuple[str, str]] = set()
    left = [(function.__module__, function.__name__)]
    while left:
        place = left.pop()
        if place in seen:
            continue
        seen.add(place)
        module, node = importlib.import_module(place[0]), _definitions(place[0]).get(place[1])
        if node is None:
            continue
        for one in ast.walk(node):
            if isinstance(one, ast.Name):
                left.append(_home(module, one.id))
            elif isinstance(one, ast.Attribute) and one.attr == "Exit":
                codes |= set(_codes(module, node, one))
    return codes


@cache
def _definitions(module: str) -> dict[str, ast.AST]:
    if not module.startswith("orderflow.cli."):
        return {}
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    return {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)}


def _home(module: ModuleType, name: str) -> tuple[str, str]:
    found = getattr(module, name, None)
    return getattr(found, "__module__", None) or module.__name__, name


def _codes(module: ModuleType, node: ast.AST, exit_: ast.Attribute) -> Iterator[int]:
    """The codes of one ``typer.Exit``: a number or a constant's name, one of two, or an enum's; 0 without any."""
    call = next((one for one in ast.walk(node) if isinstance(one, ast.Call) and one.func is exit_), None)
    if call is None or not call.args:
        yield 0
        return
    values = [call.args[0].body, call.args[0].orelse] if isinstance(call.args[0], ast.IfExp) else [call.args[0]]
    for value in values:
        if isinstance(value, ast.Constant):
            yield int(str(value.value))
        elif isinstance(value, ast.Name) and isinstance(getattr(module, value.id, None), int):
            yield getattr(module, value.id)
        else:
            kinds = [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, IntEnum)]
            assert len(kinds) > 1, f"{module.__name__}: what is the code of {ast.unparse(call)}?"
            yield from (int(code) for kind in kinds for code in kind)
