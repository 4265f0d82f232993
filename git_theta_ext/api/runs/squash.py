"""A run's history without what its policy let go, so that a prune can free it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from git_theta_ext.api.runs import messages
from git_theta_ext.api.runs.side_tree import SideTree, is_in
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import Row, index_of, write_tree


def squash(tree: SideTree, folder: str, kept: Collection[str]) -> bool:
    """Rewrite the newest commits of a run so that they hold kept checkpoints only.

    Only commits that this run made, from the tip down to the first one that is another's or that
    any other ref or work tree has, a remote's among them: what was published stays as it is.
    Messages, authors and dates stay. The entries of the reflog that nothing names any more go.

    Args:
        tree: of the run's branch.
        folder: of the run, from the top.
        kept: paths of the checkpoints that stay.

    Returns:
        Whether anything was rewritten.

    Raises:
        RepositoryError: Git fails, or somebody else moved the branch; it is as it was then.
    """
    repository = tree.repository
    tip = repository.resolve("HEAD") or ""
    own = _own(repository, tree.ref, folder)
    if all(path in kept for _, path in own):
        return False
    parent = repository.resolve(f"{own[0][0]}^") or ""
    dropped = {path for _, path in own} - set(kept)
    changed = False
    for at, (commit, path) in enumerate(own):
        changed |= path not in kept
        if path in kept:
            before = [one for _, one in own[:at] if one in dropped]
            parent = _copied(repository, commit, parent, before) if changed else commit
    same = repository.resolve(f"{parent}^{{tree}}") == repository.resolve(f"{tip}^{{tree}}")
    if not same:  # somebody else's change is in there
        return False
    tree.move(parent, tip, "squash the run")
    repository.git("reflog", "expire", "--expire-unreachable=now", "HEAD", tree.ref)
    return True


def _own(repository: Repository, ref: str, folder: str) -> list[tuple[str, str]]:
    """The newest commits that only this branch has and that the run made, the oldest first."""
    others, place = [], ""
    for line in lines_of(repository.git("worktree", "list", "--porcelain")):
        if line.startswith("worktree "):
            place = line.removeprefix("worktree ")
        elif line.startswith("HEAD ") and set(line[5:]) != {"0"}:
            others += [] if _same(place, repository.top) else [line[5:]]
    answer = repository.git(
        "rev-list", "--first-parent", "--parents", "HEAD", "--not", f"--exclude={ref}",
        "--glob=refs/*", *others,
    )  # fmt: skip
    found = []
    for line in lines_of(answer):
        commit, *parents = line.split()
        message = repository.git("log", "-1", "--format=%B", commit)
        saved = messages.read(message.decode("utf-8", "replace"))
        if saved is None or len(parents) != 1 or not is_in(saved.path, [folder]):
            break
        found.append((commit, saved.path))
    return found[::-1]


def _same(one: str, other: Path) -> bool:
    """Whether two folders are one; a work tree may be gone without Git's knowing."""
    return os.path.realpath(one) == os.path.realpath(other)


def _copied(repository: Repository, commit: str, parent: str, dropped: Sequence[str]) -> str:
    """The id of a commit as another one, on another parent and without some checkpoints."""
    with index_of(repository, commit) as env:
        listed = repository.git("ls-files", "-z", env=env).decode("utf-8", "surrogateescape")
        gone = [one for one in listed.split("\0")[:-1] if is_in(one, dropped)]
        made = write_tree(repository, [Row("0", "0" * len(commit), one) for one in gone], env)
    wanted = "%an%x00%ae%x00%ad%x00%cn%x00%ce%x00%cd%x00%B"
    fields = repository.git("log", "-1", "--date=raw", f"--format={wanted}", commit)
    *people, message = fields.split(b"\0", 6)
    names = ("AUTHOR_NAME", "AUTHOR_EMAIL", "AUTHOR_DATE",
             "COMMITTER_NAME", "COMMITTER_EMAIL", "COMMITTER_DATE")  # fmt: skip
    env = {
        f"GIT_{n}": one.decode("utf-8", "surrogateescape")
        for n, one in zip(names, people, strict=True)
    }
    answer = repository.git(
        "commit-tree", made, "-p", parent, "-F", "-", stdin=message.rstrip(b"\n") + b"\n", env=env
    )
    return answer.decode().strip()
