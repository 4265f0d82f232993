"""The attacks of tests/hostile/attacks as a line of the table, and as the list in docs/security.md.

Each test there is one attack: its docstring says in one line what is tried, and it fails if that
gets something: runs code, writes or reads where it should not, learns a secret, costs hours.

    python -m tests.reliability.attacks     # write the list in docs/security.md anew
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.reliability.rows import Row

_ROOT = Path(__file__).parents[2]
FOLDER = _ROOT / "tests" / "hostile" / "attacks"
DOCUMENT = _ROOT / "docs" / "security.md"
BEGIN, END = "<!-- attacks: begin -->\n", "<!-- attacks: end -->\n"


def listed() -> list[tuple[str, str]]:
    """Who attacks, and what is tried: the first lines of the modules' and tests' docstrings."""
    found = []
    for path in sorted(FOLDER.glob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        who = _first_line(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.append((who, _first_line(node)))
    return found


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0].rstrip(".")


def table() -> str:
    """The list as a table in markdown: the tests pass, so each gets nothing."""
    rows = [f"| {who} | {what} | nothing |\n" for who, what in listed()]
    return "".join(["| who | what is tried | gets |\n|---|---|---|\n", *rows])


def measure(scale: float) -> list[Row]:
    """Try all of them, with all their cases where the scale is 1."""
    cases = ["--all-cases"] if scale >= 1 else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *cases,
         str(FOLDER)],
        cwd=_ROOT, capture_output=True, check=False, text=True,
    )  # fmt: skip
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)
    }
    tried = sum(counts.values())
    got = tried - counts.get("passed", 0)
    return [
        Row(
            "attacks tried / that got something",
            "a hostile clone, pull request, server, file, and another user of the machine: "
            "docs/security.md lists them",
            f"{tried} / {got}",
        )
    ]


def main() -> None:
    """Write the list."""
    text = DOCUMENT.read_text("utf-8")
    before, rest = text.split(BEGIN)
    DOCUMENT.write_text(before + BEGIN + table() + END + rest.split(END)[1], "utf-8", newline="\n")


if __name__ == "__main__":
    main()
