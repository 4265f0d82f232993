"""Merges as updates: a block is predicted from the versions that were merged.

A recipe names a strategy and its number. The function behind it is frozen: what it gives for the
same versions has the same bits for ever, on every machine, because it is made of comparisons, sums,
products and quotients in float64, in a fixed order, rounded once (decision 0010). A strategy that
is to compute something else gets a new number, and the old function stays.
`tests/golden/test_recipe_results.py` holds the results.

Functions of the machine's library (roots, logarithms, angles), and sums over a whole tensor, have
no place here. What a strategy finds out about a whole tensor, such as the magnitude above which
TIES keeps an entry, is a setting of the recipe.
"""

from __future__ import annotations

from git_theta_ext.updates.recipes.predict import KNOWN, predict

__all__ = ["KNOWN", "predict"]
