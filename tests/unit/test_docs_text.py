"""What holds for every document: its paths, links, fenced blocks and words; and the index of the records."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.documents import DOCS, ROOT, SOURCES, compared, documents, planted, read

# Decision records.


def index_problems(text: str, records: set[str]) -> list[str]:
    return compared("the record", records, set(re.findall(r"\]\((\d{4}-[a-z-]+\.md)\)", text)), "docs/adr/README.md")


def test_every_record_is_in_the_index_and_has_its_headings() -> None:
    records = {path.name: read(path) for path in (DOCS / "adr").glob("0*.md")}

    assert len(records) >= 6
    assert index_problems(read(DOCS / "adr/README.md"), set(records)) == []
    for name, text in records.items():
        assert re.match(rf"# {int(name[:4])}\. \S", text), name
        assert re.findall(r"^(?:## )?(Status|Context|Decision|Consequences)\b", text, re.MULTILINE) == [
            "Status", "Context", "Decision", "Consequences",
        ], name  # fmt: skip


def test_a_record_outside_the_index_is_found() -> None:
    text = read(DOCS / "adr/README.md")

    assert (
        index_problems(text, {"0099-new.md"})[0]
        == "the record 0099-new.md is in the code and not in docs/adr/README.md"
    )


# Paths, links, fenced blocks and words.


def missing_paths(text: str) -> list[str]:
    """Code spans that name a file or folder of the project, and what they name is not there."""
    tops = "orderflow|http|workers|tests|docs|scripts|deploy"
    named = re.findall(rf"`((?:{tops})/[\w./-]*)`", _outside_fences(text))
    return [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_document_names_exists(path: Path) -> None:
    allowed = {"http/__init__.py"} if path.name.startswith("0001") else set()  # there it says that there is none

    assert set(missing_paths(read(path))) <= allowed


def unnamed_modules(text: str) -> set[str]:
    """Modules whose room the architecture does not tell: neither the file is named, nor the package it is in."""
    found = {path.relative_to(ROOT) for source in SOURCES for path in (ROOT / source).rglob("[a-z]*.py")}
    packages = {path.parent for path in found} - {Path(source) for source in SOURCES}
    named = {path for path in packages if f"`{path}/`" in text}
    return {str(path) for path in found if f"`{path}`" not in text and path.parent not in named}


def test_every_module_has_a_room_in_the_architecture() -> None:
    text = read(DOCS / "architecture.md")

    assert unnamed_modules(text) == set()
    assert unnamed_modules(planted(text, "`orderflow/clock.py`", "")) == {"orderflow/clock.py"}
    assert "orderflow/audit/wire.py" in unnamed_modules(planted(text, "`orderflow/audit/`", ""))


def test_a_missing_path_is_found() -> None:
    assert missing_paths("`orderflow/events.py`, `http/`, `orderflow/gone.py`") == ["orderflow/gone.py"]


def _outside_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _outside_fences(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path, text: str) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _outside_fences(text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        if not linked.exists() or (anchor and anchor not in _anchors(text if not file else read(linked))):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    assert broken_links(path, read(path)) == []


def test_a_broken_link_is_found() -> None:
    text = (
        "# A b\n[1](settings.md) [2](none.md) [3](#a-b) [4](#c) [5](settings.md#http) [6](http.md#d) [7](https://x.y)"
    )

    assert broken_links(DOCS / "logs.md", text) == ["none.md", "#c", "http.md#d"]


def block_problems(text: str) -> list[str]:
    """Fenced blocks of a language that we can check must parse; a fence without one is plain text."""
    problems = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        try:
            _parse(language, block)
        except (SyntaxError, ValueError) as error:
            problems.append(f"{language}: {error}: {block[:60]!r}")
    return problems


def _parse(language: str, block: str) -> None:
    if language == "python":
        ast.parse(block)
    elif language == "json":
        json.loads(block)
    elif language == "bash":
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False, timeout=10)  # noqa: S607
        if done.returncode:
            raise ValueError(done.stderr)
    elif language not in ("", "mermaid"):
        raise ValueError("a fence of this language is not checked")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_fenced_block_parses(path: Path) -> None:
    assert block_problems(read(path)) == []


@pytest.mark.parametrize(
    "block",
    ["```python\ndef f(:\n```\n", "```bash\nif x; then\n```\n", "```json\n{'a': 1}\n```\n", "```ruby\n1\n```\n"],
)
def test_a_block_that_does_not_parse_is_found(block: str) -> None:
    assert block_problems(f"text\n{block}text\n")


#: Documents speak of the project alone: no paths of one machine, no words of how it came to be.
FORBIDDEN = re.compile(
    r"(?<![\w.%~)}])/(?:tmp|root|work|home|mnt)\b|\bissues?\b|\bpypi\b|\brepo1?\.maven|\bclaude\b|\bsubagents?\b|\bTODO\b",
    re.IGNORECASE,
)


def forbidden_words(text: str) -> list[str]:
    return [match[0] for match in FORBIDDEN.finditer(text)]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_speaks_of_anything_but_the_project(path: Path) -> None:
    assert forbidden_words(read(path)) == []


def test_forbidden_words_are_found() -> None:
    assert forbidden_words("see /mnt/x, `/root`, (/work/y); TODO, Issue") == [
        "/mnt",
        "/root",
        "/work",
        "TODO",
        "Issue",
    ]
    assert forbidden_words("/problems/x, workers/, work/hour, tissue") == []


def test_the_documents_are_found() -> None:
    assert {ROOT / "README.md", ROOT / "CHANGELOG.md", DOCS / "http.md", DOCS / "adr/README.md"} <= set(documents())
