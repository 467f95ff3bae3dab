"""The documents, and the code as they are held to it: readers that every check of the documents shares."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = ("orderflow", "http", "workers")
#: Folders below the root that hold no documents of ours.
FOREIGN = {".venv", "var", "build", "dist", "node_modules", "libs"}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def documents() -> list[Path]:
    found = [
        path
        for path in ROOT.rglob("*.md")
        if not any(part in FOREIGN or part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]
    return sorted(found)


def _modules() -> list[ast.Module]:
    return [ast.parse(read(path)) for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]


@cache
def nodes() -> list[ast.AST]:
    return [node for module in _modules() for node in ast.walk(module)]


def table(text: str, first: str) -> dict[str, list[str]]:
    """The rows whose first cell is one code span that matches ``first``: the name, and the other cells.

    A row is one of a table: without a header above it, it is shown as the text that it is.
    """
    rows: dict[str, list[str]] = {}
    headed = False
    for above, line in pairwise(["", *text.splitlines()]):
        begins = above.startswith("|") and re.fullmatch(r"\|[-:| ]+\|", line) is not None
        headed = line.startswith("|") and (headed or begins)
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("|") and (match := re.fullmatch(rf"`({first})`", cells[0])):
            assert headed, f"the row of {match[1]} has no header above it"
            assert match[1] not in rows, f"{match[1]} has two rows"
            rows[match[1]] = cells[1:]
    return rows


def compared(what: str, code: set[str], documented: set[str], where: str) -> list[str]:
    return [f"{what} {name} is in the code and not in {where}" for name in sorted(code - documented)] + [
        f"{what} {name} is in {where} and not in the code" for name in sorted(documented - code)
    ]


def planted(text: str, old: str, new: str) -> str:
    assert old in text, f"the planted fault needs {old!r} in the document"
    return text.replace(old, new)
