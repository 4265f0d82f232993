"""The `orthogonal` update: each row is multiplied by an orthogonal matrix, as merging OFT does.

Qiu and others, "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", 2023 (blocks on the
diagonal); Liu and others, "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization",
2024 (several such, between permutations, and a number for each row); Yuan and others, "Bridging The
Gap between Low-rank and Orthogonal Adaptation via Householder Reflection Adaptation", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import narrow, widen
from git_theta_ext.updates.low_rank.factors import DTYPES
from git_theta_ext.updates.scale import pack_factors, unpack_factors
from git_theta_ext.updates.structured import rotation
from git_theta_ext.updates.structured.law import CHUNK, MOVED, WORTH, Parts, Settings, Supplied
from git_theta_ext.updates.structured.numbers import Numbers, pack, rounded, unpack, whole
from git_theta_ext.updates.structured.rotation import Wide

_BLOCKS, _REFLECTIONS = "blocks", "reflections"
_KNOWN = DTYPES - {"F64"}
"""PEFT computes in float32."""
_TERMS = 32
"""Of the series; PEFT's default is 5."""


@dataclass(frozen=True)
class Blocks:
    """Orthogonal blocks on a diagonal; several such matrices in a row are a butterfly.

    `skew` has, for each of these, what stands above the diagonals of skew-symmetric blocks
    (matrices × blocks × entries); one block is taken for all. They are Cayley transforms, or so
    many `terms` of their series. `turned`: the blocks are transposed.
    """

    skew: Numbers
    size: int
    columns: int
    terms: int = 0
    turned: bool = False

    @property
    def count(self) -> int:
        """What is summed for each entry of a row."""
        return len(self.skew) * self.size

    @property
    def products(self) -> int:
        """What each entry takes; to move it costs as much as some."""
        return len(self.skew) * (self.size + MOVED)

    def fits(self) -> bool:
        """Whether it is of a form that is read."""
        return self.size > 1 and self.terms <= _TERMS

    def rounded(self, bits: int) -> Blocks:
        """The same with numbers of so many bits of mantissa."""
        return replace(self, skew=rounded(self.skew, bits))

    @property
    def numbers(self) -> int:
        """How many are stored."""
        return self.skew.size

    @cached_property
    def made(self) -> list[tuple[Numbers, NDArray[np.intp] | None]]:
        """The blocks of each matrix, and where each place of a row moves before."""
        found: list[tuple[Numbers, NDArray[np.intp] | None]] = []
        for number, above in enumerate(self.skew):
            skew = rotation.skew_of(above, self.size)
            blocks = rotation.series(skew, self.terms) if self.terms else rotation.cayley(skew)
            order = None
            if len(self.skew) > 1:
                groups = (self.columns // self.size) >> number
                order = rotation.butterfly(self.columns, groups, self.size // 2)
            found.append((blocks.swapaxes(1, 2) if self.turned else blocks, order))
        return found

    def turn(self, rows: Wide) -> Wide:
        """New rows of old ones."""
        for blocks, order in self.made:
            if order is None:
                rows = rotation.by_blocks(blocks, rows)
                continue
            moved = np.empty_like(rows)
            moved[:, order] = rows
            rows = rotation.by_blocks(blocks, moved)[:, order]
        return rows

    def packed(self) -> tuple[Settings, Parts]:
        """What is stored of it."""
        matrices, blocks, _ = self.skew.shape
        said: Settings = {
            "form": _BLOCKS,
            "size": self.size,
            "blocks": blocks,
            "matrices": matrices,
        }
        if self.terms:
            said["terms"] = self.terms
        if self.turned:
            said["turned"] = True
        return said, {"skew": pack(self.skew)}

    def remarks(self) -> tuple[tuple[str, str], ...]:
        """How many blocks, and of what size."""
        shape = f"{self.columns // self.size}x{self.size}"
        matrices = len(self.skew)
        return (("blocks", shape), *((("matrices", str(matrices)),) if matrices > 1 else ()))


@dataclass(frozen=True)
class Reflections:
    """Vectors (vectors × columns) of length 1 along which rows are reflected.

    `together`: each goes by the old row, for they are orthogonal to each other.
    """

    vectors: Numbers
    together: bool

    @property
    def columns(self) -> int:
        """Of the rows."""
        return int(self.vectors.shape[1])

    @property
    def count(self) -> int:
        """How many."""
        return len(self.vectors)

    @property
    def products(self) -> int:
        """What each entry takes."""
        return 2 * self.count

    def fits(self) -> bool:
        """Whether it is of a form that is read."""
        return self.count > 0

    def rounded(self, bits: int) -> Reflections:
        """The same with numbers of so many bits of mantissa."""
        return replace(self, vectors=rounded(self.vectors, bits))

    @property
    def numbers(self) -> int:
        """How many are stored."""
        return self.vectors.size

    def turn(self, rows: Wide) -> Wide:
        """New rows of old ones, which are overwritten."""
        return rotation.reflected(self.vectors.astype(np.float64), rows, self.together)

    def packed(self) -> tuple[Settings, Parts]:
        """What is stored of it."""
        said: Settings = {"form": _REFLECTIONS, "vectors": self.count}
        if self.together:
            said["together"] = True
        return said, {"vectors": pack(self.vectors)}

    def remarks(self) -> tuple[tuple[str, str], ...]:
        """How many."""
        return (("reflections", str(self.count)),)


@dataclass(frozen=True)
class OrthogonalLaw:
    """Rows are rotated in float64, rounded to float32, and multiplied by a number of each.

    `factors` are these numbers, as many as there are rows; none where they are None.
    """

    rotation: Blocks | Reflections
    factors: Numbers | None = None

    kind: ClassVar[str] = "orthogonal"

    def of_rows(self, rows: slice) -> OrthogonalLaw:
        """The same for some rows."""
        factors = None if self.factors is None else self.factors[rows]
        return OrthogonalLaw(self.rotation, factors)

    def stored(self, spec: BlockSpec) -> OrthogonalLaw | None:
        """Itself, where the block has more rows than an entry of one has products."""
        rows = spec.count // self.rotation.columns
        fits = spec.dtype.name in _KNOWN and self.rotation.fits() and self.rotation.count <= rows
        return self if fits and self.rotation.products <= WORTH else None

    def rounded(self, bits: int) -> OrthogonalLaw:
        """The same with numbers of so many bits of mantissa."""
        return OrthogonalLaw(self.rotation.rounded(bits), self.factors)

    @property
    def numbers(self) -> int:
        """How many are stored, but for those of the rows."""
        return self.rotation.numbers

    def predict(self, dtype: DType, values: Values) -> Values:
        """Rotate, and round to float32 and to the dtype."""
        columns = self.rotation.columns
        step, count = max(1, CHUNK // columns), len(values) // columns
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for first in range(0, count, step):
                last = min(first + step, count)
                piece = slice(first * columns, last * columns)
                wide = widen(dtype, values[piece]).astype(np.float64)
                found = self.rotation.turn(wide.reshape(-1, columns)).astype(np.float32)
                if self.factors is not None:
                    found *= self.factors[first:last, None]
                values[piece] = narrow(dtype, found.ravel(), values[piece])
        return values

    def packed(self) -> tuple[Settings, Parts]:
        """No number of rows: all blocks of a tensor that are rotated alike are one object."""
        said, parts = self.rotation.packed()
        if self.factors is not None:
            parts["factors"] = pack_factors(self.factors)
        return {**said, "columns": self.rotation.columns}, parts

    def remarks(self) -> tuple[tuple[str, str], ...]:
        """What rotates."""
        return self.rotation.remarks()


class Orthogonal(Supplied):
    """The update that stores what rotates the rows of a matrix."""

    kind: ClassVar[str] = "orthogonal"
    known: ClassVar[frozenset[str]] = _KNOWN

    def read(
        self, settings: Mapping[str, Any], parts: Mapping[str, memoryview], count: int
    ) -> OrthogonalLaw:
        """The rotation, and the numbers of the rows."""
        columns = whole(settings, "columns", 1, count)
        rows = count // columns
        if rows * columns != count:
            raise CorruptObjectError(f"rows of {columns} for a block of {count} values")
        found: Blocks | Reflections
        if settings["form"] == _BLOCKS:
            found = _read_blocks(settings, parts, rows, columns)
        elif settings["form"] == _REFLECTIONS:
            vectors = whole(settings, "vectors", 1, min(limits.RANK, rows))
            numbers = unpack(parts["vectors"], (vectors, columns))
            found = Reflections(numbers, _flag(settings, "together"))
        else:
            raise CorruptObjectError(f"a rotation by {settings['form']!r}")
        factors = None
        if "factors" in parts:
            factors = unpack_factors(parts["factors"], rows, np.dtype("<f4"))
        return OrthogonalLaw(found, factors)


def _read_blocks(
    settings: Mapping[str, Any], parts: Mapping[str, memoryview], rows: int, columns: int
) -> Blocks:
    """The blocks: no more numbers than the rows have."""
    # Without this, a small file could make a large block of one row cost its columns' square.
    size = whole(settings, "size", 2, min(limits.RANK, rows))
    matrices = whole(settings, "matrices", 1, min(limits.RANK, rows) // size)
    count, blocks = whole(settings, "blocks"), columns // size
    if blocks * size != columns or count not in (1, blocks):
        raise CorruptObjectError(f"{count} blocks of {size} for rows of {columns}")
    if matrices > 1 and (size % 2 or blocks % (1 << (matrices - 1))):
        raise CorruptObjectError(f"{matrices} matrices of {blocks} blocks of {size}")
    terms = whole(settings, "terms", 1, _TERMS) if "terms" in settings else 0
    skew = unpack(parts["skew"], (matrices, count, size * (size - 1) // 2))
    return Blocks(skew, size, columns, terms, _flag(settings, "turned"))


def _flag(settings: Mapping[str, Any], name: str) -> bool:
    found = settings.get(name, False)
    if type(found) is not bool:
        raise CorruptObjectError(f"a setting {name} of {found!r}")
    return found
