"""The checkpoints that two branches both changed, found before anything is merged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.objects.store import reachable


@dataclass(frozen=True, slots=True)
class Pair:
    """One checkpoint in three versions: in the common ancestor, in HEAD and in the other branch.

    `renamed` is its path in the ancestor, if a side renamed it; `path` is the new one.
    """

    path: str
    base: Manifest | None
    ours: Manifest
    theirs: Manifest
    renamed: str = ""


def pairs(repository: Repository, heads: Heads) -> Iterator[Pair]:
    """Every checkpoint that both sides changed, to different contents, also under a new name."""
    for group in groups(repository, heads.base, (heads.ours, heads.theirs)):
        ours, theirs = group.sides
        yield Pair(group.path, group.base, ours, theirs, group.renamed)


@dataclass(frozen=True, slots=True)
class Group:
    """One checkpoint as several sides have it; those that lack it are left out.

    `path` is where it will stand, `renamed` where it stood in the ancestor, if elsewhere. `numbers`
    are those of the sides that have it.
    """

    path: str
    base: Manifest | None
    sides: tuple[Manifest, ...]
    numbers: tuple[int, ...]
    renamed: str = ""


def groups(repository: Repository, base: str | None, sides: Sequence[str]) -> Iterator[Group]:
    """Every checkpoint that two or more commits changed, to different contents, since an ancestor.

    Raises:
        ManifestError: a version of one is a damaged manifest.
    """
    old = dict(blobs_of(repository, base)) if base else {}
    trees = [dict(blobs_of(repository, one)) for one in sides]
    moves = [renames(repository, base, one) if base else {} for one in sides]
    found = []
    for path in _starts(old, trees, moves):
        ways = [move.get(path, path) for move in moves]
        versions = {n: tree[way] for n, (tree, way) in enumerate(zip(trees, ways, strict=True))
                    if way in tree}  # fmt: skip
        changed = {oid for oid in versions.values() if oid != old.get(path)}
        if len(changed) > 1:
            now = next((way for way in ways if way != path), path)
            found.append((now, path, old.get(path, ""), versions))
    oids = [oid for _, _, first, versions in found for oid in (first, *versions.values()) if oid]
    manifests = dict(reachable.manifests(repository, oids))
    for now, path, first, versions in sorted(found, key=lambda one: one[0]):
        whole = {n: _whole(manifests.get(oid), now) for n, oid in versions.items()}
        there = {n: one for n, one in whole.items() if one is not None}
        if len(there) == len(whole):
            base_version = _whole(manifests.get(first), now)
            renamed = path if path != now else ""
            yield Group(now, base_version, tuple(there.values()), tuple(there), renamed)


def _starts(
    old: Mapping[str, str], trees: Sequence[Mapping[str, str]], moves: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    """The ancestor's paths, and those that sides added, without the targets of renames."""
    targets = {path for move in moves for path in move.values()}
    added = {path for tree in trees for path in tree if path not in old} - targets
    yield from (*old, *sorted(added))


def renames(repository: Repository, base: str, side: str) -> dict[str, str]:
    """The files that stand elsewhere in a commit than in its ancestor, as Git finds them."""
    answer = repository.git(
        "diff-tree", "-r", "-z", "-M", "--diff-filter=R", "--name-status", base, side
    )
    fields = [os.fsdecode(field) for field in answer.split(b"\0")[:-1]]
    return dict(zip(fields[1::3], fields[2::3], strict=True))


def _whole(found: Manifest | ManifestError | None, path: str) -> Manifest | None:
    if isinstance(found, ManifestError):
        raise ManifestError(f"{path}: {found.message}", hint=found.hint)
    return found
