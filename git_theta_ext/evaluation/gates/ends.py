"""What a check compares, and whose rules count: never those of what is judged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import commit_of

_USUAL = ("main", "master")
_LOG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ends:
    """The commits of a check.

    Attributes:
        old: what the update is compared with: where it left its base, or the empty tree.
        new: the update.
        rules: the commit whose `.theta.toml` counts; None where there is none.
        label: what reports call `old`: `base`, `parent`, `good` (of a bisection).
    """

    old: str
    new: str
    rules: str | None
    label: str = "base"


def ends_of(repository: Repository, text: str | None) -> Ends:
    """What `git theta check [RANGE]` is about.

    `A...B` compares B with where it left A, `A..B` with A itself; the rules are those of A. A
    single revision, HEAD by default, is compared with where it left the default branch, one on the
    default branch with its parent; the first good commit while a bisection is under way.

    Raises:
        UsageError: a revision names no commit, or the default branch is not known.
    """
    dots = "..." if text and "..." in text else ".."
    if text and dots in text:
        one, _, other = text.partition(dots)
        tip, new = _commit(repository, one or "HEAD"), _commit(repository, other or "HEAD")
        return Ends(_left(repository, tip, new) if dots == "..." else tip, new, tip)
    new = _commit(repository, text or "HEAD")
    tip = default_branch(repository)
    good = first_good(repository)
    if good is not None:
        return Ends(good, new, tip, "good")
    old = _left(repository, tip, new)
    if old != new:
        return Ends(old, new, tip)
    parent = repository.resolve(f"{new}^1^{{commit}}")
    return Ends(parent or empty_tree(repository), new, parent, "parent")


def is_bisecting(repository: Repository) -> bool:
    """Whether a bisection is under way: then HEAD is a commit of Git's choice."""
    return (repository.git_dir / "BISECT_LOG").exists()


def first_good(repository: Repository) -> str | None:
    """The commit that was called good when the bisection that is under way began; else None."""
    try:
        terms = _read(repository.git_dir / "BISECT_TERMS").splitlines()
        log = _read(repository.git_dir / "BISECT_LOG").splitlines()
    except OSError:
        return None
    good = terms[1] if len(terms) > 1 else "good"
    for line in log:
        if line.startswith(f"# {good}: ["):
            return repository.resolve(line.partition("[")[2].partition("]")[0] + "^{commit}")
    return None


def default_branch(repository: Repository) -> str:
    """The tip of the default branch: that of `origin`, else the one that Git's settings name.

    Raises:
        UsageError: there is none of the usual names.
    """
    answer = repository.git("symbolic-ref", "-q", "refs/remotes/origin/HEAD", ok=(0, 1, 128))
    names = [repository.setting("init.defaultBranch"), *_USUAL]
    candidates = [os.fsdecode(answer).strip()]
    candidates += [f"refs/remotes/origin/{name}" for name in names if name]
    candidates += [f"refs/heads/{name}" for name in names if name]
    for ref in candidates:
        found = repository.resolve(f"{ref}^{{commit}}") if ref else None
        if found is not None:
            return found
    raise UsageError(
        "the default branch is not known here", hint="name it: git theta check BRANCH...HEAD"
    )


def empty_tree(repository: Repository) -> str:
    """The id of the tree without files, which is there in every repository."""
    return repository.git("hash-object", "-t", "tree", "--stdin", stdin=b"").decode().strip()


def _commit(repository: Repository, revision: str) -> str:
    return commit_of(repository, revision)


def _left(repository: Repository, base: str, head: str) -> str:
    """Where a commit left its base; the base where they have nothing in common.

    Raises:
        UsageError: the history ends before that.
    """
    answer = repository.git("merge-base", base, head, ok=(0, 1)).decode().split()
    if not answer and repository.git("rev-parse", "--is-shallow-repository") == b"true\n":
        raise UsageError(
            f"where {head[:10]} left {base[:10]} is not known: this clone has part of the history",
            hint="git fetch --unshallow",
        )
    return answer[0] if answer else base


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LOG_BYTES).decode("utf-8", "replace")
