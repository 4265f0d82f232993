"""How a product of two factors is to be made: decided here, computed in `combine.factors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.manifest.model import Entry

Tables = Sequence[Mapping[str, Entry]]
"""The tensors of ours, theirs and the base, by name."""


@dataclass(frozen=True, slots=True)
class Blend:
    """How a product of the result is made of those of ours, theirs and the base.

    `left` and `right` are its factors, as the result has them: out × rank and rank × in. `weights`
    are what each version's product is multiplied by, its scaling counted in; a version of weight
    zero is not read. `alpha` is given where the factors of all versions are joined, which asks for
    it in the adapter's settings; None where they are factored anew.
    """

    left: TensorInfo
    right: TensorInfo
    weights: tuple[float, ...]
    alpha: float | None = None

    @property
    def rank(self) -> int:
        """The rank of the result."""
        return self.left.shape[1]

    @property
    def names(self) -> tuple[str, str]:
        """The names of both factors."""
        return self.left.name, self.right.name

    def entries(self, tables: Tables) -> list[tuple[float, Entry, Entry]]:
        """Weight, left and right factor of every version that has a part in it."""
        left, right = self.names
        return [
            (weight, table[left], table[right])
            for weight, table in zip(self.weights, tables, strict=True)
            if weight
        ]
