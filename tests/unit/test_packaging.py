"""What a wheel holds, and that it works away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("orderflow", "cart_service", "order_service", "order_consumer")


def _run(*command: object, cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _has_build_backend() -> bool:
    try:
        return int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build/ folder of the checkout gets into it, or stays there."""
    copy, out = tmp_path_factory.mktemp("checkout") / "x", tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "var", "build", "*.egg-info", "libs", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    isolation = ["--no-build-isolation"] if _has_build_backend() else []
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "-w", out, copy, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    command = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    _run(sys.executable, *command, cwd=target)
    return target


def test_a_wheel_holds_the_packages_and_what_a_stack_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    for package in PACKAGES:
        assert f"{package}/__init__.py" in names
    for service in PACKAGES[1:]:
        assert f"{service}/__main__.py" in names
    assert any(name.startswith("orderflow/store/") and name.endswith(".sql") for name in names)
    for name in ("supervisord.conf", *(f"deploy/kafka/{file}" for file in ("launch", "pom.xml", "server.properties"))):
        assert any(found.endswith(f"share/orderflow/{name}") for found in names), name
    for name in ("prometheus/prometheus.yml", "prometheus/alerts.yml", "grafana/orderflow.json"):
        assert any(found.endswith(f"share/orderflow/deploy/{name}") for found in names), name
    assert not any(name.startswith(("http/", "workers/", "tests/")) or name.endswith(".jar") for name in names)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_s_packages_are_imported_from_anywhere(installed: Path, tmp_path: Path, package: str) -> None:
    code = f"import {package}; print({package}.__file__)"

    file = _run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))

    assert Path(file).is_relative_to(installed)


def test_a_wheel_makes_stacks(installed: Path, tmp_path: Path) -> None:
    orderflow = (sys.executable, "-m", "orderflow.cli.main")
    _run(*orderflow, "stack", "mine", cwd=tmp_path, PYTHONPATH=str(installed))

    launch = installed / "share/orderflow/deploy/kafka/launch"
    assert os.access(launch, os.X_OK)
    assert f'command="{launch}"' in (tmp_path / "mine/supervisord.conf").read_text(encoding="utf-8")
