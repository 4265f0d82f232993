"""Whether a change has few directions, and which of them stand out of its noise."""

from __future__ import annotations

import numpy as np

from git_theta_ext.updates.low_rank.observation import (
    Matrix,
    Pair,
    Precise,
    Seen,
    Weights,
    typical_rows,
    typical_size,
)

FAR = 10.0
"""Changes so many times what their row and column suggest are noise: one would be a direction."""
_GAP = 4.0
"""Singular values that drop by this factor at once have dropped to the noise."""
_LESSER_GAP = 1.8
"""The same, where what follows is even, as noise is."""
_CLEARLY, _AT_A_GLANCE = 1.15, 1.3
"""Singular values so many times above the largest that noise has are none of its."""
_TINY = np.float32(1e-30)


def looks_low_rank(pair: Pair) -> bool:
    """Whether a small square of the change has nearly all its energy in few directions.

    Unrelated tensors have 0.60 to 0.71 of it in the upper quarter; sparse noise is clipped away.
    In 16 bits the change may hide below the ulp; there a direction that stands out is enough.
    """
    rows, columns = pair.new.shape
    size = 64 if rows * columns < 1 << 20 else 128 if rows * columns < 1 << 22 else 256
    seen = pair.observe(pair.spread(0, size), pair.spread(1, size))
    change = seen.change
    if not change.any():
        return False
    bound = 4 * 1.4826 * float(np.median(np.abs(change)))
    energy = energies(np.clip(change, -bound, bound) if bound > 0 else change)
    total = float(energy.sum())
    if float(energy[: len(energy) // 4].sum()) >= 0.9 * total:
        return True
    # Noise has an eighth of its energy in the lower half; a product of half the rank has none.
    if float(energy[len(energy) // 2 :].sum()) < 0.01 * total:
        return True
    if not pair.coarse:
        return False
    found = standing_out(seen, expected_sizes(change), _AT_A_GLANCE)[0]
    return 1 <= len(found) <= len(energy) // 4


def energies(matrix: Matrix) -> Precise:
    """The squares of the singular values, the largest first.

    As eigenvalues of the smaller product with itself: the low ones lose digits that nobody asks
    for, and it takes a fifth of the time that singular values take.
    """
    wide = matrix.astype(np.float64)
    wide = wide if len(wide) <= wide.shape[1] else wide.T
    squares: Precise = np.maximum(np.linalg.eigvalsh(wide @ wide.T)[::-1], 0)
    return squares


def expected_sizes(change: Matrix) -> Weights:
    """About how large each entry should be, by what is typical of its row and of its column.

    One size for all would take the large entries of rows, or neurons, that have changed more than
    others for outliers.
    """
    typical = typical_size(change)
    rows, columns = typical_rows(change), typical_rows(change.T)
    sizes: Weights = np.multiply.outer(
        (rows / typical).astype(np.float32), columns.astype(np.float32)
    )
    return sizes


def even_weights(weights: Weights, sizes: Weights) -> Weights:
    """The weights of entries of these expected sizes, as if the change itself were noise.

    With these the fit converges at once where the change is well above rounding.
    """
    even = np.square(sizes)
    even *= weights
    even += 1
    return np.divide(weights, even, out=even)


def standing_out(seen: Seen, sizes: Weights, clearly: float = _CLEARLY) -> tuple[Precise, Matrix]:
    """The singular values, and the directions (rank × columns), that stand out of the noise.

    Entries count less the less precise they are. Noise of deviation s in a matrix of m × n has no
    singular value above s (sqrt(m) + sqrt(n)); s is what a subspace of the largest leaves over
    (Halko, Martinsson and Tropp, "Finding Structure with Randomness", 2011; seeded). What rounding
    alone may give is known row by row and column by column.
    """
    share = np.square(sizes)
    share *= even_weights(seen.weights, sizes)
    noise = np.square(share)
    noise /= np.maximum(seen.weights, _TINY)
    loudest = sum(float(np.sqrt(noise.sum(axis=axis).max() / 12)) for axis in (0, 1))
    shrunk = share * seen.change
    shrunk *= np.abs(seen.change) <= np.float32(FAR) * sizes
    rows, columns = shrunk.shape
    total, few = float(np.sum(np.square(shrunk), dtype=np.float64)), min(rows, columns)
    for size in (min(48, few // 2), min(3 * few // 8, 288)):
        values, directions = _subspace(shrunk, size)
        rest = max(total - float(np.square(values).sum()), 0.0)
        deviation = np.sqrt(rest / ((rows - size) * (columns - size)))
        edge = clearly * deviation * (np.sqrt(rows) + np.sqrt(columns))
        rank = int(np.count_nonzero(values > max(edge, loudest)))
        if rank < 3 * size // 4:
            break
    return values[:rank], directions[:rank]


def _subspace(matrix: Matrix, size: int) -> tuple[Precise, Matrix]:
    """About the largest singular values of a matrix and their right vectors, as rows."""
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], size))
    basis = np.linalg.qr(matrix @ start.astype(matrix.dtype))[0]
    for _ in range(2):
        basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    inner = (basis.T @ matrix).astype(np.float64)
    squares, turn = np.linalg.eigh(inner @ inner.T)
    values: Precise = np.sqrt(np.maximum(squares[::-1], 0))
    directions = turn[:, ::-1].T @ inner / np.maximum(values, np.finfo(np.float64).tiny)[:, None]
    return values, directions.astype(matrix.dtype)


def before_gap(sizes: Precise) -> int:
    """How many singular values stand before the widest gap; all, if there is none."""
    ratios = sizes[:-1] / np.maximum(sizes[1:], np.finfo(np.float64).tiny)
    if not len(ratios):
        return len(sizes)
    behind = int(np.argmax(ratios)) + 1
    tail = sizes[behind:]
    # Noise is even: many directions of nearly one size behind a lesser gap are noise too.
    even = len(tail) >= 6 and float(tail[0]) < 2 * float(tail[-1])
    return behind if float(ratios[behind - 1]) > (_LESSER_GAP if even else _GAP) else len(sizes)
