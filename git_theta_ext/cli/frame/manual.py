"""The manual: pages out of `docs/`, how an installed one is found, and how it is shown.

A wheel has the pages below `share/man`, where `man git-theta` and `git theta --help` find them if
the folder of the program is on PATH. `git theta VERB --help` does not depend on that: it finds the
page by the package's own list of files, or makes it of the documents of a checkout of the source.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from git_theta_ext.cli.frame import roff
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.core.version import VERSION
from git_theta_ext.git.process import find_program, run_in_terminal

OTHERS = {
    "git-theta.md": ("git-theta", 1),
    "manifest.md": ("git-theta-manifest", 5),
    "configuration.md": ("git-theta-configuration", 5),
    "theta-toml.md": ("theta.toml", 5),
    "exit-codes.md": ("git-theta-exit-codes", 7),
}
"""Documents, beside those of `commands/`, that are pages: name and section."""

TOPICS = {
    "manifest": "git-theta-manifest",
    "configuration": "git-theta-configuration",
    "config": "git-theta-configuration",
    ".theta.toml": "theta.toml",
    "theta.toml": "theta.toml",
    "exit-codes": "git-theta-exit-codes",
}
"""What else `git theta help` knows, beside the commands."""

_COMMON = """
## COMMON OPTIONS

`-h`, `--help`, `-q`, `-v`, `-n`, `--json` are those of all commands: [git-theta](../git-theta.md).
So are the exit codes 2, 10, 11, 130 and 141, and those of objects that cannot be read:
[exit codes](../exit-codes.md).
"""


def pages(docs: Path) -> Iterator[tuple[str, str]]:
    """Every page: its name with the section (`git-theta-log.1`), and its text.

    Args:
        docs: the folder of the documents.
    """
    for document, (name, section) in _documents(docs).items():
        yield f"{name}.{section}", _page(docs, document)


def show(name: str) -> bool:
    """Show a page, such as `git-theta-log`; False where there is none.

    On a terminal `man` shows it; elsewhere, and where there is no `man`, it is printed as text.
    """
    path = _installed(name)
    if path is not None and sys.stdout.isatty() and find_program("man") is not None:
        sys.stdout.flush()
        with suppress(RepositoryError):
            return run_in_terminal([str(path)], "man") == 0
    text = path.read_text("utf-8") if path is not None else _of_source(name)
    if text is None:
        return False
    print(roff.plain(text), end="")
    return True


def page_of(topic: str) -> str:
    """The name of the page about a verb, or another topic; without a topic, of the program."""
    return TOPICS.get(topic, f"git-theta-{topic}" if topic else "git-theta")


def _documents(docs: Path) -> dict[str, tuple[str, int]]:
    """The documents that are pages, by their paths below `docs`: name and section."""
    commands = sorted((docs / "commands").glob("*.md"))
    found = {f"commands/{one.name}": (f"git-theta-{one.stem}", 1) for one in commands}
    return found | {one: page for one, page in OTHERS.items() if (docs / one).is_file()}


def _page(docs: Path, document: str) -> str:
    """The page of one document."""
    documents = _documents(docs)
    text = (docs / document).read_text("utf-8")
    if document.startswith("commands/"):
        text += _COMMON
    others = [one.relative_to(docs).as_posix() for one in docs.rglob("*.md")]
    names = {one: f"docs/{one}" for one in others}
    names |= {one: f"{name}({section})" for one, (name, section) in documents.items()}
    here = posixpath.dirname(document) or "."
    links = {posixpath.relpath(one, here): name for one, name in names.items()}
    return roff.page(text, *documents[document], f"git-theta-ext {VERSION}", links)


def _of_source(name: str) -> str | None:
    """A page made of the documents beside the package, where it runs from a checkout."""
    top = Path(__file__).parents[3]
    if not (top / "pyproject.toml").is_file():
        return None
    documents = _documents(top / "docs")
    found = [one for one, page in documents.items() if page[0] == name]
    return _page(top / "docs", found[0]) if found else None


def _installed(name: str) -> Path | None:
    """The page that a wheel has put somewhere below `share/man`."""
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError, OSError):
        for file in metadata.files("git-theta-ext") or ():
            if file.parent.name.startswith("man") and file.name.rpartition(".")[0] == name:
                path = Path(str(file.locate())).resolve()
                return path if path.is_file() else None
    return None
