"""Factors as whole numbers, of the precision that makes the smallest update."""

from __future__ import annotations

import numpy as np

from git_theta_ext.core import limits
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.low_rank.factors import Factors
from git_theta_ext.updates.low_rank.observation import Matrix, Pair, Precise, pair_of
from git_theta_ext.updates.low_rank.prediction import add
from git_theta_ext.updates.residual import difference

_TRIAL_ROWS = 32


def quantised(
    spec: BlockSpec, new: Values, base: Values, left: Precise, right: Precise
) -> Factors | None:
    """Factors that are known, in the precision that pays here.

    None where the block is no matrix large enough, has no float dtype, or the product is zero or
    not finite.

    Args:
        spec: what the block is.
        new, base: its raw bits and its predecessor's, flat, of one dtype and length.
        left: float64, rows × rank; the rows are the block's first axis in memory.
        right: float64, rank × columns; the columns are all other axes.
    """
    try:
        with np.errstate(all="ignore"):
            pair = pair_of(spec, new, base)
            if pair is None or left.shape[1] > min(limits.RANK, *pair.new.shape):
                return None
            return _rounded(pair, left, right)
    except np.linalg.LinAlgError:
        return None


def balanced(left: Matrix, right: Matrix) -> tuple[Precise, Precise]:
    """The same product with factors of equal norms, by singular values: one step suits both."""
    basis, rest = np.linalg.qr(left.astype(np.float64))
    inner, values, outer = np.linalg.svd(rest @ right, full_matrices=False)
    root = np.sqrt(values)
    return (basis @ inner) * root, root[:, None] * outer


def rounded_as_pays(pair: Pair, left: Matrix, right: Matrix) -> Factors | None:
    """Integer factors of a change in typical ulps; None where it is zero or not finite."""
    return _rounded(pair, left.astype(np.float64) * pair.unit, right)


def _rounded(pair: Pair, left: Matrix, right: Matrix) -> Factors | None:
    """Integer factors of the precision, and in the order, that make the smallest update."""
    left, right = balanced(left, right)
    largest = max(float(np.abs(left).max()), float(np.abs(right).max()))
    if not np.isfinite(largest) or largest == 0:
        return None
    top = int(np.frexp(largest)[1])
    rows = pair.spread(0, _TRIAL_ROWS)
    truth, old = pair.new[rows].ravel(), pair.base[rows].ravel()
    best: tuple[float, Factors] | None = None
    numbers = left.size + right.size
    for order in ("rounded",) if pair.dtype.name == "F32" else ("sum", "rounded"):
        worse = 0
        for bits in range(9, 30):
            step = 2.0 ** (top - bits)
            few, across = np.rint(left[rows] / step), np.rint(right / step)
            guess = add(pair.dtype, old, (few @ across * (step * step)).ravel(), order)
            cost = numbers * bits + pair.new.size * bits_per_entry(truth, guess)
            if best is None or cost < best[0]:
                factors = Factors(np.rint(left / step), across, 2 * (top - bits), order)
                best, worse = (cost, factors), 0
            elif (worse := worse + 1) == 4:
                break
    return None if best is None else best[1]


def bits_per_entry(truth: Values, guess: Values) -> float:
    """About what the residual takes: which entries miss, and by how much."""
    missed = truth != guess
    share = float(np.count_nonzero(missed)) / len(truth)
    if share in (0.0, 1.0):
        places = 0.0
    else:
        places = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    distances = difference(truth[missed], guess[missed], True).astype(np.float64)
    return float(places + np.log2(1 + distances).sum() / len(truth))
