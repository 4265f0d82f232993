"""What a user may have meant by a name of a file that a revision has not."""

from __future__ import annotations

from git_theta_ext.core import advice
from git_theta_ext.core.text import near_name
from git_theta_ext.git.paths import from_here
from git_theta_ext.git.repository import Repository


def near_path(repository: Repository, revision: str, path: str) -> str | None:
    """The path in a revision, from the top, that is most like one that is not there."""
    entries = repository.tree(revision, recursive=True, ok=(0, 128))
    return near_name(path, [entry.path for entry in entries if entry.kind == "blob"])


def hint(repository: Repository, revision: str, path: str, otherwise: str | None) -> str | None:
    """Advice about a path that is not in a revision, named as it is typed in the user's folder.

    Args:
        repository: that of the revision.
        revision: in any spelling.
        path: from the top.
        otherwise: the advice where nothing there is like it.
    """
    near = near_path(repository, revision, path)
    if near is None:
        return otherwise
    return advice.with_name("did you mean: FILE", from_here(repository, near))
