"""Merge several branches into HEAD at once: other files by Git, checkpoints by strategies.

Git's octopus merges one branch after the other, so that a strategy would see two sides at a time,
one of them merged already. Here each checkpoint is merged from all its versions, and the commit has
all branches as its parents. Nothing is written until everything is settled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.process import run_program
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import Row, commit_tree, file_mode_at, index_of, store_blob, write_tree
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.merge.branches import models
from git_theta_ext.merge.combine.apply import Merged
from git_theta_ext.merge.combine.several import merge_several
from git_theta_ext.merge.combine.statistics import statistics_of
from git_theta_ext.merge.decide.changed_on_both import Group, groups
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.policy import Policy
from git_theta_ext.objects.blocks import Blocks

_OLDEST = (2, 38)
"""`git merge-tree --write-tree` came with Git 2.38."""


@dataclass(frozen=True, slots=True)
class Branches:
    """The commits to merge, none an ancestor of another, and how the user called them.

    HEAD is the first, unless it is an ancestor of another; `base` is their common ancestor.
    """

    head: str
    base: str | None
    commits: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def find(cls, repository: Repository, others: Sequence[str]) -> Branches:
        """HEAD and other revisions, without those that others contain.

        Raises:
            UsageError: there is no such revision, or no commit yet.
        """
        named: dict[str, str] = {}
        for name in ("HEAD", *others):
            commit = repository.resolve(f"{name}^{{commit}}")
            if commit is None and name == "HEAD":
                raise UsageError("there is no commit here yet to merge into")
            if commit is None:
                raise UsageError(f"{name!r} is not a branch or commit here", hint="git branch -a")
            named.setdefault(commit, name)
        commits = list(named)
        answer = repository.git("merge-base", "--independent", *commits).decode().split()
        kept = [one for one in commits if one in answer]
        found = repository.git("merge-base", "--octopus", *kept, ok=(0, 1)).decode().split()
        base = found[0] if found else None
        return cls(commits[0], base, tuple(kept), tuple(named[one] for one in kept))

    @property
    def message(self) -> str:
        """What Git would say of such a merge."""
        names = [f"'{name}'" for name in self.names if name != "HEAD"]
        if len(names) == 1:
            return f"Merge branch {names[0]}"
        return f"Merge branches {', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True, slots=True)
class Result:
    """One checkpoint merged from all its versions."""

    group: Group
    merged: Merged


def colliding(repository: Repository, branches: Branches) -> list[Group]:
    """The checkpoints that several branches changed.

    Raises:
        UsageError: one of them is sharded differently in them.
    """
    for number, first in enumerate(branches.commits):
        for second in branches.commits[number + 1 :]:
            moved = models.resharded(repository, Heads(branches.base, first, second))
            if moved:
                raise UsageError(
                    f"tensors of {moved[0]} moved between shards, or a coupled group is in several",
                    hint="merge these branches one at a time: git theta merge BRANCH",
                )
    return list(groups(repository, branches.base, branches.commits))


def merge_group(
    repository: Repository, branches: Branches, group: Group, policy: Policy, blocks: Blocks
) -> Merged:
    """Merge one checkpoint from all its versions; errors as for `merge_several`.

    Args:
        repository: where measured statistics are looked for.
        branches: the commits that are merged.
        group: the checkpoint: its path, base and versions.
        policy: the strategy for each tensor, and the side whose skeleton wins.
        blocks: where its objects are, and the result's go.
    """
    commits = [branches.commits[number] for number in group.numbers]
    statistics = statistics_of(repository, group.path, commits, blocks)
    return merge_several(
        group.base, group.sides, blocks, policy.choose, prefer=policy.side, statistics=statistics
    )


def merge_branches(
    repository: Repository, branches: Branches, policy_of: Callable[[str], Policy], blocks: Blocks
) -> tuple[str, list[Result]]:
    """The tree of the merge, and what became of each checkpoint; it may not be whole.

    Args:
        repository: where the commits are; index and work tree are not touched.
        branches: the commits to merge.
        policy_of: the policy for a path, from the top of the work tree.
        blocks: where the objects are, and the results' go.

    Raises:
        UsageError: files that are not checkpoints collide, or this Git is too old.
        ThetaError: a checkpoint cannot be merged.
    """
    tree = _other_files(repository, branches)
    results = [
        Result(group, merge_group(repository, branches, group, policy_of(group.path), blocks))
        for group in colliding(repository, branches)
    ]
    if any(one.merged.open for one in results):
        return "", results
    rows = []
    for one in results:
        oid = store_blob(repository, manifest_bytes(one.merged.manifest))
        rows.append(Row(file_mode_at(repository, tree, one.group.path), oid, one.group.path))
    with index_of(repository, tree) as env:
        return write_tree(repository, rows, env), results


def _other_files(repository: Repository, branches: Branches) -> str:
    """The tree in which Git merges everything; of a checkpoint that collides, some version."""
    words = re.findall(r"\d+", repository.git("--version").decode())
    if tuple(int(word) for word in words[:2]) < _OLDEST:
        raise UsageError(
            "merging several branches at once needs Git 2.38 or newer",
            hint="merge them one at a time: git theta merge BRANCH",
        )
    current = branches.commits[0]
    tree = ""
    for name, commit in list(zip(branches.names, branches.commits, strict=True))[1:]:
        answer = repository.git(
            "-c", "merge.theta.driver=true", "merge-tree", "--write-tree", "--name-only",
            "--no-messages", "--allow-unrelated-histories", current, commit, ok=(0, 1),
        ).decode("utf-8", "surrogateescape")  # fmt: skip
        tree, *paths = answer.splitlines()
        if paths:
            raise UsageError(
                f"{paths[0]} collides when {name} is merged too; nothing was changed",
                hint=f"merge it by itself first: git theta merge {name}",
            )
        current = commit_tree(repository, tree, (current, commit), "together")
    return tree


def commit_merge(
    repository: Repository, branches: Branches, tree: str, message: str
) -> tuple[int, bytes, bytes]:
    """Make the merge commit and move HEAD and the work tree to it, as a fast-forward does.

    Args:
        repository: one with a work tree.
        branches: what was merged; its commits become the parents.
        tree: the id of the merged tree.
        message: of the commit.

    Returns:
        The exit status and what Git printed: it refuses where local changes would be lost.
    """
    commit = commit_tree(repository, tree, branches.commits, message)
    return run_program(["git", "merge", "--ff-only", commit], repository.cwd)


def stage_merge(
    repository: Repository, branches: Branches, tree: str, message: str
) -> tuple[int, bytes, bytes]:
    """Put the merge into index and work tree, and let `git commit` conclude it.

    Args:
        repository: one with a work tree.
        branches: what was merged; its commits become the parents.
        tree: the id of the merged tree.
        message: what `git commit` offers.

    Raises:
        StoreError: Git's folder cannot be written.
    """
    repository.git("update-index", "-q", "--refresh", ok=(0, 1))
    command = ["git", "read-tree", "-m", "-u", branches.head, tree]
    status, output, errors = run_program(command, repository.cwd)
    if status:
        return status, output, errors
    others = [one for one in branches.commits if one != branches.head]
    texts: Mapping[str, str] = {
        "MERGE_MODE": "",
        "MERGE_MSG": message + "\n",
        "MERGE_HEAD": "".join(f"{one}\n" for one in others),
    }
    for name, text in texts.items():
        path: Path = repository.git_dir / name
        try:
            files.replace_file(path, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return 0, output, errors


def fixed(choice: Choice) -> Policy:
    """The same strategy for every tensor."""
    return Policy(choice, (), "--strategy")
