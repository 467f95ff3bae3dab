"""The command line, run as a person runs it: in the stack's folder, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Folder(Protocol):
    """Where a command is run: a stack's folder, say."""

    @property
    def directory(self) -> Path: ...

    @property
    def env(self) -> dict[str, str]: ...


def orderflow(stack: Folder, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
    """Run a command, and give what it wrote."""
    done = run(stack, *arguments, stdin=stdin)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def asked(stack: Folder, *arguments: str, code: int = 0) -> Any:
    """Run a command with ``--json``, and give what it says."""
    done = run(stack, *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def run(stack: Folder, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orderflow.cli.main", *arguments],
        cwd=stack.directory,
        env=stack.env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
