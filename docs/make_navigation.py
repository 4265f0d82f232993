"""Write the commands and the decisions into mkdocs.yml: python docs/make_navigation.py"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent
TARGET = DOCS.parent / "mkdocs.yml"
FOLDERS = ("commands", "decisions")


def navigation(text: str) -> str:
    """The configuration with a line for each page of those folders, in alphabetical order."""
    for folder in FOLDERS:
        pattern = rf"( *)# {folder}: begin.*\n(?:.*\n)*? *# {folder}: end\n"
        found = re.search(pattern, text)
        if found is None:
            raise ValueError(f"{TARGET.name} has no place for {folder}")
        first, last = found[0].splitlines()[0], found[0].splitlines()[-1]
        pages = sorted((DOCS / folder).glob("*.md"))
        lines = [f"{found[1]}- {folder}/{page.name}" for page in pages]
        text = text.replace(found[0], "\n".join([first, *lines, last]) + "\n")
    return text


if __name__ == "__main__":
    TARGET.write_text(navigation(TARGET.read_text("utf-8")), "utf-8")
