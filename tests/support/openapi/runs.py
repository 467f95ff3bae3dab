"""Schemathesis against a service that runs, in a process of its own, as users of it do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.support.documents import ROOT

CONFIG = Path(__file__).with_name("schemathesis.toml")

PHASES = ("examples", "coverage", "fuzzing", "stateful")


@dataclass(frozen=True)
class Run:
    """What came of it: the report, and what was printed, with the seed and a command for each finding."""

    report: dict[str, Any]
    printed: str

    @property
    def findings(self) -> list[str]:
        found = [f"{one['title']}: {one['operations']}" for one in self.report["failures"]]
        return found + [str(error) for error in self.report["errors"]]

    @property
    def cases(self) -> int:
        return int(self.report["test_cases"]["generated"])

    def check_complete(self, operations: int, examples: int) -> None:
        """All was tried: each operation, every phase, so many examples of each operation."""
        assert self.report["complete"], self.printed
        assert self.report["operations"]["tested"] == self.report["operations"]["total"] >= operations, self.printed
        assert {name: phase["status"] for name, phase in self.report["phases"].items()} == dict.fromkeys(
            PHASES, "success"
        ), self.printed
        assert self.cases >= examples * self.report["operations"]["total"]


def run(folder: Path, port: int, *, examples: int, within_s: float, token: str = "", coverage_of: str = "") -> Run:
    """Run every check; the seed is printed, and taken from ``SCHEMATHESIS_SEED`` where that is set.

    ``coverage_of``: of the paths that match this alone, and the phase that takes no chances.
    """
    report = folder / f"{port}.json"
    seed = os.environ.get("SCHEMATHESIS_SEED")
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run",
        f"http://127.0.0.1:{port}/openapi.json", "--checks", "all",
        "--phases", "coverage" if coverage_of else ",".join(PHASES),
        *(["--include-path-regex", coverage_of] if coverage_of else []),
        "--max-examples", str(examples), "--no-color", "--report", "json", "--report-json-path", str(report),
        *(["--header", f"Authorization: Bearer {token}"] if token else []), *(["--seed", seed] if seed else []),
    ]  # fmt: skip
    environ = os.environ | {"SCHEMATHESIS_HOOKS": "tests.support.openapi.hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=within_s, check=False
    )
    print(done.stdout, done.stderr)  # noqa: T201 (pytest shows it where a test fails)
    assert report.exists(), done.stdout + done.stderr
    return Run(msgspec.json.decode(report.read_bytes()), done.stdout)
