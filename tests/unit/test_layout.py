"""The layout of the source roots, which Python's import system makes fragile (docs/adr/0001-source-roots.md)."""

from __future__ import annotations

import ast
import http
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("http", "workers")


def layout_problems(root: Path, installed: frozenset[str]) -> list[str]:
    """What is wrong with a checkout, in sentences that say what to do."""
    return [
        *_importable_roots(root),
        *_shadowed_names(root, installed),
        *_crossing_imports(root),
    ]


def _importable_roots(root: Path) -> list[str]:
    problems = []
    for name in SOURCE_ROOTS:
        for path in sorted((root / name).glob("*.py")):
            if path.name == "__init__.py":
                problems.append(
                    f"{name}/__init__.py turns the source root {name}/ into a package; from the project's folder "
                    f"`import {name}` would then find ours{_stdlib(name)}. Remove the file: packages go below {name}/."
                )
            else:
                problems.append(
                    f"{name}/{path.name} lies directly in the source root {name}/, where it becomes a top-level module "
                    f"{path.stem!r}. Move it into one of the packages below {name}/, or into orderflow/."
                )
    tests = root / "tests"
    problems += [
        f"{path.relative_to(root)}/ is a folder named like the standard library's package. Give it another name."
        for path in sorted(tests.rglob("http"))
        if path.is_dir()
    ]
    return problems


def _stdlib(name: str) -> str:
    return f" instead of the standard library's {name}, and every HTTP client would break" if _is_stdlib(name) else ""


def _is_stdlib(name: str) -> bool:
    return name in sys.stdlib_module_names


def _shadowed_names(root: Path, installed: frozenset[str]) -> list[str]:
    ours = {"orderflow", *_services(root)}
    return [
        f"{folder.name}/ is named like the installed package {folder.name!r}: type checkers and import sorting "
        "take one for the other. Give the folder another name."
        for folder in sorted(root.iterdir())
        if folder.is_dir() and folder.name in installed - ours
    ]


def _crossing_imports(root: Path) -> list[str]:
    services = _services(root)
    problems = []
    for package, home in {"orderflow": root, **services}.items():
        for path in sorted((home / package).rglob("*.py")):
            for imported in sorted(_imports(path) & services.keys() - {package}):
                rule = "the core imports no service" if package == "orderflow" else "services meet only in the core"
                problems.append(
                    f"{path.relative_to(root)} imports {imported}, but {rule}. Move what both need to orderflow/."
                )
    return problems


def _services(root: Path) -> dict[str, Path]:
    """The packages below the source roots, with the root of each."""
    return {
        folder.name: root / name
        for name in SOURCE_ROOTS
        if (root / name).is_dir()
        for folder in (root / name).iterdir()
        if (folder / "__init__.py").exists()
    }


def _imports(path: Path) -> set[str]:
    """The top-level packages that a module imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    _write(
        tmp_path,
        **{
            "orderflow/__init__.py": "",
            "http/cart_service/__init__.py": "import orderflow, http\nfrom cart_service import app\n",
            "workers/order_consumer/__init__.py": "from orderflow import events\n",
            "tests/unit/test_x.py": "import cart_service, order_consumer\n",
        },
    )
    return tmp_path


def test_this_checkout_is_laid_out_as_it_must_be() -> None:
    problems = layout_problems(ROOT, frozenset(packages_distributions()))

    assert not problems, "\n".join(["the layout is broken:", *problems])


def test_http_is_the_standard_library_s() -> None:
    assert http.HTTPStatus(200).phrase == "OK"
    assert http.__file__ is not None, "`import http` finds the source root http/ as a namespace package"
    assert not Path(http.__file__).is_relative_to(ROOT / "http"), "`import http` finds the source root http/"


def test_a_sound_layout_has_no_problems(checkout: Path) -> None:
    assert layout_problems(checkout, frozenset({"bottle", "cart_service"})) == []


@pytest.mark.parametrize(
    ("planted", "text", "said"),
    [
        ("http/__init__.py", "", "instead of the standard library's http, and every HTTP client would break"),
        ("workers/__init__.py", "", "turns the source root workers/ into a package"),
        ("http/client.py", "", "http/client.py lies directly in the source root http/"),
        ("workers/util.py", "", "workers/util.py lies directly in the source root workers/"),
        ("tests/unit/http/test_x.py", "", "tests/unit/http/ is a folder named like"),
        ("bottle/x.txt", "", "bottle/ is named like the installed package 'bottle'"),
        ("orderflow/x.py", "def f():\n    from cart_service import app\n", "the core imports no service"),
        ("http/cart_service/x.py", "import order_consumer.loop\n", "services meet only in the core"),
    ],
)
def test_the_guard_finds_what_is_planted(checkout: Path, planted: str, text: str, said: str) -> None:
    _write(checkout, **{planted: text})

    (problem,) = layout_problems(checkout, frozenset({"bottle", "cart_service"}))

    assert said in problem
    assert problem.endswith((".", "orderflow/."))
