"""What a merge made of each tensor: as one side has it, or of its own. From manifests alone.

As Git's combined diff, over tensors in place of lines; but what is as in one side is told, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta_ext.checkpoints.contents import Content
from git_theta_ext.checkpoints.shards import names_model
from git_theta_ext.checkpoints.versions import StoredSide
from git_theta_ext.comparison.compare import Change, Comparison, compare
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.manifest.model import Entry, Recipe
from git_theta_ext.objects.blocks import Blocks

STRUCTURE = "(structure of the file)"
"""Stands in place of a name for all bytes that are no tensor's; such a fate has no tensor."""


@dataclass(frozen=True, slots=True)
class Fate:
    """One tensor that is not in all sides as in the merge.

    `like` are the numbers of the sides that have it as the merge does, from 0; empty where it is
    of the merge's own. `gone` says that the merge does not have it. Of its own, `kind` and
    `remarks` are those of the update or recipe that makes it, where all its blocks agree.
    """

    name: str
    tensor: TensorInfo | None
    like: tuple[int, ...]
    gone: bool = False
    kind: str | None = None
    remarks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Combined:
    """A checkpoint in a merge.

    `whole` are the sides whose file is the merge's to the byte. `unread` says why nothing could be
    compared, where a version is not on this machine; else it is empty. `tensors` counts those of
    the merge.
    """

    path: str
    fates: tuple[Fate, ...]
    tensors: int
    whole: tuple[int, ...] = ()
    unread: str = ""


def combine(
    path: str, merge: Content | None, sides: Sequence[Content | None], blocks: Blocks
) -> Combined | None:
    """What a merge made of a checkpoint; None where all sides are the same to the byte.

    Args:
        path: of the checkpoint.
        merge: its version in the merge; None where it is not there.
        sides: those in the parents of the merge, in order.
        blocks: the store; nothing is read from it.
    """
    whole = tuple(at for at, side in enumerate(sides) if _oid(side) == _oid(merge))
    if len(whole) == len(sides):
        return None
    for content in (merge, *sides):
        if content is not None and content.manifest is None:
            return Combined(path, (), 0, whole, content.words)
    found = [_comparison(side, merge, blocks) for side in sides]
    if not any(one.changes or one.structure_changed for one in found) and names_model(path):
        return None
    manifest = None if merge is None else merge.manifest
    entries = {} if manifest is None else manifest.by_name()
    return Combined(path, tuple(_fates(found, entries)), len(entries), whole)


def _fates(found: Sequence[Comparison], entries: dict[str, Entry]) -> list[Fate]:
    """The fate of each tensor that differs from some side, in order of names; then the rest."""
    changed = [{change.name: change for change in one.changes} for one in found]
    names = sorted({name for one in changed for name in one}, key=natural_key)
    fates = [_fate(name, [one.get(name) for one in changed], entries.get(name)) for name in names]
    like = tuple(at for at, one in enumerate(found) if not one.structure_changed)
    if len(like) < len(found):
        fates.append(Fate(STRUCTURE, None, like))
    return fates


def _fate(name: str, changes: Sequence[Change | None], entry: Entry | None) -> Fate:
    """`changes`: what the merge changed of each side; None where nothing."""
    like = tuple(at for at, change in enumerate(changes) if change is None)
    one = next(change for change in changes if change is not None)
    tensor = one.new or one.old
    if like or entry is None:
        return Fate(name, tensor, like, gone=entry is None)
    recipes = {block.chain[0] for block in entry.blocks if block.chain}
    recipe = recipes.pop() if len(recipes) == 1 else None
    if isinstance(recipe, Recipe):
        made = (("by", recipe.strategy), ("recipe", str(recipe.number)), *recipe.settings)
        return Fate(name, tensor, like, kind=recipe.kind, remarks=made)
    return Fate(name, tensor, like, kind=one.kind, remarks=one.info)


def _comparison(old: Content | None, new: Content | None, blocks: Blocks) -> Comparison:
    return compare(_side(old, blocks), _side(new, blocks), measured=False)


def _side(content: Content | None, blocks: Blocks) -> StoredSide | None:
    manifest = None if content is None else content.manifest
    return None if manifest is None else StoredSide(manifest, blocks)


def _oid(content: Content | None) -> str | None:
    return None if content is None else content.oid
