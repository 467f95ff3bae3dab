"""The command line, run as a person runs it: in the stack's folder, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orderflow.stack import Stack


def orderflow(stack: Stack, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
    """Run a command, and give what it wrote."""
    done = run(stack, *arguments, stdin=stdin)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def asked(stack: Stack, *arguments: str, code: int = 0) -> Any:
    """Run a command with ``--json``, and give what it says."""
    done = run(stack, *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def run(stack: Stack, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
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
