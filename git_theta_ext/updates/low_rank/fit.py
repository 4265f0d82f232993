"""Factors of a low-rank change, fitted to what rounding left of it.

The fit weighs every entry by its precision, and so finds changes well below the typical ulp, for
small weights have small ones (measured: 2048², rank 8, a median of 0.1 ulp still comes back).
Alternating least squares start from the directions of a part of the matrix that stand out; entries
far off the fit count as sparse noise and are left out. Then both factors are fitted to all rows, in
one pass each.

No step picks entries by a mask: that takes 4 ns for each, twenty times as long as to multiply by
the mask.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.low_rank.directions import (
    FAR,
    before_gap,
    even_weights,
    expected_sizes,
    looks_low_rank,
    standing_out,
)
from git_theta_ext.updates.low_rank.factors import Factors
from git_theta_ext.updates.low_rank.observation import (
    Matrix,
    Pair,
    Precise,
    Seen,
    Weights,
    pair_of,
    typical_rows,
    typical_size,
)
from git_theta_ext.updates.low_rank.precision import balanced, rounded_as_pays

_ROWS, _COLUMNS = 512, 1024
"""The part of the matrix that the fit starts from."""
_STAGES = 3
"""How often directions are looked for: once more in what the fit so far leaves over."""
_EVEN_ROUNDS, _ROUNDS, _FEWER_ROUNDS = 1, 3, 1
"""Rounds with even weights, and with those that precision gives."""
_SETTLING = 5
"""How often there are so many rounds, at most."""
_MANY = 64
"""The time of a round grows with the rank's square: larger ranks than this get fewer of them."""
_PACE = 1.4
"""So many times the step that least squares give: three rounds come as far as five without."""
_SQUEEZES, _SQUEEZE_PACE, _SQUEEZABLE = 1, 1.5, 24
"""The same for moving into the intervals that rounding allows, and the largest rank for it."""
_ONLY_ROUNDING = 0.2
"""Mean square, in ulps, up to which rounding (1/12) explains what is left."""
_ABOVE_NOISE = 1.3
"""Directions of less than so many times the most that noise gives are dropped."""
_OUTLIER = 3.0
"""Entries further off than so many ulps are no rounding."""
_ASTRAY = 20.0
"""And so many times as far off as is typical: less would leave out rows that have not converged,
for good; more would keep noise (measured under 0.1 % of it: 5, 10, 20, 40 leave 0.11, 0.045,
0.041, 0.050 of 512² in float32)."""
_HOLD = np.float32(0.1)
"""What an entry that rounds right already weighs, beside one that does not."""
_QUARTERED = 2048
"""Rows from which on a quarter of them is fitted before all are."""
_CHUNK = 1 << 16
"""Elements handled at once: temporaries stay in the processor's cache."""
_DAMPING = 1e-5
"""Of the mean of the diagonal: float32 products give the equations of rows that say little
negative eigenvalues of 1e-7."""


def find_factors(spec: BlockSpec, new: Values, base: Values) -> Factors | None:
    """The factors that make the smallest update, or None if there is no low-rank change."""
    try:
        # Numbers may be of any size here; a fit that overflows predicts badly, no more.
        with np.errstate(all="ignore"):
            pair = pair_of(spec, new, base)
            if pair is None or not looks_low_rank(pair):
                return None
            found = _fit(pair)
            return None if found is None else rounded_as_pays(pair, *found)
    except np.linalg.LinAlgError:
        return None


def _fit(pair: Pair) -> tuple[Matrix, Matrix] | None:
    """Both factors: from a part of the matrix, then by all of it."""
    rows, columns = pair.new.shape
    down, across = pair.spread(0, _ROWS), pair.spread(1, _COLUMNS)
    seen = pair.observe(down, across if len(across) < columns else None)
    found = _begin(pair, seen)
    if found is None:
        return None
    left, right = found
    if seen.slack is not None and len(right) <= _SQUEEZABLE:
        for _ in range(_SQUEEZES):
            left = _squeeze(seen, left, right, _SQUEEZE_PACE)
            right = _squeeze(seen.turned(), right.T, left.T, _SQUEEZE_PACE).T
    if len(across) < columns:
        right = _widen(pair.observe(down), left)
    elif len(down) == rows:
        return left, right
    return _refine(pair, right)


def _begin(pair: Pair, seen: Seen) -> tuple[Matrix, Matrix] | None:
    """Factors of a part of the matrix; None where none stand out, or too many."""
    rows, columns = seen.change.shape
    most = min(limits.RANK, *(extent // 4 for extent in (*pair.new.shape, rows, columns)))
    left, right = (np.zeros(shape, seen.change.dtype) for shape in ((rows, 0), (0, columns)))
    rest = seen
    for _ in range(_STAGES):
        sizes = expected_sizes(rest.change)
        values, more = standing_out(rest, sizes)
        more = more[: before_gap(values)]
        if len(right) + len(more) > most and not len(right):
            return None
        if not len(more) or len(right) + len(more) > most:
            break
        even = even_weights(seen.weights, sizes)
        left = np.concatenate([left, _first(rest.change, even, sizes, more)], axis=1)
        left, right = _alternate(seen, left, np.concatenate([right, more]), _EVEN_ROUNDS, even)
        left, right = _without_noise(seen, even, left, right)
        left, right, misfit, kept = _settled(seen, left, right)
        if _is_all(pair, seen, len(right), _mean_square(misfit, kept)):
            break
        rest = Seen(misfit * (kept != 0), seen.weights)
    return (left, right) if len(right) else None


def _is_all(pair: Pair, seen: Seen, rank: int, level: float) -> bool:
    """Whether rounding explains what a fit of some rank leaves, of this mean square in ulps.

    In 16 bits another direction may hide in it: only if the changes are above the ulp, so that
    rounding is even, is it known how much that leaves, to the hundredth part that one would show.
    """
    if not pair.coarse:
        return level < _ONLY_ROUNDING
    rows, columns = seen.change.shape
    freedom = 1 - rank * (rows + columns) / (rows * columns)
    mostly = 5 * int(np.count_nonzero(seen.change)) > 4 * seen.change.size
    return mostly and level < 1.01 * freedom / 12


def _settled(seen: Seen, left: Matrix, right: Matrix) -> tuple[Matrix, Matrix, Weights, Weights]:
    """The factors after rounds with the weights of the entries, what they miss, and what counts.

    Sparse noise is left out only as far as it stands out of what the fit still misses, so under
    much of it there are more rounds, as long as each few halve that.
    """
    rounds = _ROUNDS if len(right) <= _MANY else _FEWER_ROUNDS
    before = np.inf
    for _ in range(_SETTLING):
        left, right = _alternate(seen, left, right, rounds)
        misfit = _misfit(seen, left, right)
        kept = seen.weights * _near(misfit, seen.weights, _ASTRAY * typical_size(misfit))
        level = _mean_square(misfit, kept)
        if level < _ONLY_ROUNDING or level > before / 2:
            break
        before = level
    return left, right, misfit, kept


def _mean_square(misfit: Weights, weights: Weights) -> float:
    return float(np.vdot(misfit * weights, misfit)) / max(1, int(np.count_nonzero(weights)))


def _without_noise(seen: Seen, even: Weights, left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """Without the directions that are hardly larger than what rounding alone gives such a fit."""
    left, right = balanced(left, right)
    sizes: Precise = np.square(np.linalg.norm(right, axis=1))
    noise = np.square(even) / np.maximum(seen.weights, np.float32(1e-30))
    deviation = np.sqrt(float(np.mean(noise)) / 12) / float(np.mean(even))
    edge = deviation * sum(np.sqrt(extent) for extent in even.shape)
    rank = before_gap(sizes[: max(1, np.count_nonzero(sizes > _ABOVE_NOISE * edge))])
    dtype = seen.change.dtype
    return left[:, :rank].astype(dtype), right[:rank].astype(dtype)


def _alternate(
    seen: Seen, left: Matrix, right: Matrix, rounds: int, even: Weights | None = None
) -> tuple[Matrix, Matrix]:
    """Fit left and right by turns, with even weights or those of the entries."""
    turned, turned_even = seen.turned(), None if even is None else even.T
    for number in range(rounds):
        pace = _PACE if even is None and number else 1.0
        left = _solve(seen, left, right, even, pace)
        left, right = _orthonormal(left, right)
        right = _solve(turned, right.T, left.T, turned_even, pace).T
        right, left = (side.T for side in _orthonormal(right.T, left.T))
    return _solve(seen, left, right, even), right


def _orthonormal(left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """The same product with an orthonormal left: then the equations for right are even-tempered."""
    basis, rest = np.linalg.qr(left)
    return basis, rest @ right


# -- one factor, given the other -------------------------------------------------------------------


def _solve(
    seen: Seen, left: Matrix, right: Matrix, even: Weights | None = None, pace: float = 1.0
) -> Matrix:
    """The rows of `left` that fit best, given `right`: weighted least squares, row by row.

    Entries far off do not count. `pace` times the step is taken that leads there.
    """
    misfit = _misfit(seen, left, right)
    near = _near(misfit, seen.weights, _ASTRAY * typical_size(misfit))
    weights = seen.weights if even is None else even
    return left + pace * _step(misfit, weights * near, right)


def _first(change: Matrix, weights: Weights, sizes: Weights, right: Matrix) -> Matrix:
    """The same where nothing is known of `left` yet, but the expected sizes of the changes."""
    misfit = change.astype(np.float32, copy=False)
    near = np.abs(misfit) <= np.float32(FAR) * sizes
    return _step(misfit, weights * near, right).astype(change.dtype)


def _squeeze(seen: Seen, left: Matrix, right: Matrix, pace: float = 1.0) -> Matrix:
    """Move `left` towards changes that round to the new values, all of them at once.

    Least squares on the rounded change stop at about its noise; the true change lies within
    bounds, so entries outside pull to the nearer bound and the others hold with a tenth of their
    weight. Measured on 512², bf16, rank 8, a median of 0.3 ulp: misses fall from 10.7 % to 3.3 %.
    """
    return left + pace * _step(*_pull(seen, _misfit(seen, left, right)), right)


def _pull(seen: Seen, misfit: Weights) -> tuple[Weights, Weights]:
    """How far each entry is outside of its bounds, and what it weighs."""
    slack = np.float32(0) if seen.slack is None else seen.slack
    off = np.clip(misfit, -slack, slack)
    np.subtract(misfit, off, out=off)
    weights = (off != 0).astype(np.float32)
    weights *= 1 - _HOLD
    weights += _HOLD
    weights *= seen.weights
    weights *= _near(off, weights)
    return off, weights


def _misfit(seen: Seen, left: Matrix, right: Matrix) -> Weights:
    """What the product of the factors misses; float32 says enough of that."""
    guess = left @ right
    misfit: Matrix = np.subtract(seen.change, guess, out=guess)
    return misfit.astype(np.float32, copy=False)


def _near(misfit: Weights, weights: Weights, slack: float = 0.0) -> NDArray[np.bool_]:
    """Which entries are not so far off that they must have changed otherwise.

    Far off is more than rounding explains, and more than `slack`: what a fit leaves before it has
    converged stays below some times what it leaves typically.
    """
    square = np.square(misfit)
    square *= weights
    near = square <= _OUTLIER * _OUTLIER
    if slack:
        near |= np.abs(misfit) <= slack
    return near


def _step(misfit: Weights, weights: Weights, right: Matrix) -> Precise:
    """By how much each row of the left factor must move to meet a misfit best."""
    right = right.astype(np.float32, copy=False)
    halves = weights @ _products(right).T
    return _solved(halves, (weights * misfit) @ right.T)


def _products(right: Matrix) -> Matrix:
    """The products of every two rows: their weighted sums are the upper halves of equations."""
    first, second = _upper(len(right))
    return right[first] * right[second]


@cache
def _upper(rank: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(rank)


def _solved(halves: Matrix, misfit: Matrix) -> Precise:
    """Solve every row's equations; a trace of damping keeps rows without information at rest."""
    rows, rank = misfit.shape
    first, second = _upper(rank)
    normal = np.empty((rows, rank, rank))
    normal[:, first, second] = halves
    normal[:, second, first] = halves
    diagonal = np.einsum("iaa->ia", normal)
    diagonal += _DAMPING * diagonal.mean(axis=1, keepdims=True) + 1e-300
    found = np.linalg.solve(normal, misfit.astype(np.float64)[:, :, None])[:, :, 0]
    return np.where(np.isfinite(found), found, 0.0)


# -- all rows --------------------------------------------------------------------------------------


def _widen(seen: Seen, left: Matrix) -> Matrix:
    """The right factor of all columns, given the left one of the rows that are seen."""
    turned, across = seen.turned(), left.T
    sizes = _sizes_along(turned.change, across)
    right = _first(turned.change, turned.weights, sizes, across)
    right = _solve(turned, right, across)
    return right.T if seen.slack is None else _squeeze(turned, right, across).T


def _sizes_along(change: Matrix, right: Matrix) -> Weights:
    """About how large each entry should be, by its row and by the factor of the columns."""
    columns = np.linalg.norm(right, axis=0)
    columns /= max(float(np.median(columns)), 1e-30)
    sizes: Weights = np.multiply.outer(
        typical_rows(change).astype(np.float32), columns.astype(np.float32)
    )
    return sizes


def _refine(pair: Pair, right: Matrix) -> tuple[Matrix, Matrix]:
    """Both factors by all rows: left, right, and left once more.

    In a large matrix a quarter of the rows comes first: then the start was made from few of them,
    and one pass does not get all that the others say (4096², bf16: a share of 0.0081, not 0.0097).
    """
    rows, columns = pair.new.shape
    left = np.zeros((rows, len(right)), right.dtype)
    step = max(1, _CHUNK // columns)
    chunks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    if rows > _QUARTERED:
        right = _improved(pair, left, right, chunks[::4])
    right = _improved(pair, left, right, chunks)
    for chunk in chunks:
        seen = pair.observe(chunk)
        left[chunk] += _step(*_pulling(seen, left[chunk], right), right)
    return left, right


def _improved(pair: Pair, left: Matrix, right: Matrix, chunks: list[slice]) -> Matrix:
    """The right factor by some rows, whose left factor is put into `left`."""
    right = np.ascontiguousarray(np.linalg.qr(right.T)[0].T)
    rank, columns = right.shape
    halves, misfits = np.zeros((columns, len(_upper(rank)[0]))), np.zeros((columns, rank))
    for chunk in chunks:
        seen = pair.observe(chunk)
        sizes = _sizes_along(seen.change, right)
        part = _solve(seen, _first(seen.change, seen.weights, sizes, right), right)
        left[chunk] = part
        off, weights = _pulling(seen, part, right)
        across = part.T.astype(np.float32)
        halves += weights.T @ _products(across).T
        weights *= off
        misfits += weights.T @ across.T
    improved: Matrix = right + _solved(halves, misfits).T.astype(right.dtype)
    return improved


def _pulling(seen: Seen, left: Matrix, right: Matrix) -> tuple[Weights, Weights]:
    """What some rows miss, and what it weighs: by bounds where the rank is not too large."""
    misfit = _misfit(seen, left, right)
    if seen.slack is not None and len(right) <= _SQUEEZABLE:
        return _pull(seen, misfit)
    return misfit, seen.weights * _near(misfit, seen.weights, _ASTRAY * typical_size(misfit))
