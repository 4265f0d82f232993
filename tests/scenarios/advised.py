"""Commands taken out of what was printed, and run as a user runs them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.scenarios.repositories import Repo

_BEGINS = re.compile(
    r"(?:^|(?<=[\s(:]))((?:git(?! config[:.])|cp|rm|chmod|mv|python) .*|\S*python\S* -I -m pip .*)"
)
_ENDS = re.compile(
    r"\s{2,}| \((?!or --theirs)|\)$|, (?=then|or|and|git|to )|; (?!git )| (?:and|or) (?=git )"
    r"|, (?=or: )|   "
)


def advised(text: str) -> list[str]:
    """The commands that a text advises, one for each line that has one.

    They end with the line, at several blanks, or where a sentence goes on.
    """
    found = []
    for line in text.splitlines():
        # Not the name that begins our own messages, nor the text of an error.
        line = re.sub(r"^(git theta|git-theta): (error|warning): .*", "", line)
        match = _BEGINS.search(re.sub(r"^\s*hint: ", "", line))
        if match:
            found.append(_ENDS.split(match[1])[0].rstrip(" .;"))
    return found


def take(repo: Repo, *command: str, has: str = "", folder: str = ".") -> str:
    """Run what fails or warns, and return the one command that it advises with `has` in it."""
    done = repo.run(*at(folder, command), ok=tuple(range(129)))
    return only((done.stdout + done.stderr).decode("utf-8", "replace"), has)


def only(text: str, has: str = "") -> str:
    """The one command that a text advises with `has` in it."""
    found = [one for one in dict.fromkeys(advised(text)) if has in one]
    assert len(found) == 1, (found, text)
    return found[0]


def at(folder: str, command: tuple[str, ...]) -> tuple[str, ...]:
    """A command, to be run in a folder of the repository."""
    return ("sh", "-c", f'cd "{folder}" && exec "$@"', "sh", *command) if folder != "." else command


def do(
    repo: Repo,
    command: str,
    folder: str = ".",
    /,
    ok: tuple[int, ...] = (0,),
    **placeholders: str,
) -> str:
    """Run an advised command in a shell, with what a user puts in the place of words in capitals.

    Returns what it printed; fails the test where it fails.
    """
    for word, value in placeholders.items():
        assert re.search(rf"\b{word}\b", command), (word, command)
        command = re.sub(rf"\b{word}\b", lambda _, value=value: value, command)
    done = repo.run(*at(folder, ("sh", "-c", command)), ok=ok)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def clone(repo: Repo, place: Path, *options: str) -> Repo:
    """A clone of a repository, made without writing checkpoints."""
    repo.git("clone", "-q", "--no-checkout", *options, repo.path.as_uri(), str(place))
    return Repo(place)
