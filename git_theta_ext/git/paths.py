"""Paths as users type them, and as Git keeps them."""

from __future__ import annotations

import os

from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository


def from_top(repository: Repository, name: str) -> str:
    """A path as the user typed it, from the top of the work tree, with slashes.

    Raises:
        UsageError: it lies outside the work tree.
    """
    top = os.path.realpath(repository.top)
    folder, last = os.path.split(os.path.join(os.path.realpath(repository.cwd), name))
    found = os.path.relpath(os.path.join(os.path.realpath(folder), last), top)
    if found.startswith(".."):
        raise UsageError(f"{name} is outside the work tree {top}")
    return found.replace(os.sep, "/")


def from_here(repository: Repository, path: str) -> str:
    """A path from the top of the work tree as one types it in the folder of the command."""
    if repository.work_tree is None:
        return path
    top = os.path.realpath(repository.top)
    return os.path.relpath(os.path.join(top, path), os.path.realpath(repository.cwd)).replace(
        os.sep, "/"
    )


def add_options(repository: Repository) -> str:
    """What `git add` is told before its paths: a sparse checkout refuses those outside of it."""
    return "--sparse " if repository.flag("core.sparseCheckout") else ""


def advise(repository: Repository, text: str, path: str, placeholder: str = "FILE") -> str:
    """`advice.with_name` of a path from the top of the work tree.

    Args:
        repository: one with a work tree.
        text: the advice.
        path: from the top of the work tree, with slashes.
        placeholder: the word of `text` that the path replaces.
    """
    return advice.with_name(text, from_here(repository, path), placeholder)


def version_typed(repository: Repository, name: str) -> str:
    """`[REV:]FILE` as the user typed it, as `REV:PATH` with the path from the top.

    A FILE alone is one of HEAD, from the folder that the user stands in; where there is none, one
    from the top. With a revision Git's own rule holds: from the top, unless it begins with a dot.
    """
    revision, colon, path = name.partition(":")
    if not colon:
        revision, path = "HEAD", name
    if repository.work_tree is None or (colon and not path.startswith(("./", "../"))):
        return f"{revision}:{path}"
    try:
        here = from_top(repository, path)
    except UsageError:
        return f"{revision}:{path}"
    missing = repository.resolve(f"{revision}:{here}") is None
    if missing and repository.resolve(f"{revision}:{path}") is not None:
        return f"{revision}:{path}"
    return f"{revision}:{here}"


def where_git_was_started(path: str) -> str:
    """A path from the top as one types it there: Git runs drivers at the top, and tells them."""
    prefix = os.environ.get("GIT_PREFIX", "")
    return os.path.relpath(path, prefix or ".").replace(os.sep, "/") if prefix else path
