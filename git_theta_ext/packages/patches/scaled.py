"""An update made longer or shorter, and updates that stay what they are on another model.

A product of two factors that is added to other values is still that product, but a merge writes
down how it was merged. Here such a tensor is stored again as what is here and the factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values, from_floats, to_floats
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.merge.combine.apply import Merged
from git_theta_ext.merge.decide.decisions import entries_of, type_of
from git_theta_ext.objects.blocks import Blocks, sha256
from git_theta_ext.objects.packs import Packing
from git_theta_ext.packages.patches.fitting import Fitted
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.low_rank.factors import DTYPES, Factors, is_low_rank, read_factors
from git_theta_ext.updates.low_rank.prediction import predict
from git_theta_ext.updates.low_rank.update import LowRank
from git_theta_ext.updates.residual import SLICE

_KEPT = frozenset({"low-rank", "sparse"})
"""Kinds that an update has on any values, or nearly: what it adds to some it adds to others."""


_STEPS = {"F64": 2.0**-52, "F32": 2.0**-23, "BF16": 2.0**-7, "F16": 2.0**-10}
"""The distance of neighbours of 1, by dtype."""


def scale(fitted: Fitted, factor: float, blocks: Blocks) -> Fitted:
    """The update of a model times a number; what is no float stays as it is.

    Raises:
        ThetaError: a version cannot be read, or the store cannot be written.
    """
    if factor == 1.0:
        return fitted
    then, unfit, changed = entries_of(fitted.base), dict(fitted.unfit), []
    packing, entries = Packing(blocks), []
    with blocks.store.gathering():
        for entry in fitted.theirs.entries:
            name, before = entry.tensor.name, then.get(entry.tensor.name)
            if name not in fitted.changed or entry.tensor.dtype.kind != "float":
                entries.append(entry)
            elif before is None or type_of(before) != type_of(entry):
                unfit[name] = "a tensor that is new, or of another type, cannot be scaled"
                entries += [] if before is None else [before]
                continue
            else:
                entries.append(packing.take_entry(_scaled(before, entry, factor, packing)))
            if name in fitted.changed:
                changed.append(name)
        theirs = packing.packed(replace(fitted.theirs, entries=tuple(entries)))
        blocks.store.flush()
    return Fitted(fitted.base, theirs, tuple(changed), unfit)


def _scaled(before: Entry, after: Entry, factor: float, blocks: Blocks) -> Entry:
    made = []
    for (spec, old), new in zip(before.parts(), after.blocks, strict=True):
        if old.sha256 == new.sha256:
            made.append(old)
            continue
        base, values = blocks.read(spec, old), blocks.read(spec, new)
        result = base.copy()
        for start in range(0, len(base), SLICE):
            piece = slice(start, start + SLICE)
            result[piece] = _between(spec, base[piece], values[piece], factor)
        factors = _factors(spec, len(base), _last(old, new), factor, blocks)
        result, supplied = _by_factors(spec, base, result, factors, (base, values))
        made.append(blocks.write(spec, result, predecessor=old, supplied=supplied))
    return replace(after, blocks=tuple(made))


def _between(spec: BlockSpec, old: Values, new: Values, factor: float) -> Values:
    """old + factor · (new − old), rounded once; entries that did not change keep their bits."""
    with np.errstate(over="ignore", invalid="ignore"):
        first = to_floats(spec.dtype, old)
        moved = first + factor * (to_floats(spec.dtype, new) - first)
        result: Values = np.where(old != new, from_floats(spec.dtype, moved), old)
    return result


def _last(old: Block, new: Block) -> UpdateRef | None:
    """The update that makes a block of its predecessor, if it is a single one of a kept kind."""
    link = new.chain[-1] if new.chain else None
    if not isinstance(link, UpdateRef) or link.kind not in _KEPT or not old.chain:
        return None
    return link if new.chain[:-1] == old.chain else None


def _factors(
    spec: BlockSpec, count: int, link: UpdateRef | None, factor: float, blocks: Blocks
) -> Factors | None:
    """The factors of an update times a number; None of other kinds."""
    if link is None or link.kind != "low-rank" or spec.dtype.name not in DTYPES:
        return None
    file = blocks.parameters(link)
    try:
        factors = read_factors(file.settings, file.parts, count)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptObjectError(f"object {link.oid} is damaged: {error}") from error
    if factor != 1.0:
        factors = replace(factors, scaling=factors.scaling * factor)
    return factors if is_low_rank(spec, factors) else None


def _by_factors(
    spec: BlockSpec,
    base: Values,
    result: Values,
    factors: Factors | None,
    versions: tuple[Values, Values],
) -> tuple[Values, Encoded | None]:
    """What factors make of some values, and these as an update of them.

    The sum with the product itself is rounded once. The difference of two versions, which were
    rounded before, is as near to it as that allows, or the update is more than its factors: then
    the result stays, and what the factors miss is stored with them.

    Args:
        spec: what the block is.
        base: the values that the update is added to.
        result: those with the difference of the two versions added.
        factors: those of the update; None: it has none.
        versions: before and after the update, in whatever dtype has the block's.
    """
    if factors is None:
        return result, None
    sums = predict(spec.dtype, base.copy(), factors)
    if _near(spec, sums, result, versions):
        result = sums
    return result, LowRank().encode_factors(spec, result, base, factors)


def _near(spec: BlockSpec, sums: Values, result: Values, versions: Sequence[Values]) -> bool:
    """Whether two ways to add an update differ by no more than what is rounded on the way."""
    step = _STEPS.get(spec.dtype.name)
    if step is None:
        return False
    for start in range(0, len(sums), SLICE):
        piece = slice(start, start + SLICE)
        first, second, *others = (
            to_floats(spec.dtype, one[piece]) for one in (sums, result, *versions)
        )
        most = np.maximum(np.abs(first), np.abs(second))
        for one in others:
            most = np.maximum(most, np.abs(one))
        with np.errstate(invalid="ignore"):
            if not (np.abs(first - second) <= 2 * step * most).all():
                return False
    return True


def keep_kinds(merged: Merged, ours: Manifest, fitted: Fitted, blocks: Blocks) -> Merged:
    """Store what was added to other values as those and the update, where that is its kind.

    Args:
        merged: the result of the merge.
        ours: what was here.
        fitted: the versions that it was merged with.
        blocks: where all objects are, and new ones go.

    Raises:
        ThetaError: a version cannot be read, or the store cannot be written.
    """
    here, then, now = map(entries_of, (ours, fitted.base, fitted.theirs))
    added: dict[str, Callable[[Packing], Entry]] = {}
    for one in merged.outcomes:
        if one.entry is None or one.open or one.decision.choice.strategy != "reapply":
            continue
        versions = [table.get(one.name) for table in (here, then, now)]
        if one.decision.action == "merge" and all(versions):
            factor = float(dict(one.decision.choice.settings).get("lambda", 1.0))  # type: ignore[arg-type]
            mine, old, new = (entry for entry in versions if entry is not None)
            added[one.name] = _adding(one.entry, (mine, old, new), factor)
    if not added:
        return merged
    packing = Packing(blocks)
    with blocks.store.gathering():
        entries = [
            packing.take_entry(added[entry.tensor.name](packing))
            if entry.tensor.name in added
            else entry
            for entry in merged.manifest.entries
        ]
        manifest = packing.packed(replace(merged.manifest, entries=tuple(entries)))
        blocks.store.flush()
    return replace(merged, manifest=manifest)


def _adding(
    result: Entry, versions: tuple[Entry, Entry, Entry], factor: float
) -> Callable[[Packing], Entry]:
    return lambda packing: _added(result, versions, factor, packing)


def _added(
    result: Entry, versions: tuple[Entry, Entry, Entry], factor: float, blocks: Packing
) -> Entry:
    """A merged tensor as what is here and the update; block by block as it was, where it is not."""
    ours, before, after = versions
    same = type_of(ours) == type_of(before) == type_of(after)
    counts = {len(one.blocks) for one in (result, *versions)}
    if len(counts) != 1 or type_of(result) != type_of(ours):
        return result
    made: list[Block] = []
    rows: Iterable[tuple[tuple[BlockSpec, Block], Block, Block, Block]] = zip(
        result.parts(), ours.blocks, before.blocks, after.blocks, strict=True
    )
    for (spec, block), mine, old, new in rows:
        link = _last(old, new)
        if link is None or block.sha256 in (mine.sha256, new.sha256) or not mine.chain:
            made.append(block)
            continue
        values, base = blocks.read(spec, block), blocks.read(spec, mine)
        factors = _factors(spec, len(base), link, factor, blocks)
        both = (blocks.read(spec, old), blocks.read(spec, new)) if same else (values, base)
        values, supplied = _by_factors(spec, base, values, factors, both)
        written = blocks.write(
            spec, values, digest=sha256(values), predecessor=mine, supplied=supplied
        )
        kind = written.chain[-1].kind if written.chain else ""
        made.append(written if kind in _KEPT else block)
    return replace(result, blocks=tuple(made))
