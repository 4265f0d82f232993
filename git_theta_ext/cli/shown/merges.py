"""A merge commit shown by tensor, for `git theta show MERGE` and `git theta log -p`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from git_theta_ext.checkpoints.contents import Contents
from git_theta_ext.cli import parts
from git_theta_ext.comparison.combined import Combined, combine
from git_theta_ext.comparison.history import content_at
from git_theta_ext.comparison.report import combined as report
from git_theta_ext.core import patterns
from git_theta_ext.core.text import plural, printable, table, to_json
from git_theta_ext.git.repository import Repository

_DIGITS = 9
_FORMAT = "%an%x00%aI%x00%s"


def commit_named(repository: Repository, word: str) -> str | None:
    """The commit that a word names; None if it names none, or has a path."""
    if ":" in word:
        return None
    return repository.resolve(f"{word}^{{commit}}")


def parents_of(repository: Repository, commit: str) -> list[str]:
    """The parents of a commit, in order."""
    return os.fsdecode(repository.git("rev-parse", f"{commit}^@")).split()


def show(repository: Repository, commit: str, tensors: Sequence[str], *, as_json: bool) -> None:
    """Print what a merge made of every checkpoint that is not alike in all its sides.

    Args:
        repository: where it is.
        commit: the merge.
        tensors: names and patterns; all tensors if there are none.
        as_json: as JSON.
    """
    sides = parents_of(repository, commit)
    names = report.side_names(len(sides))
    contents = Contents(repository)
    paths = dict.fromkeys(
        path for one in (commit, *sides) for path in parts.checkpoints_of(repository, one)
    )
    found = [one for path in paths for one in combined(contents, commit, sides, path, tensors)]
    if as_json:
        files = [report.record(one, names) for one in found]
        called = [{"name": name, "commit": one} for name, one in zip(names, sides, strict=True)]
        print(to_json({"merge": commit, "sides": called, "files": files}))
        return
    heading, subject = _described(repository, commit)
    print(f"{heading}\n    {subject}")
    rows = zip(names, sides, strict=True)
    for line in table(
        [["   ", name, "  ".join(_described(repository, one))] for name, one in rows]
    ):
        print(line)
    for one in found:
        print()
        for line in report.lines(one, names):
            print(line)
    if not found:
        print(f"\nNo checkpoint differs between the merge and its {plural(len(sides), 'side')}.")


def combined(
    contents: Contents, commit: str, sides: Sequence[str], path: str, tensors: Sequence[str] = ()
) -> Iterator[Combined]:
    """What a merge made of one checkpoint; nothing where all sides are alike in what is asked for.

    Args:
        contents: of the repository.
        commit: the merge.
        sides: its parents.
        path: of the checkpoint.
        tensors: names and patterns of those that are asked for; all if there are none.
    """
    merge, *versions = (content_at(contents, one, path) for one in (commit, *sides))
    one = combine(path, merge, versions, contents.blocks)
    if one is None:
        return
    if tensors:
        names = set(patterns.select([fate.name for fate in one.fates if fate.tensor], tensors))
        one = replace(one, fates=tuple(fate for fate in one.fates if fate.name in names))
        if not one.fates:
            return
    yield one


def in_log(contents: Contents, commit: str, path: str, tensors: Sequence[str]) -> Iterator[str]:
    """The lines of `git theta log -p` on a merge; none on another commit.

    Args:
        contents: of the repository.
        commit: whichever.
        path: of the checkpoint.
        tensors: names and patterns of those that are asked for; all if there are none.
    """
    sides = parents_of(contents.repository, commit)
    if len(sides) < 2:
        return
    names = report.side_names(len(sides))
    called = (f"{name} {side[:_DIGITS]}" for name, side in zip(names, sides, strict=True))
    yield f"merge of {', '.join(called)}"
    for one in combined(contents, commit, sides, path, tensors):
        yield from report.lines(one, names)


def _described(repository: Repository, commit: str) -> tuple[str, str]:
    """A commit as `git theta log` begins it, and its subject."""
    answer = repository.git("show", "-s", "--no-show-signature", f"--format={_FORMAT}", commit)
    author, date, subject = os.fsdecode(answer).removesuffix("\n").split("\0")[:3]
    return f"{commit[:_DIGITS]}  {date[:10]}  {printable(author)}", printable(subject)
