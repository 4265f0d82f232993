"""Write the commands and the decisions where they are listed: python docs/make_navigation.py

In `mkdocs.yml` they stand in alphabetical order, in `docs/git-theta.md` the commands by what they
are for, with the line that each page has about itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
TARGET = DOCS.parent / "mkdocs.yml"
OVERVIEW = DOCS / "git-theta.md"
FOLDERS = ("commands", "decisions")
GROUPS = {
    "Set up": "demo install uninstall track untrack completion env logs version",
    "Look at models": (
        "status ls-files diff review summary log blame modules show du cat export diff-filter"
    ),
    "Merge and put together": "merge mergetool resolve restore add assemble stats",
    "Decide on an update": "evaluate scores check allow check-files",
    "Send, receive and lock": "push pull fetch checkout lock locks unlock receive-check",
    "Send by file": "format-patch am apply",
    "Use models of others, and publish": "get sync update outdated cache release sign",
    "Care for the store": "fsck prune repack pointer",
    "Move in and out": "migrate import-dvc import-hf mirror",
}
"""The commands by what they are for; each stands in one group."""


def navigation(text: str) -> str:
    """The configuration with a line for each page of those folders, in alphabetical order."""
    for folder in FOLDERS:
        pattern = rf"( *)# {folder}: begin.*\n(?:.*\n)*? *# {folder}: end\n"
        found = re.search(pattern, text)
        if found is None:
            raise ValueError(f"{TARGET.name} has no place for {folder}")
        first, last = found[0].splitlines()[0], found[0].splitlines()[-1]
        pages = sorted((DOCS / folder).glob("*.md"))
        lines = [f"{found[1]}- {_called(folder, page)}{folder}/{page.name}" for page in pages]
        text = text.replace(found[0], "\n".join([first, *lines, last]) + "\n")
    return text


def overview(text: str) -> str:
    """The page about all commands with a term for each, below the heading COMMANDS."""
    verbs = [verb for group in GROUPS.values() for verb in group.split()]
    there = {page.stem for page in (DOCS / "commands").glob("*.md")}
    if there != set(verbs) or len(verbs) != len(there):
        wrong = sorted(there ^ set(verbs)) or "one stands in two"
        raise ValueError(f"GROUPS in {Path(__file__).name} and docs/commands differ: {wrong}")
    head, _, rest = text.partition("## COMMANDS\n")
    _, _, tail = rest.partition("\n## ")
    return f"{head}## COMMANDS\n\n" + "\n".join(_lines()) + f"\n## {tail}"


def _called(folder: str, page: Path) -> str:
    """What a page is called in the navigation, where that is not its heading."""
    return f"{page.stem}: " if folder == "commands" else ""


def _lines() -> Iterator[str]:
    for group, verbs in GROUPS.items():
        yield from (f"### {group}", "")
        for verb in verbs.split():
            page = (DOCS / "commands" / f"{verb}.md").read_text("utf-8")
            about = page.partition(f"git-theta-{verb} - ")[2].partition("\n")[0]
            yield from (f"[{verb}](commands/{verb}.md)", f":   {about}", "")


if __name__ == "__main__":
    TARGET.write_text(navigation(TARGET.read_text("utf-8")), "utf-8")
    OVERVIEW.write_text(overview(OVERVIEW.read_text("utf-8")), "utf-8")
