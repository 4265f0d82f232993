"""What a comparison is of: two commits, with what helps to recognise them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git.repository import Repository


@dataclass(frozen=True, slots=True)
class Version:
    """A commit: its object id, the first line of its message, its author's name, and its date."""

    oid: str
    subject: str
    author: str
    date: str


def version_of(repository: Repository, revision: str) -> Version | None:
    """The commit that a revision names; None where it names none (a tree, nothing)."""
    oid = repository.resolve(f"{revision}^{{commit}}")
    if oid is None:
        return None
    try:
        answer = repository.git(
            "log", "-1", "--no-show-signature", "--format=%s%x00%an%x00%cs", oid, "--"
        )
    except RepositoryError:
        return None
    subject, author, date = answer.decode("utf-8", "replace").rstrip("\n").split("\0")
    return Version(oid, subject, author, date)


def between(repository: Repository, revisions: Sequence[str]) -> tuple[Version, Version] | None:
    """The two commits that `git diff REVISIONS` compares; None where it compares something else."""
    words = list(revisions)
    if len(words) == 1 and "..." in words[0]:
        one, _, other = words[0].partition("...")
        words = [one or "HEAD", other or "HEAD"]
        ends = [repository.resolve(f"{word}^{{commit}}") for word in words]
        if ends[0] is None or ends[1] is None:
            return None
        answer = repository.git("merge-base", ends[0], ends[1], ok=(0, 1)).decode().split()
        words = [*answer[:1], ends[1]]
    elif len(words) == 1 and ".." in words[0]:
        one, _, other = words[0].partition("..")
        words = [one or "HEAD", other or "HEAD"]
    if len(words) != 2:
        return None
    old, new = version_of(repository, words[0]), version_of(repository, words[1])
    return None if old is None or new is None else (old, new)
