"""What is wrong with staged checkpoints, for `git theta check-files` and the hook of pre-commit.

The index is looked at, never the work tree: what is staged is what is committed. Only tensors that
differ from HEAD are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from git_theta_ext import formats
from git_theta_ext.checkpoints.summary import summarise
from git_theta_ext.checkpoints.versions import Side
from git_theta_ext.cli.about_files.pathspecs import empty_tree
from git_theta_ext.comparison.compare import Comparison
from git_theta_ext.comparison.files import changed_checkpoints
from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.text import printable, size
from git_theta_ext.core.values import as_floats
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.source import BytesSource
from git_theta_ext.git.repository import IndexEntry, Repository, literal
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer.pointer_files import lfs_sizes

SMALL_BYTES = 100_000
"""A checkpoint that is not tracked is left alone up to this size, such as one that tests read."""
_LOOKED_AT_BYTES = 1 << 30
"""A larger file of another name is not read to see whether it is a checkpoint."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused, in bytes: larger files, larger additions to the store (None: no limit)."""

    file: int | None = None
    added: int | None = None
    small: int = SMALL_BYTES
    not_finite: bool = False
    """Whether NaN and infinite values may come."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a staged file is refused. `kind` is a word for programs."""

    path: str
    kind: str
    message: str


def problems(
    repository: Repository, entries: Sequence[IndexEntry], limits: Limits
) -> Iterator[Problem]:
    """What is wrong with some files of the index, in their order; nothing of other files.

    Args:
        repository: one with a work tree.
        entries: of the index, those in conflict left out.
        limits: what is refused.

    Raises:
        ThetaError: a version cannot be read.
    """
    files = [entry for entry in entries if entry.mode.startswith("100")]
    blocks = Blocks.open(repository)
    found = dict(reachable.manifests(repository, [entry.oid for entry in files]))
    filters = repository.attributes("filter", [entry.path for entry in files])
    pointers = lfs_sizes(repository, [entry.oid for entry in files])
    sizes = repository.blob_sizes([entry.oid for entry in files])
    stored: list[str] = []
    for entry in files:
        manifest = found.get(entry.oid)
        if isinstance(manifest, ManifestError):
            yield Problem(entry.path, "damaged", f"is no manifest: {manifest.message}")
        elif manifest is not None:
            stored.append(entry.path)
            yield from _of_manifest(entry.path, manifest, blocks, limits)
        elif entry.oid not in pointers and sizes.get(entry.oid, 0):
            is_tracked = filters.get(entry.path) == "theta"
            yield from _of_whole(repository, entry, sizes[entry.oid], limits, tracked=is_tracked)
    yield from _of_changes(repository, stored, limits)


def _of_manifest(
    path: str, manifest: Manifest, blocks: Blocks, limits: Limits
) -> Iterator[Problem]:
    """What the manifest alone says: a file that is not what it is called, or too large."""
    if manifest.format == opaque.NAME and formats.promises(path):
        promised = formats.expected_format(path, manifest.format)
        yield Problem(
            path, "truncated", f"is not a whole {promised} file: it was cut short, or is damaged"
        )
    length = summarise(manifest, blocks).raw
    if limits.file is not None and length > limits.file:
        yield Problem(path, "oversized", f"has {size(length)}, more than {size(limits.file)}")


def _of_whole(
    repository: Repository, entry: IndexEntry, length: int, limits: Limits, *, tracked: bool
) -> Iterator[Problem]:
    """Whether a file that Git itself stores is a checkpoint, by its name or its first bytes."""
    if not tracked and length <= limits.small:
        return
    if tracked:
        yield Problem(entry.path, "raw", "is tracked, and was staged whole, without git-theta")
    elif formats.promises(entry.path) or _begins_as_checkpoint(repository, entry, length):
        yield Problem(
            entry.path, "untracked", f"is a checkpoint of {size(length)} that is not tracked"
        )


def _begins_as_checkpoint(repository: Repository, entry: IndexEntry, length: int) -> bool:
    """Whether a large blob is of a container; one that is too large to look at is not asked."""
    if length > _LOOKED_AT_BYTES:
        return False
    return formats.sniff(BytesSource(repository.blob(entry.oid))) != opaque.NAME


def _of_changes(repository: Repository, paths: Sequence[str], limits: Limits) -> Iterator[Problem]:
    """What the changed tensors say: values that are no numbers, and what they add to the store."""
    if not paths or (limits.not_finite and limits.added is None):
        return
    base = "HEAD" if repository.resolve("HEAD") else empty_tree(repository)
    pairs = changed_checkpoints(repository, [base], [literal(one) for one in paths], cached=True)
    for pair in pairs:
        with closing(pair):
            if pair.new is None:
                continue
            comparison = pair.compare(measured=not limits.not_finite)
            bad = {} if limits.not_finite else dict(_not_finite(comparison, pair.new))
        if bad:
            names = ", ".join(printable(name) for name in list(bad)[:_NAMED])
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            text = f"has new NaN or infinite values, {sum(bad.values()):,} in {names}{more}"
            yield Problem(pair.path, "not finite", text)
        if limits.added is not None and comparison.stored > limits.added:
            text = f"adds {size(comparison.stored)} to the store, more than {size(limits.added)}"
            yield Problem(pair.path, "oversized", text)


def _not_finite(comparison: Comparison, side: Side) -> Iterator[tuple[str, int]]:
    """The changed tensors with values that are no numbers and were some, or are new; how many."""
    entries = side.manifest.by_name()
    for change in comparison.changes:
        count = 0
        if change.measure is not None:
            count = change.measure.not_finite
        elif change.old is None and change.name in entries:
            count = _in_tensor(side, entries[change.name])
        if count:
            yield change.name, count


def _in_tensor(side: Side, entry: Entry) -> int:
    """How many values of a tensor are NaN or infinite, read block by block."""
    found = 0
    for at, (spec, block) in enumerate(entry.parts()):
        floats = as_floats(spec.dtype, side.read(spec, (entry.tensor.name, at), block))
        found += 0 if floats is None else int(np.count_nonzero(~np.isfinite(floats)))
    return found
