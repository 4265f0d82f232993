"""The arithmetic of merges that is frozen: sums in the order of the sides, and election by sign.

Strategies compute with these, and so does whoever decodes a recipe. A change here would change what
is stored: give a function that computes something else another name, and its recipe a new number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.values import Floats

Updates = Sequence[Floats]


def weighted_sum(weights: Sequence[float], arrays: Updates) -> Floats:
    """Σ w·x, from the first to the last."""
    if all(weight == 1.0 for weight in weights) and len(arrays) > 1:
        total = np.add(arrays[0], arrays[1])
        for array in arrays[2:]:
            total += array
        return total
    total = np.multiply(weights[0], arrays[0])
    for weight, array in zip(weights[1:], arrays[1:], strict=True):
        total += weight * array
    return total


def sum_in_order(numbers: Iterable[float]) -> float:
    """Σ x, each added to what came before it, and rounded.

    As the `sum` of Python 3.11 and earlier. That of 3.12 and later carries what rounding lost along
    ("What's New in Python 3.12"), and so gives other bits.
    """
    total = 0.0
    for number in numbers:
        total += number
    return total


def plain_sum(arrays: Updates) -> Floats:
    """Σ x, from the first to the last."""
    return weighted_sum([1.0] * len(arrays), arrays)


def weighted_mean(weights: Sequence[float], arrays: Updates) -> Floats:
    """Σ w·x / Σ w."""
    found = weighted_sum(weights, arrays)
    found /= sum_in_order(weights)
    return found


def added(base: Floats, factor: float, update: Floats) -> Floats:
    """base + λ · update."""
    result: Floats = np.add(base, factor * update)
    return result


def reapplied(base: Floats, sides: Updates, factor: float) -> Floats:
    """The first side + λ · Σ (side − base) of the others."""
    others = [side - base for side in sides[1:]]
    return sides[0] + factor * plain_sum(others)


def magnitudes(numbers: Floats) -> NDArray[np.float32]:
    """Absolute values as float32; tiny ones do not become zero unless they are."""
    with np.errstate(over="ignore", under="ignore"):
        return np.abs(numbers).astype(np.float32)


def trimmed(update: Floats, floor: np.float32) -> Floats:
    """An update without the entries below a magnitude.

    Multiplied by 0 or 1, which is exact and quicker than a choice; updates are finite.
    """
    result: Floats = update * (magnitudes(update) >= floor)
    return result


def between(update: Floats, floor: np.float32, ceiling: np.float32) -> Floats:
    """An update without the entries below one magnitude, and those from another one on."""
    found = magnitudes(update)
    result: Floats = np.where((found >= floor) & (found < ceiling), update, 0.0)
    return result


DRAWN = 65_536
"""Entries that are drawn for at once: what is random depends on where these runs begin."""


def thinned(update: Floats, density: float, seed: bytes, start: int) -> Floats:
    """Each entry kept with a chance, and then divided by it.

    Args:
        update: at most `DRAWN` entries.
        density: the chance.
        seed: 32 bytes.
        start: where in the tensor they begin.
    """
    if density <= 0:
        return np.zeros_like(update)
    kept = uniform(seed, start, len(update)) < np.uint64(int(density * 2.0**53))
    return np.where(kept, update / density, 0.0)


def uniform(seed: bytes, start: int, count: int) -> NDArray[np.uint64]:
    """53 random bits for each of some entries: Philox's raw stream, which NumPy keeps stable."""
    key = hashlib.sha256(seed + start.to_bytes(8, "little")).digest()
    words = np.frombuffer(key[:16], "<u8").astype(np.uint64)
    found: NDArray[np.uint64] = np.random.Philox(key=words).random_raw(count) >> np.uint64(11)
    return found


def elect(updates: Updates) -> Floats:
    """Merge by sign: the sign of the sum, and the mean of the updates that have it.

    Where the sum is nothing the positive ones count, as in the authors' code.
    """
    return elected_mean(updates, [1.0] * len(updates))


def elected_mean(updates: Updates, weights: Sequence[float]) -> Floats:
    """As `elect`, the mean weighted."""
    positive = plain_sum(updates) >= 0
    total, mass = np.zeros_like(updates[0]), np.zeros_like(updates[0])
    for weight, update in zip(weights, updates, strict=True):
        agrees = (update > 0) == positive
        agrees &= update != 0
        # Multiplied by 0 or 1, which is exact and quicker than a choice; updates are finite.
        np.add(total, (update if weight == 1.0 else weight * update) * agrees, out=total)
        np.add(mass, agrees if weight == 1.0 else weight * agrees, out=mass)
    np.copyto(mass, 1.0, where=mass <= 0)
    total /= mass
    return total
