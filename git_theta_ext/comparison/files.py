"""Which checkpoints differ between revisions, the index and the work tree, and both their sides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.blocks import Blocks
from git_theta_ext.comparison.sides import Side, StoredSide, open_side
from git_theta_ext.errors import RepositoryError, UsageError
from git_theta_ext.manifest import HEAD_BYTES, Manifest, is_manifest
from git_theta_ext.repository import Repository


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of one checkpoint; None where it was not there."""

    path: str
    old: Side | None
    new: Side | None

    def close(self) -> None:
        """Let go of the files that were opened."""
        for side in (self.old, self.new):
            if side is not None:
                side.close()


def changed_checkpoints(
    repository: Repository, revisions: Sequence[str], paths: Sequence[str], *, cached: bool = False
) -> Iterator[Pair]:
    """The checkpoints that `git diff REVISIONS -- PATHS` lists, in its order.

    Files that are checkpoints on neither side are left out. Sides are opened one after the other.

    Args:
        repository: with a work tree, unless two revisions are given.
        revisions: none (index and work tree), one (it and the work tree), two, or `A..B`.
        paths: pathspecs; all files if there are none.
        cached: the index in place of the work tree.

    Raises:
        UsageError: Git does not understand the revisions.
        ThetaError: a side cannot be read.
    """
    flags = ["--cached"] if cached else []
    try:
        answer = repository.git(
            "diff", "--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", *flags,
            *revisions, "--", *paths,
        )  # fmt: skip
    except RepositoryError as error:
        raise UsageError(error.message) from error
    blocks = Blocks.open(repository)
    fields = iter(answer.split(b"\0"))
    for header in fields:
        if not header:
            continue
        path = os.fsdecode(next(fields))
        _, _, old, new, status = header.decode().lstrip(":").split()
        before = _stored(repository, blocks, old)
        after = _stored(repository, blocks, new)
        if after is None and not set(new) - {"0"} and status != "D":
            after = _in_work_tree(repository, blocks, path, before is not None)
        if before is not None or after is not None:
            yield Pair(path, before, after)


def _stored(repository: Repository, blocks: Blocks, oid: str) -> Side | None:
    if not set(oid) - {"0"}:
        return None
    data = repository.blob(oid)
    return StoredSide(Manifest.parse(data), blocks) if is_manifest(data[:HEAD_BYTES]) else None


def _in_work_tree(repository: Repository, blocks: Blocks, path: str, wanted: bool) -> Side | None:
    """The work-tree file, if it is a checkpoint of ours: by its attribute, or as it was before."""
    if not wanted and repository.attribute("filter", path) != "theta":
        return None
    try:
        return open_side(repository.top / path, blocks)
    except OSError:
        return None


def two_files(old: Path, new: Path, blocks: Blocks | None) -> Pair:
    """Two files anywhere; checkpoints of any container, or manifests where `blocks` are known.

    Raises:
        UsageError: one cannot be read.
    """
    sides: list[Side | None] = []
    try:
        for path in (old, new):
            try:
                sides.append(open_side(path, blocks))
            except OSError as error:
                raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except BaseException:
        for side in sides:
            if side is not None:
                side.close()
        raise
    return Pair(str(new), sides[0], sides[1])
