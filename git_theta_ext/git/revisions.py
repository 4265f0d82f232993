"""What a revision names, and what to say where it names nothing."""

from __future__ import annotations

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository

LISTED = "git branch -a"


def commit_of(repository: Repository, revision: str, *, hint: str = LISTED) -> str:
    """The full id of the commit that a revision names.

    Args:
        repository: where it is looked for.
        revision: in any spelling, as the user typed it.
        hint: what to type where there is none.

    Raises:
        UsageError: it names no commit here.
    """
    found = repository.resolve(f"{revision}^{{commit}}")
    if found is None:
        raise unknown(repository, revision, hint=hint)
    return found


def unknown(repository: Repository, revision: str, *, hint: str = LISTED) -> UsageError:
    """The error about a revision that names nothing: it may be that no commit was made yet."""
    if revision.startswith(("HEAD", "@")) and repository.resolve("HEAD") is None:
        return UsageError("there is no commit here yet")
    return UsageError(f"there is no revision {printable(revision)!r} here", hint=hint)
