"""Three-way merging of manifests: decided tensor by tensor, then entry by entry where needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from git_theta_ext.blocks import Blocks
from git_theta_ext.checkout import entry_specs
from git_theta_ext.manifest import Block, Entry, Manifest
from git_theta_ext.names import natural_key
from git_theta_ext.parallel import ordered_map
from git_theta_ext.tensors import BlockSpec
from git_theta_ext.updates.base import Values

STRUCTURE = "structure (header or pickle)"
"""How a conflict outside the tensors is named."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The result: a manifest that is always whole, and what is open in it (ours stands there)."""

    manifest: Manifest
    conflicts: tuple[str, ...]


def merge(base: Manifest | None, ours: Manifest, theirs: Manifest, blocks: Blocks) -> Merged:
    """Merge two versions of a checkpoint that came from `base`.

    A tensor changed on one side is taken from it; one changed on both is merged entry by entry,
    by its bits. Where the structure of the file differs (tensors added, a pickle with a step
    counter), the side that changed it gives it; if both did, differently, that is a conflict.
    """
    if base is not None and ours == base:
        return Merged(theirs, ())
    if ours == theirs or (base is not None and theirs == base):
        return Merged(ours, ())
    structure = _pick(
        base.skeleton.sha256 if base else None, ours.skeleton.sha256, theirs.skeleton.sha256
    )
    if structure is None or base is None or ours.format != theirs.format:
        return Merged(ours, (STRUCTURE,))
    shape, other = (ours, theirs) if structure == "ours" else (theirs, ours)
    return _merge_into(shape, base, ours, theirs, other, blocks)


def _merge_into(  # noqa: PLR0917
    shape: Manifest,
    base: Manifest,
    ours: Manifest,
    theirs: Manifest,
    other: Manifest,
    blocks: Blocks,
) -> Merged:
    """Merge into the side whose structure stands: its tensors, in its dtypes and shapes."""
    old, mine, yours = _entries(base), _entries(ours), _entries(theirs)
    kept = _entries(shape)
    unlike = [
        name
        for name in {*kept, *_entries(other)}
        if _type(kept.get(name)) != _type(_entries(other).get(name))
        and _type(_entries(other).get(name)) != _type(old.get(name))
    ]
    if unlike:
        return Merged(ours, (STRUCTURE, *sorted(unlike, key=natural_key)))
    entries, conflicts = [], []
    for name, entry in kept.items():
        merged = _merge_entry(old.get(name), mine.get(name), yours.get(name), entry, blocks)
        if merged is None:
            conflicts.append(name)
        entries.append(merged or mine.get(name) or entry)
    if any(_type(entry) != _type(kept[entry.tensor.name]) for entry in entries):
        return Merged(ours, tuple(conflicts))
    for name in old:
        # Removed by the structure's side, changed by the other.
        if name not in kept and name in _entries(other) and _entries(other)[name] != old[name]:
            return Merged(ours, (*conflicts, name))
    blocks.store.flush()
    return Merged(Manifest(shape.format, shape.skeleton, tuple(entries)), tuple(conflicts))


def _pick(base: str | None, ours: str, theirs: str) -> str | None:
    """The side that changed something, `ours` if neither or both alike; None if both differ."""
    if theirs in (base, ours):
        return "ours"
    return "theirs" if ours == base else None


def _entries(manifest: Manifest) -> dict[str, Entry]:
    return {entry.tensor.name: entry for entry in manifest.entries}


def _type(entry: Entry | None) -> object:
    if entry is None:
        return None
    return entry.tensor.dtype, entry.tensor.shape, entry.tensor.order, entry.opaque


def _content(entry: Entry) -> tuple[object, ...]:
    return (_type(entry), *(block.sha256 for block in entry.blocks))


def _merge_entry(
    old: Entry | None, mine: Entry | None, yours: Entry | None, entry: Entry, blocks: Blocks
) -> Entry | None:
    """The merged tensor, or None for a conflict."""
    if mine is None or yours is None:
        present = mine or yours or entry
        return present if old is None or _content(present) == _content(old) else None
    if _content(mine) == _content(yours) or (old and _content(yours) == _content(old)):
        return mine
    if old is not None and _content(mine) == _content(old):
        return yours
    if old is None or not _type(old) == _type(mine) == _type(yours) or entry.opaque:
        return None
    triples = zip(entry_specs(mine), old.blocks, mine.blocks, yours.blocks, strict=True)
    merged = list(
        ordered_map(lambda item: _merge_block(*item, blocks), triples, lambda i: 3 * i[0].nbytes)
    )
    found = [block for block in merged if block is not None]
    return Entry(mine.tensor, tuple(found)) if len(found) == len(merged) else None


def _merge_block(
    spec: BlockSpec, old: Block, mine: Block, yours: Block, blocks: Blocks
) -> Block | None:
    if yours.sha256 in (old.sha256, mine.sha256):
        return mine
    if mine.sha256 == old.sha256:
        return yours
    values = merge_values(blocks.read(spec, old), blocks.read(spec, mine), blocks.read(spec, yours))
    return None if values is None else blocks.write(spec, values, reference=mine)


def merge_values(old: Values, mine: Values, yours: Values) -> Values | None:
    """Entry by entry, the side that changed it, by its bits; None if both did, to other bits."""
    ours_moved, theirs_moved = mine != old, yours != old
    if np.any(ours_moved & theirs_moved & (mine != yours)):
        return None
    return np.where(theirs_moved, yours, mine)


def conflict_lines(path: str, conflicts: Iterable[str], limit: int = 20) -> list[str]:
    """What to tell the user of a merge that is not clean, in Git's manner."""
    names = list(conflicts)
    lines = [f"CONFLICT (content): Merge conflict in {path}: both sides changed"]
    lines += [f"    {name}" for name in names[:limit]]
    if len(names) > limit:
        lines.append(f"    … and {len(names) - limit} more")
    lines.append("  ours stands there for now; take a side and add the file:")
    lines.append("    git checkout --ours|--theirs -- FILE  &&  git add FILE")
    return lines
