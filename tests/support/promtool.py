"""promtool, Prometheus's own check of configurations, rules and metrics: ``scripts/provision.sh --tests``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def promtool(*arguments: object, stdin: str | None = None) -> str:
    """Run it; what it says against what it is given fails the test."""
    done = run(*arguments, stdin=stdin)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).with_name("promtool")
    found = beside if beside.exists() else shutil.which("promtool")
    assert found, "promtool is missing: scripts/provision.sh --tests"
    command = [str(found), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
