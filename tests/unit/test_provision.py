"""What installs the tests' tool: it takes one that is new enough, leaves nothing behind, says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: What the script calls on the way there; of a system with these alone it knows no more.
TOOLS = ("bash", "cat", "dirname", "env", "mktemp", "rm", "sed", "sort")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The only folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    script(folder / "id", "echo 0")
    return folder


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run(programs: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code with the functions of the script, and a folder of its own for temporary files."""
    temporary = programs.with_name("tmp")
    temporary.mkdir(exist_ok=True)
    return subprocess.run(
        [programs / "bash", "-c", f"source {ROOT}/scripts/provision.sh\n{code}", "bash", *map(str, arguments)],
        env=os.environ | {"PATH": str(programs), "TMPDIR": str(temporary)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_a_download_that_fails_leaves_nothing_behind(programs: Path, tmp_path: Path) -> None:
    script(programs / "apt-get", 'case "$*" in *download*) echo no such package >&2; exit 100 ;; esac')

    done = run(programs, "fetch_promtool $1", tmp_path / "promtool")

    assert (done.returncode, "this failed: download_prometheus" in done.stderr) == (1, True), done.stderr
    assert "no such package" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


def test_elsewhere_it_says_what_to_install(programs: Path, tmp_path: Path) -> None:
    done = run(programs, "fetch_promtool $1", tmp_path / "promtool")

    assert done.returncode == 1
    assert "please install: promtool 2.42 or newer on PATH; it comes with Prometheus (https://" in done.stderr
    assert "Only the tests need it; all else is ready" in done.stderr


@pytest.mark.parametrize(
    ("says", "is_new_enough"),
    [
        ("promtool, version 2.42.0+ds (branch: debian/sid)", True),
        ("promtool, version 2.100.0 (branch: HEAD)", True),
        ("promtool, version 3.1.0 (branch: HEAD)", True),
        ("promtool, version 2.31.2+ds1 (branch: debian/sid)", False),
        ("something else", False),
    ],
)
def test_one_that_is_too_old_is_not_taken(programs: Path, tmp_path: Path, says: str, is_new_enough: object) -> None:
    tool = script(tmp_path / "promtool", f"echo '{says}'")

    assert (run(programs, "promtool_is_new_enough $1", tool).returncode == 0) is is_new_enough
