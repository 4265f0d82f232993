"""Singular values of what changed in a matrix: from stored factors, or estimated by a sketch.

Where the update is low-rank its factors give all of them at the price of a small decomposition. Of
any other change the largest are estimated from its products with a few random vectors (Halko,
Martinsson and Tropp, "Finding structure with randomness", 2011, algorithm 4.1), in two passes over
both versions; the vectors depend on the tensor's name alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.versions import Side, read_both
from git_theta_ext.comparison.compare import Change, Comparison, Spectrum
from git_theta_ext.core.errors import CorruptObjectError, ThetaError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values, as_floats
from git_theta_ext.manifest.model import Block, Entry, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.updates.low_rank.factors import Factors, read_factors

SHOWN = 12
"""Tensors whose singular values are told, the most changed ones."""
_KEPT = 32
_SPARE = 8
"""Random vectors beyond those that are kept: they make the estimate of the last ones better."""
_MAX_LENGTH = 1 << 20
"""Longest side of a matrix that is sketched."""


def with_spectra(
    comparison: Comparison, old: Side | None, new: Side | None, *, sketched: bool = False
) -> Comparison:
    """The comparison with the singular values of the most changed matrices.

    Args:
        comparison: measured.
        old, new: its sides.
        sketched: also estimate those of updates that have no factors, which reads both versions
            of each twice.
    """
    if old is None or new is None:
        return comparison
    before = old.manifest.by_name()
    after = new.manifest.by_name()
    found: dict[str, Spectrum] = {}
    for change in sorted(comparison.changes, key=_weight):
        if len(found) == SHOWN:
            break
        if change.status == "changed" and change.lacking is None:
            then, now = before[change.name], after[change.name]
            values = _of_factors(old, new, then, now)
            estimated = values is None
            if values is None and sketched:
                values = _sketched(old, new, then, now)
            if values is not None and len(values) and values[0] > 0:
                kept = tuple(float(value) for value in values[:_KEPT] if value > 0)
                energy = float(np.sum(np.square(values)))
                whole = change.measure.step if change.measure is not None else energy
                partial = not estimated and abs(energy - whole) > 0.01 * whole
                found[change.name] = Spectrum(kept, estimated, partial)
    changes = tuple(
        replace(change, spectrum=found.get(change.name)) for change in comparison.changes
    )
    return replace(comparison, changes=changes)


def _weight(change: Change) -> tuple[float, str]:
    moved = change.measure.relative if change.measure is not None else None
    return -(moved or 0.0), change.name


# -- factors ---------------------------------------------------------------------------------------


def _of_factors(old: Side, new: Side, then: Entry, now: Entry) -> NDArray[np.float64] | None:
    """Singular values of a change that consists of low-rank updates; None if it does not."""
    store = new.store_of((now.tensor.name, 0))
    if store is None or store is not old.store_of((then.tensor.name, 0)):
        return None
    if len(then.blocks) != len(now.blocks):
        return None
    rows = []
    for spec, before, after in zip(now.specs(), then.blocks, now.blocks, strict=True):
        if before.sha256 == after.sha256:
            continue
        factors = _factors(store, spec, before, after)
        if factors is None:
            return None
        left = np.concatenate(
            [one.left * (one.scaling * 2.0**one.exponent) for one in factors], axis=1
        )
        right = np.concatenate([one.right for one in factors])
        # Of orthogonal columns times a small matrix the small one has all singular values.
        rows.append(np.linalg.qr(left, mode="r") @ right)
    if not rows or len({row.shape[1] for row in rows}) != 1:
        return None
    triangle = np.linalg.qr(np.concatenate(rows).T, mode="r")
    return np.linalg.svd(triangle, compute_uv=False)


def _factors(blocks: Blocks, spec: BlockSpec, old: Block, new: Block) -> list[Factors] | None:
    """The factors of the updates that lead from one version of a block to the other."""
    known = len(old.chain)
    added = [link for link in new.chain[known:] if isinstance(link, UpdateRef)]
    if not known or not added or new.chain[:known] != old.chain:
        return None
    if any(ref.kind != "low-rank" for ref in added):
        return None
    found = []
    for ref in added:
        file = blocks.parameters(ref)
        try:
            found.append(read_factors(file.settings, file.parts, spec.count))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptObjectError(f"object {ref.oid}: {error!r}") from error
    return found if len({one.shape for one in found}) == 1 else None


# -- sketches --------------------------------------------------------------------------------------


def _sketched(old: Side, new: Side, then: Entry, now: Entry) -> NDArray[np.float64] | None:
    """Estimates of the largest singular values of a change; None where it is no such matrix."""
    a, b = then.tensor, now.tensor
    shape = b.memory_shape
    alike = (a.dtype, a.shape, a.order) == (b.dtype, b.shape, b.order)
    if not alike or b.dtype.kind != "float" or then.opaque or now.opaque or len(shape) < 2:
        return None
    specs = now.specs()
    columns = b.count // shape[0] if shape[0] else 0
    if not columns or max(shape[0], columns) > _MAX_LENGTH or len(specs[0].shape) < 2:
        return None
    width = min(_KEPT + _SPARE, shape[0], columns)
    seed = int.from_bytes(hashlib.sha256(b.name.encode("utf-8", "replace")).digest()[:8], "big")
    vectors = np.random.default_rng(seed).standard_normal((columns, width), np.float32)
    blocks = list(zip(specs, then.blocks, now.blocks, strict=True))

    def pieces() -> Iterator[NDArray[np.float32]]:
        for number, (spec, before, after) in enumerate(blocks):
            place = (b.name, number)
            pair = read_both(old, new, (spec, place, before), (spec, place, after))
            yield _difference(spec, *pair).reshape(-1, columns)

    kept = list(pieces()) if len(blocks) == 1 else None
    basis = np.concatenate([piece @ vectors for piece in kept or pieces()])
    if not np.isfinite(basis).all():
        return None
    basis = np.linalg.qr(basis)[0]
    small = np.zeros((width, columns))
    start = 0
    for piece in kept or pieces():
        small += basis[start : start + len(piece)].T @ piece
        start += len(piece)
    values = np.linalg.svd(small, compute_uv=False)
    return values[: max(1, width - _SPARE)].astype(np.float64)


def _difference(spec: BlockSpec, old: Values, new: Values) -> NDArray[np.float32]:
    then, now = as_floats(spec.dtype, old), as_floats(spec.dtype, new)
    if then is None or now is None:
        raise ThetaError(f"values of {spec.dtype.name} are no floats")
    with np.errstate(over="ignore", invalid="ignore"):
        return now.astype(np.float32) - then.astype(np.float32)
