"""Stacks that tests bring up, and take down whatever happens."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orderflow.stack import Stack
from tests.support.processes import end_what_is_left

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def take_down(stack: Stack) -> None:
    """Stop a stack in good order; whatever it leaves behind is ended, and fails the test."""
    try:
        stack.down()
    finally:
        left = end_what_is_left(stack.settings)
    assert not left, f"the stack left processes behind: {left}"


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Stack]:
    """A stack with everything up."""
    stack = Stack.create(folder / "stack", **settings)
    try:
        stack.up()
        yield stack
    finally:
        take_down(stack)
