"""Checkpoints on the branch that is checked out, as a user commits them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.git.patience import patiently
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation


def commit_paths(folder: Path, name: str, message: str) -> str | None:
    """Commit one checkpoint of a folder, and nothing else; its id, None if nothing changed.

    Those that were committed before and are gone from the folder go from the tree with it. Waits
    while another git has the index locked.

    Args:
        folder: in a work tree.
        name: of the checkpoint in it, a file or a folder.
        message: of the commit.

    Raises:
        RepositoryError: Git refuses.
        UsageError: there is no such checkpoint, Git ignores everything in it, or git-theta is not
            set up.
    """
    if not (folder / name).exists():
        raise UsageError(f"there is no checkpoint {name!r} in {str(folder)!r}")
    repository = Repository.discover(folder)
    installation.require(repository)
    repository.env = {"GIT_LITERAL_PATHSPECS": "1"}
    patiently(lambda: repository.git("add", "-A", "--", name))
    gone = _gone(repository)
    if not gone and not repository.git("diff", "--cached", "--name-only", "-z", "--", name):
        _require_seen(repository, folder / name)
        return None
    known = [name] if repository.git("ls-files", "-z", "--", name) else []
    patiently(
        lambda: repository.git(
            "commit", "--quiet", "-F", "-", "--", *known, *gone, stdin=message.encode()
        )
    )
    return repository.resolve("HEAD")


def _gone(repository: Repository) -> list[str]:
    """What stood in the folder and is not there any more; not what has only lost some files."""
    deleted = repository.git("ls-files", "-z", "--deleted", "--", ".")
    if not deleted:
        return []
    counts = [
        Counter(os.fsdecode(one).partition("/")[0] for one in answer.split(b"\0")[:-1])
        for answer in (deleted, repository.git("ls-files", "-z", "--", "."))
    ]
    return [one for one, count in counts[0].items() if count == counts[1][one]]


def _require_seen(repository: Repository, place: Path) -> None:
    """Nothing to commit is no success where Git does not look at the checkpoint at all."""
    if repository.git("ls-files", "-z", "--", place.name):
        return
    others = ("--others", "--ignored", "--exclude-standard")
    if repository.git("ls-files", "-z", *others, "--", place.name):
        raise UsageError(
            f"Git ignores all of {str(place)!r} (.gitignore)",
            hint="take its pattern out of .gitignore, train into another folder, or on a branch of "
            "the run's own (branch=)",
        )


def push_current(folder: Path, remote: str) -> None:
    """Push the branch that is checked out.

    Raises:
        RepositoryError: the checkpoint was committed, and Git could not push it.
    """
    try:
        Repository.discover(folder).git("push", "--quiet", "--", remote, "HEAD")
    except RepositoryError as error:
        raise RepositoryError(
            f"the checkpoint was committed and not pushed to {remote}: {error.message}"
        ) from error
