"""Every `git theta …` of the documents is one that the verb's own parser knows."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache

import pytest

from git_theta_ext.cli.main import VERBS, parser_of
from tests.scenarios.suggestions import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
             *sorted((ROOT / "docs/commands").glob("*.md"))]  # fmt: skip
_LINE = re.compile(r"^ {4,}(?:\$ )?(?:\S+=\S+ )*git theta (.+)$", re.MULTILINE)
_INLINE = re.compile(r"`git theta ([^`\n]+)`")
_GRAMMAR = re.compile(r"[\[\]…]|\.\.\.|\||<")


@cache
def parser(verb: str) -> argparse.ArgumentParser:
    """The parser of a verb."""
    top = argparse.ArgumentParser(exit_on_error=False)
    subparsers = top.add_subparsers(dest="verb")
    importlib.import_module(f"git_theta_ext.cli.verbs.{VERBS[verb][0]}").add_parser(subparsers)
    return top


def options(verb: str) -> set[str]:
    """What a verb takes that begins with a dash."""
    return {*_options_of(parser_of(verb)[1]), "--help"}


def _options_of(one: argparse.ArgumentParser) -> set[str]:
    """Those of a parser and of its modes, such as `migrate import`."""
    modes = [a.choices.values() for a in one._actions if isinstance(a.choices, dict)]
    return set(one._option_string_actions).union(*(_options_of(m) for mode in modes for m in mode))


def commands(text: str) -> Iterator[str]:
    """The commands of a document, without the remarks that follow them."""
    for pattern in (_LINE, _INLINE):
        for match in pattern.finditer(text):
            # A second command of the line is git's own, or the shell's.
            yield re.split(r"\s#|\s&&|;\s|\s>\s", match[1])[0].strip()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_verbs_and_options_are_there(document: object) -> None:
    text = document.read_text("utf-8")  # type: ignore[attr-defined]
    for command in commands(text):
        verb, *words = command.split()
        if verb in ("VERB", "-h", "--help", "--version", "help", "…", "..."):
            continue
        assert verb in VERBS, command
        named = {re.split("[=\\]]", word.strip("[](),.'"))[0] for word in words}
        named = {word for word in named if re.fullmatch(r"--?[a-z][a-z-]*", word)}
        assert named <= options(verb), command


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_in_the_page_of_its_verb(verb: str) -> None:
    text = (ROOT / f"docs/commands/{verb}.md").read_text("utf-8")
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text, re.IGNORECASE))
    common = {"-h", "--help", "-q", "--quiet", "-v", "--verbose", "--json"}
    hidden = {name for action in parser_of(verb)[1]._actions
              if action.help == argparse.SUPPRESS for name in action.option_strings}  # fmt: skip
    assert options(verb) - common - hidden <= named


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_are_parsed(document: object) -> None:
    text = document.read_text("utf-8")  # type: ignore[attr-defined]
    for match in _LINE.finditer(text):
        command = re.split(r"\s#|\s&&|;\s|\s>\s", match[1])[0].strip()
        if _GRAMMAR.search(re.sub(r"(?<=\w)\.\.\.?(?=\w)", "", command.replace("'", ""))):
            continue  # a line of the synopsis: its options are looked at above
        words = shlex.split(command)
        if words[0] in VERBS:
            parser(words[0]).parse_args(words)


def test_it_does_catch_what_is_not_there() -> None:
    assert "--nope" not in options("diff")
    assert list(commands("    git theta diff --nope   # x\n")) == ["diff --nope"]
