"""What the documents point at is there: links, headings, files and folders of this repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
DOCUMENTS = [
    *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((TOP / "docs").rglob("*.md")),
]
NOT_HERE = {".github/workflows/checkpoints.yml", "docs/commands/VERB.md", "docs/NAME.md"}
"""A file that the reader makes, and names that stand for many."""
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(
    r"`((?:git_theta_ext|drivers|tests|docs|benchmarks|requirements|\.ci|\.github)/[\w./-]*)`"
)


def headings(text: str) -> set[str]:
    """What a link may name after `#`, as GitHub makes it of a heading."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in found}


def missing(document: Path, text: str) -> Iterator[str]:
    """Every link and path of a text, as it stands in this document, that leads nowhere."""
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (heading and heading not in headings(target.read_text("utf-8"))):
            yield link
    named = set(_PATH.findall(text)) - NOT_HERE
    yield from sorted(path for path in named if not (TOP / path).exists())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(TOP).as_posix())
def test_everything_that_is_named_is_there(document: Path) -> None:
    assert list(missing(document, document.read_text("utf-8"))) == []


def run_together(text: str) -> list[str]:
    """Lines that GitHub shows as they are meant and the site does not: an empty one is missing.

    Python-Markdown wants one before a heading and after a block of code.
    """
    found, code, before = [], False, ""
    for line in text.splitlines():
        if before and ((before == "```" and not code) or (not code and re.match("#+ ", line))):
            found += [line] if line else []
        code ^= line.startswith("```")
        before = line
    return found


def test_headings_and_blocks_of_code_stand_apart() -> None:
    found = {one.name: run_together(one.read_text("utf-8")) for one in DOCUMENTS}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_it_does_find_what_runs_together() -> None:
    assert run_together("| a |\n# b\n\n```\n# c\n```\n    d\n") == ["# b", "    d"]


def test_it_does_find_what_is_not_there() -> None:
    text = "[a](nowhere.md) [b](glossary.md#no-such) [c](https://example.org) `tests/nothing.py`"
    found = list(missing(TOP / "docs" / "merging.md", text))
    assert found == ["nowhere.md", "glossary.md#no-such", "tests/nothing.py"]
    assert not list(missing(TOP / "docs" / "merging.md", "[d](#coupled-tensors) `tests/unit`"))


def test_the_glossary_names_a_word_once() -> None:
    text = (TOP / "docs" / "glossary.md").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    words = [row[0].removeprefix("| ") for row in rows if row[0] != "| word"]
    assert len(words) > 40
    assert len(words) == len(set(words))
    assert all(len(row) == 4 and all(cell.strip(" |") for cell in row) for row in rows)
