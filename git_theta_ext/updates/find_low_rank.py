"""Factors of a low-rank change, fitted to what rounding left of it.

A merged change is seen through the weights' rounding: an entry tells it to within the ulp of its
weight. So the fit weighs every entry by its precision, 1/(ulp²(new) + ulp²(change)), and finds
changes well below the typical ulp, because small weights have small ones (measured: 2048², rank
8, a median of 0.1 ulp still comes back). Alternating least squares start from the singular
vectors of a part of the rows; entries far off the fit count as sparse noise and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import mantissa_bits, widen
from git_theta_ext.updates.low_rank import DTYPES, Factors, add
from git_theta_ext.updates.residual import difference, neighbours

Array = NDArray[np.float64]

_SMALLEST = 32
"""Rows and columns from which on factors are smaller than the matrix."""
_SUBSET = 512
"""Rows that the fit starts from."""
_FIRST_ROUNDS = 2
"""Rounds with even weights, before and after the rank is settled."""
_ROUNDS = 3
"""Rounds with the weights that precision gives."""
_SQUEEZES = 6
"""Rounds of moving into the intervals that rounding allows, in 16 bits."""
_THOROUGH = 24
"""The time of a round grows with the rank's square: larger ranks get fewer of them."""
_GAP = 4.0
"""Singular values that drop by this factor at once have dropped to the noise."""
_LESSER_GAP = 1.8
"""The same, where what follows is even, as noise is."""
_CHUNK = 1 << 19
"""Elements observed at once."""
_CAP = 1000.0
"""No entry weighs more than so many times the median: a zero would decide everything."""
_OUTLIER = 3.0
"""Entries further off than so many ulps are no rounding."""
_FAR = 10.0
"""Changes so many times the median are left out of the start: single ones would be directions."""
_TRIAL_ROWS = 32
_SMALLEST_EXPONENT = {"F64": -1022, "F16": -14, "F8_E4M3": -6, "F8_E5M2": -14,
                      "F8_E4M3FNUZ": -7, "F8_E5M2FNUZ": -15}  # fmt: skip
"""Of normal numbers; -126 in float32 and bfloat16."""


def find_factors(spec: BlockSpec, new: Values, base: Values) -> Factors | None:
    """The factors that make the smallest update, or None if there is no low-rank change.

    A block counts as a matrix of its first axis in memory by the rest.
    """
    pair = _pair_of(spec, new, base)
    try:
        # Numbers may be of any size here; a fit that overflows predicts badly, no more.
        with np.errstate(all="ignore"):
            if pair is None or not _looks_low_rank(pair):
                return None
            found = _fit(pair)
            return None if found is None else _quantised(pair, *found)
    except np.linalg.LinAlgError:
        return None


def quantised(
    spec: BlockSpec, new: Values, base: Values, left: Array, right: Array
) -> Factors | None:
    """Factors that are known (rows × rank and rank × columns), in the precision that pays here.

    None where the block is no matrix large enough, has no float dtype, or the product is zero or
    not finite.
    """
    pair = _pair_of(spec, new, base)
    if pair is None or left.shape[1] > min(limits.RANK, *pair.new.shape):
        return None
    try:
        with np.errstate(all="ignore"):
            return _quantised(pair, left, right)
    except np.linalg.LinAlgError:
        return None


def _fit(pair: _Pair) -> tuple[Array, Array] | None:
    """Both factors: from a part of the rows, then by all of them."""
    subset = pair.spread_rows(_SUBSET)
    rows, columns = pair.new.shape
    observed, weights = pair.observe(subset)
    right = _spectrum(observed, weights)
    most = min(limits.RANK, rows // 4, columns // 4, len(subset) // 4)
    found, right = len(right), right[:most]
    if not found:
        return None
    left = np.zeros((len(subset), len(right)))
    # Even weights converge at once where the change is well above rounding; precise ones do not.
    even = weights / (1.0 + weights * _typical(observed) ** 2)
    left, right = _alternate(observed, even, left, right, _FIRST_ROUNDS)
    left, right = _pruned(left, right)
    if found > most and len(right) == most:
        return None
    left, right = _alternate(observed, even, left, right, _FIRST_ROUNDS)
    thorough = len(right) <= _THOROUGH
    left, right = _alternate(observed, weights, left, right, _ROUNDS if thorough else 1)
    if pair.coarse and thorough:
        bounds = pair.bounds(subset)
        for _ in range(_SQUEEZES):
            left = _squeeze(bounds, weights, left, right)
            turned = (bounds[0].T, bounds[1].T)
            right = _squeeze(turned, weights.T, right.T, left.T).T
    return (left, right) if len(subset) == rows else _refine(pair, right)


def _alternate(
    change: Array, weights: Array, left: Array, right: Array, rounds: int
) -> tuple[Array, Array]:
    """Fit left and right by turns; entries far off do not count."""
    size = _typical(change)
    kept = np.where(np.abs(change) > _FAR * size, 0.0, weights)
    if left.any():
        kept = _trimmed(change - left @ right, weights, size)
    for _ in range(rounds):
        left = _solve(change, kept, left, right)
        kept = _trimmed(change - left @ right, weights, size)
        right = _solve(change.T, kept.T, right.T, left.T).T
        kept = _trimmed(change - left @ right, weights, size)
    return _solve(change, kept, left, right), right


def _pruned(left: Array, right: Array) -> tuple[Array, Array]:
    """Without the directions behind the widest gap of the singular values, if there is one."""
    left, right = _balanced(left, right)
    sizes = np.square(np.linalg.norm(right, axis=1))
    ratios = sizes[:-1] / np.maximum(sizes[1:], np.finfo(np.float64).tiny)
    rank = len(sizes)
    if len(ratios):
        behind = int(np.argmax(ratios)) + 1
        tail = sizes[behind:]
        # Noise is even: many directions of nearly one size behind a lesser gap are noise too.
        even = len(tail) >= 6 and float(tail[0]) < 2 * float(tail[-1])
        if float(ratios[behind - 1]) > (_LESSER_GAP if even else _GAP):
            rank = behind
    return left[:, :rank], right[:rank]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Old and new weights as matrices of raw bits."""

    dtype: DType
    new: Values
    base: Values

    @property
    def coarse(self) -> bool:
        """Whether a change may well be smaller than the rounding of the weights."""
        return self.dtype.bits <= 16

    def spread_rows(self, count: int) -> NDArray[np.intp]:
        """At most `count` rows, spread evenly."""
        rows = self.new.shape[0]
        taken = min(count, rows)
        places: NDArray[np.intp] = np.arange(taken) * rows // taken
        return places

    def observe(
        self, rows: slice | NDArray[np.intp], columns: NDArray[np.intp] | None = None
    ) -> tuple[Array, Array]:
        """The change and the weight of every entry of some rows; not finite: weight 0."""
        bits, before = self.new[rows], self.base[rows]
        if columns is not None:
            bits, before = bits[:, columns], before[:, columns]
        shape = bits.shape
        with np.errstate(all="ignore"):
            now = widen(self.dtype, bits.ravel()).reshape(shape).astype(np.float64)
            change = now - widen(self.dtype, before.ravel()).reshape(shape)
            noise = np.square(_ulp(self.dtype, now)) + np.square(_ulp(self.dtype, change))
        finite = np.isfinite(change)
        weights = 1.0 / np.where(finite, noise, 1.0)
        typical = float(np.median(weights[:: max(1, len(weights) // 16)]))
        np.minimum(weights, _CAP * typical, out=weights)
        if not finite.all():
            change[~finite], weights[~finite] = 0.0, 0.0
        return change, weights

    def bounds(self, rows: slice | NDArray[np.intp]) -> tuple[Array, Array]:
        """The smallest and largest change that rounds to each new value."""
        bits = self.new[rows].ravel()
        low, high = neighbours(bits)
        shape = (-1, self.new.shape[1])
        with np.errstate(all="ignore"):
            now, below, above, old = (
                widen(self.dtype, side).astype(np.float64)
                for side in (bits, low, high, self.base[rows].ravel())
            )
            least, most = (now + below) / 2 - old, (now + above) / 2 - old
        silent = ~(np.isfinite(least) & np.isfinite(most))
        least[silent], most[silent] = -np.inf, np.inf
        return least.reshape(shape), most.reshape(shape)


def _pair_of(spec: BlockSpec, new: Values, base: Values) -> _Pair | None:
    if spec.dtype.name not in DTYPES or len(spec.shape) < 2:
        return None
    rows = spec.shape[0]
    if rows < _SMALLEST or len(new) // rows < _SMALLEST:
        return None
    return _Pair(spec.dtype, new.reshape(rows, -1), base.reshape(rows, -1))


def _ulp(dtype: DType, numbers: Array) -> Array:
    """The distance of neighbouring floats of a dtype at some numbers; never zero."""
    mantissa = mantissa_bits(dtype) or 0
    smallest = _SMALLEST_EXPONENT.get(dtype.name, -126)
    exponents = np.frexp(numbers)[1] - 1
    ulps: Array = np.ldexp(1.0, np.maximum(exponents, smallest) - mantissa)
    return ulps


# -- detection -------------------------------------------------------------------------------------


def _looks_low_rank(pair: _Pair) -> bool:
    """Whether a small square of the change has nearly all its energy in few directions.

    Unrelated tensors have 0.60 to 0.71 of it in the upper quarter; sparse noise is clipped away.
    In 16 bits the change may hide below the ulp; there a direction that stands out is enough.
    """
    rows, columns = pair.new.shape
    size = 64 if rows * columns < 1 << 20 else 128 if rows * columns < 1 << 22 else 256
    across = min(size, columns)
    change, weights = pair.observe(pair.spread_rows(size), np.arange(across) * columns // across)
    if not change.any():
        return False
    bound = 4 * 1.4826 * float(np.median(np.abs(change)))
    clipped = np.clip(change, -bound, bound) if bound > 0 else change
    values = np.linalg.svd(clipped, compute_uv=False)
    energy = np.square(values)
    total = float(energy.sum())
    if float(energy[: len(energy) // 4].sum()) >= 0.9 * total:
        return True
    # Noise has an eighth of its energy in the lower half; a product of half the rank has none.
    if float(energy[len(energy) // 2 :].sum()) < 0.01 * total:
        return True
    if not pair.coarse:
        return False
    return 1 <= len(_spectrum(change, weights, 1.3)) <= len(values) // 4


def _spectrum(change: Array, weights: Array, clearly: float = 1.15) -> Array:
    """The directions (rank × columns) that stand out of the noise.

    Entries count less the less precise they are. Noise of deviation s in a matrix of m × n has no
    singular value above s (sqrt(m) + sqrt(n)); s is what a subspace of the largest leaves over
    (Halko, Martinsson and Tropp, "Finding Structure with Randomness", 2011; seeded).
    """
    typical = _typical(change)
    noise = 1.0 / np.maximum(weights, np.finfo(np.float64).tiny)
    shrunk = change / (1.0 + noise / (typical * typical))
    shrunk[np.abs(shrunk) > _FAR * typical] = 0.0
    rows, columns = shrunk.shape
    total = float(np.square(shrunk).sum())
    few = min(rows, columns)
    for size in (min(48, few // 2), min(3 * few // 8, 288)):
        start = np.random.default_rng(0).standard_normal((columns, size))
        basis = np.linalg.qr(shrunk @ start)[0]
        for _ in range(2):
            basis = np.linalg.qr(shrunk @ (shrunk.T @ basis))[0]
        _, values, directions = np.linalg.svd(basis.T @ shrunk, full_matrices=False)
        rest = max(total - float(np.square(values).sum()), 0.0)
        deviation = np.sqrt(rest / ((rows - size) * (columns - size)))
        edge = deviation * (np.sqrt(rows) + np.sqrt(columns))
        rank = int(np.count_nonzero(values > max(clearly * edge, 1e-6 * values[0])))
        if rank < 3 * size // 4:
            break
    found: Array = directions[:rank]
    return found


# -- fit -------------------------------------------------------------------------------------------


def _normal(weights: Array, right: Array) -> Array:
    """Σ_j weight[i, j] · right[a, j] · right[b, j] for every row i: rows × rank × rank."""
    rank = len(right)
    upper = np.triu_indices(rank)
    products = right[upper[0]] * right[upper[1]]
    halves = weights @ products.T
    full = np.empty((len(weights), rank, rank))
    full[:, upper[0], upper[1]] = halves
    full[:, upper[1], upper[0]] = halves
    return full


def _solve(change: Array, weights: Array, left: Array, right: Array) -> Array:
    """The rows of `left` that fit best, given `right`: weighted least squares, row by row."""
    normal = _normal(weights, right)
    misfit = (weights * (change - left @ right)) @ right.T
    return left + _solved(normal, misfit)


def _solved(normal: Array, misfit: Array) -> Array:
    """Solve every row's equations; a trace of damping keeps rows without information at rest."""
    diagonal = np.einsum("iaa->ia", normal)
    damping = 1e-10 * diagonal.mean(axis=1, keepdims=True) + 1e-300
    np.add(diagonal, damping, out=diagonal)
    found = np.linalg.solve(normal, misfit[:, :, None])[:, :, 0]
    return np.asarray(np.where(np.isfinite(found), found, 0.0), np.float64)


def _squeeze(bounds: tuple[Array, Array], weights: Array, left: Array, right: Array) -> Array:
    """Move `left` towards changes that round to the new values, all of them at once.

    Least squares on the rounded change stop at about its noise; the true change lies within
    bounds, so entries outside pull to the nearer bound and the others hold with a tenth of their
    weight. Measured on 512², bf16, rank 8, a median of 0.3 ulp: misses fall from 10.7 % to 3.3 %.
    """
    guess = left @ right
    goal = np.clip(guess, *bounds)
    off = goal - guess
    pull = _trimmed(off, np.where(off != 0, weights, 0.1 * weights), 0.0)
    return left + _solved(_normal(pull, right), (pull * off) @ right.T)


def _trimmed(misfit: Array, weights: Array, size: float) -> Array:
    """The weights, zero where an entry is so far off that it must have changed otherwise.

    Far off is more than rounding explains, and a tenth of `size`, the typical change: what a fit
    leaves before it has converged stays below that.
    """
    far = np.square(misfit) * weights > _OUTLIER * _OUTLIER
    return np.where(far & (np.abs(misfit) > 0.1 * size), 0.0, weights)


def _typical(change: Array) -> float:
    """The median size of the changes that are not zero."""
    moved = np.abs(change[change != 0])
    return float(np.median(moved)) if len(moved) else 1.0


def _refine(pair: _Pair, right: Array) -> tuple[Array, Array]:
    """Both factors by all rows: left, right, and left once more."""
    rows, columns = pair.new.shape
    rank = len(right)
    step = max(1, _CHUNK // columns)
    chunks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    left = np.zeros((rows, rank))
    normal, misfit = np.zeros((columns, rank, rank)), np.zeros((columns, rank))
    rounded = pair.coarse and rank <= _THOROUGH
    for chunk in chunks:
        change, weights = pair.observe(chunk)
        part = _solve(change, weights, left[chunk], right)
        weights = _trimmed(change - part @ right, weights, _typical(change))
        part = _solve(change, weights, part, right)
        off = change - part @ right
        if rounded:
            bounds = pair.bounds(chunk)
            part = _squeeze(bounds, weights, _squeeze(bounds, weights, part, right), right)
            guess = part @ right
            off = np.clip(guess, *bounds) - guess
            weights = np.where(off != 0, weights, 0.1 * weights)
        left[chunk] = part
        normal += _normal(weights.T, part.T)
        misfit += (weights * off).T @ part
    right = right + _solved(normal, misfit).T
    for chunk in chunks:
        change, weights = pair.observe(chunk)
        if rounded:
            left[chunk] = _squeeze(pair.bounds(chunk), weights, left[chunk], right)
            continue
        weights = _trimmed(change - left[chunk] @ right, weights, _typical(change))
        left[chunk] = _solve(change, weights, left[chunk], right)
    return left, right


# -- fixed point -----------------------------------------------------------------------------------


def _balanced(left: Array, right: Array) -> tuple[Array, Array]:
    """The same product with factors of equal norms: then one step suits both."""
    basis, rest = np.linalg.qr(left)
    inner, values, outer = np.linalg.svd(rest @ right, full_matrices=False)
    root = np.sqrt(values)
    return (basis @ inner) * root, root[:, None] * outer


def _quantised(pair: _Pair, left: Array, right: Array) -> Factors | None:
    """Integer factors of the precision, and in the order, that make the smallest update."""
    left, right = _balanced(left, right)
    largest = max(float(np.abs(left).max()), float(np.abs(right).max()))
    if not np.isfinite(largest) or largest == 0:
        return None
    top = int(np.frexp(largest)[1])
    rows = pair.spread_rows(_TRIAL_ROWS)
    truth, old = pair.new[rows].ravel(), pair.base[rows].ravel()
    best: tuple[float, Factors] | None = None
    numbers = left.size + right.size
    for order in ("rounded",) if pair.dtype.name == "F32" else ("sum", "rounded"):
        worse = 0
        for bits in range(9, 30):
            step = 2.0 ** (top - bits)
            few, across = np.rint(left[rows] / step), np.rint(right / step)
            guess = add(pair.dtype, old, (few @ across * (step * step)).ravel(), order)
            cost = numbers * bits + pair.new.size * _bits_per_entry(truth, guess)
            if best is None or cost < best[0]:
                factors = Factors(np.rint(left / step), across, 2 * (top - bits), order)
                best, worse = (cost, factors), 0
            elif (worse := worse + 1) == 4:
                break
    return None if best is None else best[1]


def _bits_per_entry(truth: Values, guess: Values) -> float:
    """About what the residual takes: which entries miss, and by how much."""
    missed = truth != guess
    share = float(np.count_nonzero(missed)) / len(truth)
    if share in (0.0, 1.0):
        places = 0.0
    else:
        places = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    distances = difference(truth[missed], guess[missed], True).astype(np.float64)
    return float(places + np.log2(1 + distances).sum() / len(truth))
