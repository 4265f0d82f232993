"""Strategies that keep a part of each update: by magnitude, at random, by sign.

Shares are of the tensor (the papers trim TIES over the whole model and rank DELLA within a row);
magnitudes are compared as float32.
"""

from __future__ import annotations

import numpy as np

from git_theta_ext.core.values import Floats
from git_theta_ext.merge.strategies.plain import added, by_recipe, stated
from git_theta_ext.merge.strategies.select import Ranks, kth_largest, kth_largest_each, ranks
from git_theta_ext.merge.strategies.table import Combine, Piece, Settings, Sides
from git_theta_ext.updates.recipes.arithmetic import (
    Updates,
    elect,
    elected_mean,
    magnitudes,
    plain_sum,
    sum_in_order,
    uniform,
)


def ties(sides: Sides, settings: Settings) -> Combine:
    """Trim, elect, merge: the largest entries of each update, then `elect`."""
    floors = _floors(sides, float(settings["density"]))
    return by_recipe("ties", stated(settings, floors=[float(one) for one in floors]), sides)


def _floors(sides: Sides, share: float) -> list[np.float32]:
    """For each update, the magnitude that a share of its entries reaches."""
    wanted = round(share * sides.count)
    return kth_largest_each(
        lambda: (piece.updates for piece in sides), len(sides.seeds), wanted, sides.count
    )


def breadcrumbs(sides: Sides, settings: Settings) -> Combine:
    """The sum of updates whose largest (γ) and smallest entries are left out."""
    gamma, density = float(settings["gamma"]), float(settings["density"])
    ceilings = _floors(sides, gamma)
    floors = _floors(sides, min(1.0, gamma + density))
    words = stated(
        settings,
        floors=[float(one) for one in floors],
        ceilings=[float(one) for one in ceilings],
    )
    return by_recipe("breadcrumbs", words, sides)


def dare_linear(sides: Sides, settings: Settings) -> Combine:
    """Drop and rescale, then add."""
    return _dare("dare-linear", sides, settings)


def dare_ties(sides: Sides, settings: Settings) -> Combine:
    """Drop and rescale, then `elect`."""
    return _dare("dare-ties", sides, settings)


def _dare(name: str, sides: Sides, settings: Settings) -> Combine:
    words = stated(settings, density=[float(settings["density"])])
    seeds = ",".join(seed.hex() for seed in sides.seeds)
    return by_recipe(name, (*words, ("seeds", seeds)), sides)


def della(sides: Sides, settings: Settings) -> Combine:
    """Drop at random, entries of higher rank with a smaller chance; rescale; `elect`."""
    density, epsilon = float(settings["density"]), float(settings["epsilon"])
    tables = [
        ranks(lambda side=side: (piece.updates[side] for piece in sides))  # type: ignore[misc]
        for side in range(len(sides.seeds))
    ]

    def thin(seed: bytes, update: Floats, table: Ranks, piece: Piece) -> Floats:
        # From density − ε/2 for the smallest entry to density + ε/2 for the largest.
        keep = np.clip(density + epsilon * (table.of(update) - 0.5), 0.0, 1.0)
        drawn = uniform(seed, piece.start, len(update)).astype(np.float64) * 2.0**-53
        kept = (drawn < keep) & (keep > 0)
        result: Floats = np.where(kept, update / np.where(keep > 0, keep, 1.0), 0.0)
        return result

    def combine(piece: Piece) -> Floats:
        rows = zip(sides.seeds, piece.updates, tables, strict=True)
        thinned = [thin(seed, update, table, piece) for seed, update, table in rows]
        return added(piece, settings, elect(thinned))

    return combine


def sce(sides: Sides, settings: Settings) -> Combine:
    """Select entries by their variance over the sides, calculate weights, erase minorities."""
    wanted = round(float(settings["density"]) * sides.count)
    floor = kth_largest(lambda: (_variance(piece.updates) for piece in sides), wanted, sides.count)

    def selected(piece: Piece) -> list[Floats]:
        keep = magnitudes(_variance(piece.updates)) >= floor
        return [np.where(keep, update, 0.0) for update in piece.updates]

    energy = [0.0] * len(sides.seeds)
    for piece in sides:
        for number, update in enumerate(selected(piece)):
            energy[number] += float(np.sum(update * update))
    total = sum_in_order(energy)
    weights = [one / total if total > 0 else 1.0 / len(energy) for one in energy]
    return lambda piece: added(piece, settings, elected_mean(selected(piece), weights))


def _variance(updates: Updates) -> Floats:
    mean = plain_sum(updates) / len(updates)
    squares = [(update - mean) ** 2 for update in updates]
    return plain_sum(squares) / max(1, len(updates) - 1)
