"""Statistics for Fisher and RegMean, tracked beside a checkpoint on each side of a merge.

For `model.safetensors` they are the tensors, named as the model's, of `model.fisher.safetensors`
(the diagonal of the Fisher information, in the tensor's shape) and `model.gram.safetensors` (XᵀX of
a layer's inputs, in × in), in the commit that is merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.values import as_floats
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Entry, is_manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.merge.combine.merger import Statistics
from git_theta_ext.merge.combine.tensor import Reader
from git_theta_ext.merge.decide.plan import entries_of
from git_theta_ext.objects.blocks import Blocks

if TYPE_CHECKING:
    from git_theta_ext.merge.combine.apply import Outcome

_SIDES = ("ours", "theirs", "base")


def statistics_of(
    repository: Repository, path: str, revisions: Sequence[str | None], blocks: Blocks
) -> Statistics:
    """How to get the statistics of a checkpoint at `path` on each side.

    Args:
        repository: where the revisions are.
        path: of the checkpoint, from the top.
        revisions: the commits of ours and of theirs; None where one is not known.
        blocks: where the objects are.
    """

    @cache
    def entries(kind: str, revision: str) -> dict[str, Entry] | None:
        oid = repository.blob_at(revision, statistics_path(path, kind))
        data = b"" if oid is None else repository.blob(oid)
        return entries_of(parse_manifest(data)) if is_manifest(data) else None

    def find(kind: str, name: str) -> tuple[NDArray[Any] | None, ...] | None:
        sides = [entries(kind, one) if one else None for one in revisions]
        found = [side.get(name) for side in sides if side is not None]
        if len(found) != len(sides):
            return None
        return tuple(None if one is None else _array(one, blocks) for one in found)

    return find


def statistics_path(path: str, kind: str) -> str:
    """Where the statistics of a checkpoint stand: `model.fisher.safetensors` beside it."""
    place = PurePosixPath(path)
    return str(place.with_name(f"{place.stem}.{kind}.safetensors"))


def measured_strategies(
    repository: Repository, path: str, revisions: Sequence[str]
) -> tuple[str, ...]:
    """The strategies whose statistics stand beside a checkpoint in all of some commits."""
    kinds = {"regmean": "gram", "fisher": "fisher"}
    return tuple(
        name
        for name, kind in kinds.items()
        if all(repository.blob_at(one, statistics_path(path, kind)) for one in revisions)
    )


def unused_statistics(
    repository: Repository, path: str, revisions: Sequence[str | None], outcomes: Iterable[Outcome]
) -> str | None:
    """A sentence where statistics of all sides were at hand, and no strategy used them.

    Args:
        repository: where the revisions are.
        path: of the checkpoint, from the top.
        revisions: the commits that were merged.
        outcomes: what became of the tensors.

    Returns:
        None too where nothing collided, and where a side was chosen.
    """
    collided = {
        one.decision.choice.strategy
        for one in outcomes
        if one.measure is not None and one.measure.collided
    }
    commits = [one for one in revisions if one]
    if not collided.difference(_SIDES) or len(commits) < len(revisions):
        return None
    measured = measured_strategies(repository, path, commits)
    if not measured or collided.intersection(measured):
        return None
    sides = "both sides" if len(commits) == 2 else "all sides"
    return f"statistics of {sides} are at hand, and {' or '.join(measured)} would use them"


def _array(entry: Entry, blocks: Blocks) -> NDArray[Any] | None:
    tensor = entry.tensor
    reader = Reader(entry, tensor.dtype, blocks)
    floats = as_floats(tensor.dtype, reader.read(0, reader.count))
    if floats is None or tensor.order is not None:
        return None
    return np.asarray(floats).reshape(tensor.shape)
