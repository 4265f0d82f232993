"""Every page of docs/ has one place in the navigation of the site, and every place has a page."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
CONFIGURATION = (TOP / "mkdocs.yml").read_text("utf-8")


def pages(part: Any) -> Iterator[str]:
    """The pages of a part of the navigation, in their order."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from pages(value)
    else:
        for one in part:
            yield from pages(one)


def test_each_page_stands_in_the_navigation_once() -> None:
    named = list(pages(yaml.safe_load(CONFIGURATION)["nav"]))
    assert len(named) == len(set(named))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert there - set(named) == set(), "they stand in no section of mkdocs.yml"
    assert set(named) - there == set(), "mkdocs.yml names pages that are not there"


@pytest.mark.parametrize("lost", ["add.md", "fsck.md"])
def test_the_lists_of_commands_and_decisions_are_made(lost: str) -> None:
    made = runpy.run_path(str(DOCS / "make_navigation.py"))
    navigation = made["navigation"]
    page = (DOCS / "git-theta.md").read_text("utf-8")
    assert made["overview"](page) == page, "run: python docs/make_navigation.py"
    assert navigation(CONFIGURATION) == CONFIGURATION, "run: python docs/make_navigation.py"
    line = f"          - {lost.removesuffix('.md')}: commands/{lost}\n"
    assert line in CONFIGURATION
    assert navigation(CONFIGURATION.replace(line, "")) == CONFIGURATION


def test_the_site_asks_no_other_server() -> None:
    """Who reads a manual tells nobody: no letters, scripts or counters from elsewhere."""
    settings = yaml.safe_load(CONFIGURATION)
    assert settings["theme"]["font"] is False
    named = [*settings.get("extra_css", []), *settings.get("extra_javascript", [])]
    assert all((DOCS / one).is_file() for one in named)
    assert not {"repo_url", "analytics"} & {*settings, *settings["extra"]}
    for picture in DOCS.glob("pictures/*.svg"):
        text = picture.read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http" not in text, picture.name
        assert "<title>" in text, picture.name
