"""What many unit tests begin with; a module that needs other settings has a fixture of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orderflow.settings import Settings
from tests.support.applied_log import AppliedLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The defaults, in a folder of the test's own."""
    return Settings(var_dir=str(tmp_path))


@pytest.fixture
def log(settings: Settings) -> Iterator[AppliedLog]:
    """A log, and its reader."""
    log = AppliedLog(settings)
    yield log
    log.writer.close()
