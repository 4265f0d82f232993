"""Which checkpoints differ between revisions, the index and the work tree, and both their sides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext import sharded
from git_theta_ext.blocks import Blocks
from git_theta_ext.comparison.sides import Side, StoredSide, open_side
from git_theta_ext.errors import ManifestError, RepositoryError, UsageError
from git_theta_ext.manifest import HEAD_BYTES, Manifest, is_manifest
from git_theta_ext.names import natural_key
from git_theta_ext.repository import Repository
from git_theta_ext.worktree import WorkTree


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


OnDamage = Callable[[str, ManifestError], object]


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of `git diff --raw`: blobs of all zeros where there is none, or not yet."""

    path: str
    old: str
    new: str
    status: str


def changed_checkpoints(
    repository: Repository,
    revisions: Sequence[str],
    paths: Sequence[str],
    *,
    cached: bool = False,
    blocks: Blocks | None = None,
    on_damage: OnDamage | None = None,
) -> Iterator[Pair]:
    """The checkpoints that `git diff REVISIONS -- PATHS` lists, in its order.

    Files that are checkpoints on neither side are left out. Sides are opened one after the other.
    The shards of a model are one pair, unless one of them is asked for by its path.

    Args:
        repository: with a work tree, unless two revisions are given.
        revisions: none (index and work tree), one (it and the work tree), two, or `A..B`.
        paths: pathspecs, or indexes of shards; all files if there are none.
        cached: the index in place of the work tree.
        blocks: where values are read from; by default the repository's, which fetches them.
        on_damage: called with the path of a file that begins like a manifest and is none, which
            is then left out.

    Raises:
        UsageError: Git does not understand the revisions.
        ThetaError: a side cannot be read.
    """
    changes = _Changes(repository, revisions, cached, blocks, on_damage)
    named = {_from_top(repository, path) for path in paths}
    done: set[str] = set()
    apart: set[str] = set()
    for row in changes.rows([sharded.pattern_of(path) for path in paths]):
        model = sharded.model_of(row.path)
        if model is None or row.path in named or model in apart:
            pair = changes.pair(row)
        elif model in done:
            continue
        else:
            done.add(model)
            joined = changes.model(model)
            if joined is None:
                apart.add(model)
            pair = joined or changes.pair(row)
        if pair.old is not None or pair.new is not None:
            yield pair


def _from_top(repository: Repository, path: str) -> str:
    """A path as Git's listings have it."""
    top = repository.work_tree or repository.cwd
    return os.path.relpath(repository.cwd / path, top).replace(os.sep, "/")


class _Changes:
    """What differs between two trees, the index and the work tree."""

    def __init__(
        self,
        repository: Repository,
        revisions: Sequence[str],
        cached: bool,
        blocks: Blocks | None,
        on_damage: OnDamage | None,
    ) -> None:
        self._repository = repository
        self._revisions = revisions
        self._cached = cached
        self._blocks = blocks or Blocks.open(repository)
        self._on_damage = on_damage

    def rows(self, paths: Sequence[str]) -> Iterator[_Row]:
        """The files that differ."""
        flags = ["--cached"] if self._cached else []
        try:
            answer = self._repository.git(
                "diff", "--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", *flags,
                "--end-of-options", *self._revisions, "--", *paths,
            )  # fmt: skip
        except RepositoryError as error:
            raise UsageError(error.message) from error
        fields = iter(answer.split(b"\0"))
        for header in fields:
            if header:
                _, _, old, new, status = header.decode().lstrip(":").split()
                yield _Row(os.fsdecode(next(fields)), old, new, status)

    def pair(self, row: _Row) -> Pair:
        """Both versions of one file."""
        try:
            return self._pair(row)
        except ManifestError as error:
            if self._on_damage is None:
                raise
            self._on_damage(row.path, error)
            return Pair(row.path, None, None)

    def _pair(self, row: _Row) -> Pair:
        before = _stored(self._repository, self._blocks, row.old)
        after = _stored(self._repository, self._blocks, row.new)
        if after is None and not set(row.new) - {"0"} and row.status != "D":
            after = _in_work_tree(self._repository, self._blocks, row.path, before is not None)
        return Pair(row.path, before, after)

    def model(self, pattern: str) -> Pair | None:
        """Both versions of a model; None where one has the shards of several."""
        old: dict[str, Side] = {}
        new: dict[str, Side] = {}
        changed = set()
        for row in self.rows([sharded.pathspec_of(pattern)]):
            if sharded.model_of(row.path) == pattern:
                changed.add(row.path)
                pair = self.pair(row)
                if pair.old is not None:
                    old[row.path] = pair.old
                if pair.new is not None:
                    new[row.path] = pair.new
        if not changed:
            return None
        try:
            # Shards that are the same on both sides: without them it would not be the whole model.
            same = sharded.find(self._repository, self._same_in(), pattern)
            kept = [] if same is None else [item for item in same.shards if item[0] not in changed]
            for path, manifest in kept:
                old[path] = new[path] = StoredSide(manifest, self._blocks)
            for side in (old, new):
                sharded.check_one(side)
        except UsageError:
            return None
        return Pair(pattern, _joined(old), _joined(new))

    def _same_in(self) -> str:
        """A revision (empty: the index) that has all files which do not differ."""
        if not self._revisions:
            return "HEAD" if self._cached else ""
        return self._revisions[-1].rpartition("..")[2] or "HEAD"


def _joined(sides: dict[str, Side]) -> Side | None:
    shards = sorted(sides.items(), key=lambda item: natural_key(item[0]))
    return sharded.JoinedSide(shards) if shards else None


def _stored(repository: Repository, blocks: Blocks, oid: str) -> Side | None:
    if not set(oid) - {"0"}:
        return None
    data = repository.blob(oid)
    return StoredSide(Manifest.parse(data), blocks) if is_manifest(data[:HEAD_BYTES]) else None


def _in_work_tree(repository: Repository, blocks: Blocks, path: str, wanted: bool) -> Side | None:
    """The work-tree file, if it is a checkpoint of ours: by its attribute, or as it was before."""
    if not wanted and repository.attribute("filter", path) != "theta":
        return None
    if not WorkTree(repository.top).has_file(path):
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
