"""Schemathesis against a service that runs, in a process of its own, as users of it do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.documents import ROOT
from tests.support.openapi.hooks import SEEN
from tests.support.openapi.laid import described_with
from tests.support.outage import ask

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tests.support.openapi.laid import Examples

CONFIG = Path(__file__).with_name("schemathesis.toml")

PHASES = ("examples", "coverage", "fuzzing", "stateful")


@dataclass(frozen=True)
class Run:
    """What came of it: the report, and what was printed, with the seed and a command for each finding."""

    report: dict[str, Any]
    printed: str
    document: dict[str, Any]
    phases: tuple[str, ...]
    #: Operation, phase, and answer of each case: ``("GET /orders", "fuzzing", "400 invalid-parameter")``.
    seen: tuple[tuple[str, str, str], ...]

    @property
    def findings(self) -> list[str]:
        found = [f"{one['title']}: {one['operations']}" for one in self.report["failures"]]
        return found + [str(error) for error in self.report["errors"]]

    @property
    def cases(self) -> int:
        return int(self.report["test_cases"]["generated"])

    @property
    def operations(self) -> dict[str, dict[str, Any]]:
        """Each described operation by its label, as the cases name it."""
        return {
            f"{method.upper()} {path}": operation
            for path, operations in self.document["paths"].items()
            for method, operation in operations.items()
        }

    def check_complete(self, examples: int) -> None:
        """All was tried, and warned of nothing: each described operation, each phase, so many examples of each."""
        assert self.report["complete"], self.printed
        assert self.report["operations"]["tested"] == len(self.operations), self.printed
        asked = {name: "success" if name in self.phases else "skip" for name in PHASES}
        assert {name: phase["status"] for name, phase in self.report["phases"].items()} == asked, self.printed
        warnings = {kind: labels for kind, labels in self.report["warnings"].items() if labels}
        assert warnings.keys() <= {"unmatched_filter"}, warnings  # what is set aside for one service only
        made = Counter(operation for operation, phase, _ in self.seen if phase == "fuzzing")
        fewer = {name: made[name] for name in self.operations if made[name] < examples}
        assert not fewer, fewer

    def unseen(self, problems: Mapping[str, Collection[str]], never: Collection[str] = ()) -> list[str]:
        """Which of the described successes (but ``never``), and which of ``problems``, no answer was."""
        successes = {
            (name, status) for name, one in self.operations.items() for status in one["responses"] if status < "300"
        }
        wanted = successes | {(name, kind) for name, kinds in problems.items() for kind in kinds}
        seen = {(name, answer) for name, _, answer in self.seen}
        return sorted({f"{name}: {answer}" for name, answer in wanted - seen} - set(never))


def run(  # noqa: PLR0913 (what is the same in all runs is no parameter)
    folder: Path,
    port: int,
    *,
    examples: int,
    within_s: float,
    laid: Examples | None = None,
    token: str = "",
    phases: tuple[str, ...] = PHASES,
) -> Run:
    """Run every check; the seed is printed, and taken from ``SCHEMATHESIS_SEED`` where that is set.

    The description comes from a file: of one that it has fetched itself, Schemathesis leaves out the path.
    """
    description, report, seen = (folder / f"{port}-{name}.json" for name in ("description", "report", "seen"))
    document = ask(port, "/openapi.json")
    description.write_text(json.dumps(described_with(document, laid or {})), encoding="utf-8")
    seed = os.environ.get("SCHEMATHESIS_SEED")
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", str(description),
        "--url", f"http://127.0.0.1:{port}", "--checks", "all", "--phases", ",".join(phases),
        "--max-examples", str(examples), "--no-color", "--report", "json", "--report-json-path", str(report),
        *(["--header", f"Authorization: Bearer {token}"] if token else []), *(["--seed", seed] if seed else []),
    ]  # fmt: skip
    environ = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.support.openapi.hooks", "PYTHONPATH": str(ROOT), SEEN: str(seen)
    }  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=within_s, check=False
    )
    print(done.stdout, done.stderr)  # noqa: T201 (pytest shows it where a test fails)
    assert report.exists(), done.stdout + done.stderr
    told = json.loads(report.read_text(encoding="utf-8"))
    compared = tuple(tuple(one) for one in json.loads(seen.read_text(encoding="utf-8")))
    return Run(told, done.stdout, document, phases, compared)
