"""What a comparison is of: two commits, with what helps to recognise them."""

from __future__ import annotations

from dataclasses import dataclass

from git_theta_ext.errors import RepositoryError
from git_theta_ext.repository import Repository


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
