"""The command line, run as a person runs it: in the stack's folder, as a process of its own."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unittest.mock import patch

from orderflow.cli.main import main


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


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(stack: Folder, *arguments: str) -> list[str]:
    """The lines that a command draws on a terminal of 80 columns without colours."""
    with patch.dict(os.environ, {"TERM": "dumb"}):
        done = run_here(stack, *arguments, out=_Terminal())
    assert done.returncode == 0, done
    return [line.rstrip() for line in done.stdout.splitlines()]


def run_here(stack: Folder, *arguments: str, out: io.StringIO | None = None) -> Ended:
    """The same, within this process and with ``--stack``, which saves its start: for what sets no signal handler."""
    out, err = out or io.StringIO(), io.StringIO()
    code: object = 0
    argv = ["orderflow", *arguments, "--stack", str(stack.directory)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Ended(code, out.getvalue(), err.getvalue())


def completed(*words: str) -> list[str]:
    """What bash offers behind these words; the last one is what was begun."""
    script = Path(sys.executable).with_name("orderflow")
    line = shlex.join(["orderflow", *words[:-1]]) + f" {words[-1]}"
    env = os.environ | {
        "_ORDERFLOW_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([script], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    return done.stdout.split()
