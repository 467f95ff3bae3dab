"""Every command is documented, and whatever a text tells to type exists."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.support.commands import codes_of, commands
from tests.support.documents import DOCS, ROOT, SOURCES, compared, documents, planted, read, table


@cache
def options() -> dict[str, set[str]]:
    """The options of every command, by its words: ``stack up``."""
    return {
        path: {option for one in leaf.params for option in one.opts} | {"--help"} for path, leaf in commands().items()
    }


def command_problems(text: str) -> list[str]:
    """The table of all commands against the code: each has what it does, and its exit codes."""
    rows = table(text, "orderflow [a-z]+( [a-z]+)?")
    documented = {name.removeprefix("orderflow ") for name in rows}
    problems = compared("the command", set(commands()), documented, "docs/commands.md")
    return problems + [f"{name} has no purpose or no exit codes" for name, cells in rows.items() if not all(cells)]


def test_every_command_is_documented() -> None:
    assert {"status", "stack up", "skipped redrive"} <= commands().keys()
    assert command_problems(read(DOCS / "commands.md")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("| `orderflow audit` |", "| `orderflow check` |", "the command audit is in the code and not in"),
        (
            "| `orderflow skipped show` |",
            "| `orderflow skipped see` |",
            "the command skipped see is in docs/commands.md",
        ),
    ],
)
def test_a_drift_of_the_commands_is_found(old: str, new: str, said: str) -> None:
    problems = command_problems(planted(read(DOCS / "commands.md"), old, new))

    assert any(said in problem for problem in problems)


def test_every_command_is_in_the_readme() -> None:
    documented = {name.split()[1] for name in table(read(ROOT / "README.md"), "orderflow [a-z]+")}

    assert compared("the command", {path.split()[0] for path in commands()}, documented, "README.md") == []


#: Every command may end so, as the first table says.
COMMON = {0, 78, 130}
#: Any error of orderflow's ends a command with 1, wherever it comes from.
ERROR = 1


def documented_codes(text: str) -> dict[str, set[int]]:
    """The codes of each command, by the table; ``as above`` are those of the row above."""
    codes: dict[str, set[int]] = {}
    above: set[int] = set()
    for name, (_, cell) in table(text, "orderflow [a-z]+( [a-z]+)?").items():
        if cell != "as above":
            parts = [re.match(r"\d+(, \d+)*", part.strip()) for part in cell.split(";")]
            above = {int(code) for part in parts if part for code in part[0].split(", ")}
        codes[name.removeprefix("orderflow ")] = above
    return codes


def code_problems(text: str) -> list[str]:
    """The documented exit codes against those that the code of each command can give."""
    problems = []
    for name, told in documented_codes(text).items():
        given = codes_of(name)
        problems += [f"{name} may end with {code}, which is not documented" for code in given - told - COMMON]
        problems += [f"{name} never ends with {code}" for code in told - given - COMMON - {ERROR}]
    return problems


def test_the_exit_codes_of_every_command_are_documented() -> None:
    assert codes_of("status") >= {0, 3, 4}
    assert codes_of("audit") >= {1, 2, 130}
    assert code_problems(read(DOCS / "commands.md")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("3: something does not run or is degraded; ", "", "status may end with 3, which is not documented"),
        ("0: no difference; ", "0: no difference; 5: none; ", "audit never ends with 5"),
    ],
)
def test_a_drift_of_the_exit_codes_is_found(old: str, new: str, said: str) -> None:
    assert said in code_problems(planted(read(DOCS / "commands.md"), old, new))


def impossible_commands(text: str) -> set[str]:
    """What a text tells to type and does not exist: the command, or one of its options."""
    told = re.findall(r"""(?:[`"]|bin/)(orderflow [a-z][^`"\n|#;]*)""", text.replace("\\\n", ""))
    return {line.strip() for line in told if not _possible(line.split())}


def _possible(words: list[str]) -> bool:
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    known = options()
    for path in (" ".join(words[1:3]), words[1]):
        if path in known:
            return given <= known[path]
    is_group = any(path.startswith(f"{words[1]} ") for path in known)
    return is_group and not given and not (len(words) > 2 and words[2].islower())


def test_every_command_that_is_told_exists() -> None:
    """In documents, in messages, in the steps of alerts, in what the audit advises."""
    told = [*documents(), *(path for source in SOURCES for path in (ROOT / source).rglob("*.py"))]

    assert {str(path): wrong for path in told if (wrong := impossible_commands(read(path)))} == {}


@pytest.mark.parametrize(
    "text",
    ["`orderflow skip list`", "see `orderflow outbox lists`", "```bash\n.venv/bin/orderflow rebuild --now  # x\n```",
     "`orderflow skipped list \\\n  --raeson x`"],
)  # fmt: skip
def test_an_impossible_command_is_found(text: str) -> None:
    assert impossible_commands(text)
    assert not impossible_commands("`orderflow status`, `orderflow stack`, `orderflow outbox list --state held`")


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    named = {name for path in documents() for name in re.findall(r"(?:^|`)make ([a-z-]+)", read(path), re.MULTILINE)}

    assert {"up", "test"} <= named
    assert named <= targets
