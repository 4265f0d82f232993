"""The change of a matrix as two thin factors: those that the store has, found, or fitted.

A matrix is a tensor as it lies in memory: its first axis against all others. What the store has is
taken as it stands: factors that a trainer supplied come back as they were. Several updates in a row
are put side by side, so ranks add.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.manifest.model import Block, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.updates.arithmetic import widen
from git_theta_ext.updates.low_rank.factors import Factors, Trained, read_factors, read_trained
from git_theta_ext.updates.low_rank.fit import find_factors
from git_theta_ext.updates.low_rank.observation import SMALLEST

Precise = NDArray[np.float64]
Source = Literal["stored", "found", "fitted"]

_NEGLIGIBLE = 1e-8
"""Share of the energy of a change that may go when factors of several blocks become one pair."""
_SPARE = 10
"""Random vectors beyond the rank that is asked for, and passes that sharpen them."""
_PASSES = 2
_SMALL = 512
"""The shorter side up to which a matrix is decomposed as it is, without random vectors."""
_FIRST = 16
"""The rank from which on one is looked for that meets a tolerance; it is doubled each time."""


@dataclass(frozen=True, slots=True)
class Factored:
    """A change `left @ right * scaling`: rows × rank, rank × columns."""

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    scaling: float
    source: Source

    @property
    def rank(self) -> int:
        """Columns of the one factor, rows of the other."""
        return len(self.right)

    @property
    def nbytes(self) -> int:
        """Of both factors."""
        return self.left.nbytes + self.right.nbytes


@dataclass(frozen=True, slots=True)
class _Part:
    """The change of one block; both factors in float64. `kept`: as a trainer saved them."""

    left: Precise
    right: Precise
    scaling: float
    kept: bool = False


_Update = tuple[int, Factors, Trained | None]
"""A low-rank update: whether it is added or taken back, and its factors."""


# -- what the store has ----------------------------------------------------------------------------


def stored(ends: Ends, name: str, rank: int | None = None) -> Factored | None:
    """The factors of the updates that lead from one version of a tensor to the other.

    None where the store has others than low-rank ones between them.

    Args:
        ends: the versions.
        name: the tensor.
        rank: the most that is wanted; all if it is None.
    """
    before, after = ends.before[name], ends.after[name]
    if len(before.blocks) != len(after.blocks) or len(after.tensor.shape) < 2:
        return None
    parts = []
    pairs = zip(after.specs(), before.blocks, after.blocks, strict=True)
    for number, (spec, old, new) in enumerate(pairs):
        blocks = ends.new.store_of((name, number))
        found = None if blocks is None else _between(blocks, spec, old, new)
        if found is None:
            return None
        parts.append(_side_by_side(found, spec))
    return _joined(parts, "stored", rank)


def _between(blocks: Blocks, spec: BlockSpec, old: Block, new: Block) -> list[_Update] | None:
    """The low-rank updates from the version that both blocks are made of, and their signs."""
    if old.sha256 == new.sha256:
        return []
    shared = 0
    while shared < min(len(old.chain), len(new.chain)) and old.chain[shared] == new.chain[shared]:
        shared += 1
    rest = [(-1, link) for link in old.chain[shared:]] + [(1, link) for link in new.chain[shared:]]
    if not shared or not rest:
        return None
    blocks.ensure(link for _, link in rest if isinstance(link, UpdateRef))
    found = []
    for sign, link in rest:
        if not isinstance(link, UpdateRef) or link.kind != "low-rank":
            return None
        file = blocks.parameters(link)
        try:
            factors = read_factors(file.settings, file.parts, spec.count)
            found.append((sign, factors, read_trained(file.settings, file.parts, factors)))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptObjectError(f"object {link.oid}: {error!r}") from error
    rows = spec.shape[0]
    return found if all(one.shape == (rows, spec.count // rows) for _, one, _ in found) else None


def _side_by_side(found: Sequence[_Update], spec: BlockSpec) -> _Part:
    """Updates in a row as one pair of factors; the scaling apart where all have the same."""
    rows = spec.shape[0]
    if not found:
        columns = spec.count // max(rows, 1)
        return _Part(np.zeros((rows, 0)), np.zeros((0, columns)), 0.0)
    scalings = {one.scaling for _, one, _ in found}
    common = scalings.pop() if len(scalings) == 1 else 1.0
    lefts, rights = [], []
    for sign, one, trained in found:
        # Multiplying by a power of two is exact: the numbers stay those of the trainer.
        left = one.left * 2.0**one.exponent if trained is None else trained.left.astype(float)
        lefts.append(left * (sign * (1.0 if common == one.scaling else one.scaling)))
        rights.append(one.right if trained is None else trained.right.astype(float))
    kept = all(trained is not None for _, _, trained in found)
    return _Part(np.concatenate(lefts, axis=1), np.concatenate(rights), common, kept)


# -- what can be found -----------------------------------------------------------------------------


def found(ends: Ends, name: str, rank: int | None = None) -> Factored | None:
    """Factors by the fit of `git add`, which knows of rounding; None where none stand out."""
    if len(ends.after[name].tensor.shape) < 2:
        return None
    parts = []
    for piece in ends.pieces(name):
        rows = piece.spec.shape[0]
        if np.array_equal(piece.old, piece.new):
            parts.append(_side_by_side([], piece.spec))
            continue
        factors = find_factors(piece.spec, piece.new, piece.old)
        if factors is None or factors.shape[0] != rows:
            return None
        parts.append(_side_by_side([(1, factors, None)], piece.spec))
    return _joined(parts, "found", rank)


def fitted(
    ends: Ends, name: str, rank: int | None = None, tolerance: float | None = None
) -> Factored | None:
    """The best factors of a rank, or of the smallest rank within a tolerance.

    By singular values, of large matrices estimated from their products with random vectors (Halko,
    Martinsson and Tropp, "Finding structure with randomness", 2011, algorithm 4.4), which are the
    same in each run.

    Args:
        ends: the versions.
        name: the tensor; the difference is held in memory.
        rank: the most that is wanted.
        tolerance: the norm of what may be missed over that of the change.

    Returns:
        None where factors of such a rank would be no smaller than the matrix, or none is within
        the tolerance.
    """
    tensor = ends.after[name].tensor
    if len(tensor.shape) < 2 or tensor.dtype.kind != "float" or not tensor.count:
        return None
    rows = tensor.memory_shape[0]
    change = _difference(ends, name).reshape(rows, -1)
    if not np.isfinite(change).all():
        return None
    worth = _worth(change.shape)
    most = min(worth, rank or worth)
    if most < 1:
        return None
    energy = float(np.square(change, dtype=np.float64).sum())
    bound = None if tolerance is None else (1 - tolerance**2) * energy
    wanted = most if bound is None else min(_FIRST, most)
    while True:
        left, values, right = _decomposed(change, wanted)
        captured = np.cumsum(np.square(values, dtype=np.float64))
        if bound is None:
            return _of_singular(left, values, right, most)
        enough = int(np.searchsorted(captured, bound)) + 1
        if enough <= len(values):
            return _of_singular(left, values, right, enough)
        if wanted == most:
            return None
        wanted = min(2 * wanted, most)


def guesses(ends: Ends, name: str) -> Iterator[Factored]:
    """Factors of growing rank for a matrix that is too small for the fit of `git add`.

    The caller takes the first that are near enough; none where the matrix is large.
    """
    tensor = ends.after[name].tensor
    if tensor.count > _SMALL * _SMALL or len(tensor.shape) < 2 or not tensor.count:
        return
    change = _difference(ends, name).reshape(tensor.memory_shape[0], -1)
    if not np.isfinite(change).all() or min(change.shape) >= SMALLEST:
        return
    left, values, right = np.linalg.svd(change, full_matrices=False)
    for rank in range(1, _worth(change.shape) + 1):
        yield replace(_of_singular(left, values, right, rank), source="found")


def _worth(shape: tuple[int, ...]) -> int:
    """The largest rank at which factors are smaller than the matrix."""
    rows, columns = shape
    return (rows * columns - 1) // (rows + columns)


def _difference(ends: Ends, name: str) -> NDArray[np.float32]:
    """New less old values, in memory order; those of float64 weights rounded."""
    pieces = [
        (widen(piece.spec.dtype, piece.new) - widen(piece.spec.dtype, piece.old)).astype(np.float32)
        for piece in ends.pieces(name)
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _decomposed(
    change: NDArray[np.float32], rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Left vectors, singular values and right vectors, the largest `rank` of them."""
    width = rank + _SPARE
    if min(change.shape) <= max(_SMALL, 2 * width):
        left, values, right = np.linalg.svd(change, full_matrices=False)
    else:
        random = np.random.default_rng(0)
        basis = change @ random.standard_normal((change.shape[1], width), np.float32)
        for _ in range(_PASSES):
            basis = np.linalg.qr(basis)[0]
            basis = change @ np.linalg.qr(change.T @ basis)[0]
        basis = np.linalg.qr(basis)[0]
        inner, values, right = np.linalg.svd(basis.T @ change, full_matrices=False)
        left = basis @ inner
    return left[:, :rank], values[:rank], right[:rank]


def _of_singular(
    left: NDArray[np.float32], values: NDArray[np.float32], right: NDArray[np.float32], rank: int
) -> Factored:
    root = np.sqrt(values[:rank].astype(np.float32))
    return Factored(
        np.ascontiguousarray(left[:, :rank] * root),
        np.ascontiguousarray(right[:rank] * root[:, None]),
        1.0,
        "fitted",
    )


# -- one pair of factors ---------------------------------------------------------------------------


def _joined(parts: Sequence[_Part], source: Source, rank: int | None) -> Factored | None:
    """The factors of a tensor from those of its blocks, which are one below the other."""
    changed = [part for part in parts if part.right.shape[0]]
    if not changed:
        return None
    scalings = {part.scaling for part in changed}
    common = scalings.pop() if len(scalings) == 1 else 1.0
    lefts = [part.left if common == part.scaling else part.left * part.scaling for part in parts]
    right = changed[0].right
    if all(np.array_equal(part.right, right) for part in changed):
        width = len(right)
        filled = [one if one.shape[1] else np.zeros((len(one), width)) for one in lefts]
        left = np.concatenate(filled)
    else:
        most = max(len(part.right) for part in changed)
        changed = [replace(part, kept=False) for part in changed]
        left, right = _reduced(lefts, [part.right for part in parts], most)
    kept = all(part.kept for part in changed)
    if rank is not None and len(right) > rank:
        left, right = _reduced([left], [right], rank, rank)
        kept = False
    if kept:
        return Factored(left.astype(np.float32), right.astype(np.float32), common, source)
    return _balanced(left, right, common, source)


def _reduced(
    lefts: Sequence[Precise], rights: Sequence[Precise], least: int, most: int | None = None
) -> tuple[Precise, Precise]:
    """The same change with fewer directions, of the factors of blocks one below the other.

    Args:
        lefts, rights: of each block.
        least: the rank below which nothing is left out.
        most: the rank above which everything is; what is negligible goes in between.
    """
    bases = [np.linalg.qr(left) for left in lefts]
    small = [rest @ right for (_, rest), right in zip(bases, rights, strict=True)]
    inner, values, right = np.linalg.svd(np.concatenate(small), full_matrices=False)
    energy = np.square(values)
    left_over = energy[::-1].cumsum()[::-1]
    rank = max(least, int(np.count_nonzero(left_over > _NEGLIGIBLE * energy.sum())))
    rank = min(rank, most or rank, len(values))
    root = np.sqrt(values[:rank])
    ends = np.cumsum([len(one) for one in small])[:-1]
    rows = np.split(inner[:, :rank] * root, ends)
    left = np.concatenate([basis @ part for (basis, _), part in zip(bases, rows, strict=True)])
    return left, root[:, None] * right[:rank]


def _balanced(left: Precise, right: Precise, scaling: float, source: Source) -> Factored | None:
    """As float32, with a power of two moved between the factors so that both are of one size."""
    sizes = [float(np.abs(side).max(initial=0)) for side in (left, right)]
    if not all(np.isfinite(one) and one > 0 for one in sizes):
        return None
    exponents = [int(np.frexp(one)[1]) for one in sizes]
    shift = (exponents[1] - exponents[0]) // 2
    halves = [
        np.ascontiguousarray(np.ldexp(side, move).astype(np.float32))
        for side, move in ((left, shift), (right, -shift))
    ]
    return Factored(halves[0], halves[1], scaling, source)
