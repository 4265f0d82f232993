"""Whether a merged block is what a recipe gives of its versions; then nothing else is stored of it.

The merge has computed the block already, by whatever way was quickest. Here the recipe is carried
out by the code that will read it, and only if that gives these very bits, or nearly, is it taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.manifest.model import BASE, Block, Parent, Recipe, UpdateRef
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.table import Combine, Formula
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.choose import may_merge
from git_theta_ext.updates.find import smallest_update
from git_theta_ext.updates.recipes import predict
from git_theta_ext.updates.recipes.formulas import FORMULAS

_SMALLEST_BYTES = 1024
"""The values of a smaller block take less room than the names of its parents."""
_FEW = 0.02
"""The share of entries that a recipe may miss; what it misses is stored."""
_MOST_SIDES = 8
"""All versions of a block are held at once: of 32 MiB each, 300 MB and more."""
_NUMBER = 1


@dataclass(frozen=True, slots=True)
class Template:
    """The recipe of all blocks of a tensor: strategy, settings, and the order of the sides."""

    strategy: str
    words: tuple[tuple[str, str], ...] = ()
    order: tuple[int, ...] = ()


ENTRIES = Template("entries")
"""Every entry from the side that changed it."""


def template_of(choice: Choice, combine: Combine | None, sides: int) -> Template | None:
    """How the blocks of a tensor may be written down; None where no recipe computes them.

    Args:
        choice: the strategy.
        combine: what it made of the tensor, if it computes.
        sides: how many there are.
    """
    if isinstance(combine, Formula):
        if combine.order == (1, 0):  # of two a sum is the same; so that it reads well
            words = tuple((key, ",".join(reversed(text.split(",")))) for key, text in combine.words)
            return Template(combine.name, words)
        return Template(combine.name, combine.words, combine.order)
    if choice.strategy == "theirs":
        return Template("entries", order=tuple(reversed(range(sides))))
    return ENTRIES if choice == CONFLICT or choice.strategy == "ours" else None


@dataclass(frozen=True, slots=True)
class Merging:
    """A block of all versions: the blocks as they are stored, and their values.

    `start` counts the values of the tensor before it. `names` are those of the sides. Without a
    base, `base` and `old` are None.
    """

    spec: BlockSpec
    names: Sequence[str]
    base: Block | None
    blocks: Sequence[Block]
    old: Values | None
    sides: Sequence[Values]
    start: int = 0


def by_recipe(
    template: Template, merging: Merging, values: Values
) -> tuple[Recipe, Encoded | None] | None:
    """The recipe of a merged block, and the update to what it misses, if it misses anything.

    None where values are to be stored: a version is itself stored as a merge, or would be long to
    rebuild, or the recipe misses much.
    """
    if values.nbytes < _SMALLEST_BYTES or len(merging.sides) > _MOST_SIDES:
        return None
    order = template.order or tuple(range(len(merging.sides)))
    sides = [merging.sides[number] for number in order]
    if any(one is not None and len(one) != len(values) for one in (merging.old, *sides)):
        return None
    found = _recipe(template, merging, order)
    if found is None or not may_merge(found) or found.has_base != (merging.old is not None):
        return None
    predicted = predict(found, merging.spec.dtype, merging.old, sides)
    missed = int(np.count_nonzero(predicted != values))
    if not missed:
        return found, None
    if missed > _FEW * len(values):
        return None
    residual = smallest_update(merging.spec, values, predicted)
    return None if residual is None else (found, residual)


def _recipe(template: Template, merging: Merging, order: Sequence[int]) -> Recipe | None:
    """The recipe with the chains of its parents; None where one of them is no plain chain."""
    named = [(merging.names[number], merging.blocks[number]) for number in order]
    if merging.base is not None:
        named.insert(0, (BASE, merging.base))
    parents = []
    for name, block in named:
        chain = tuple(link for link in block.chain if isinstance(link, UpdateRef))
        if not chain or len(chain) != len(block.chain):
            return None
        parents.append(Parent(name, chain))
    words = template.words
    if FORMULAS[template.strategy, _NUMBER].random and merging.start:
        words = (*words, ("start", str(merging.start)))
    return Recipe(template.strategy, _NUMBER, words, tuple(parents))
