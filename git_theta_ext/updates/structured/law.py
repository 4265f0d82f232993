"""What the supplied kinds share: a law predicts, and the residual puts right what it misses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec, DType
from git_theta_ext.core.values import Values
from git_theta_ext.updates import correction
from git_theta_ext.updates.base import Encoded, Parameters, Part
from git_theta_ext.updates.low_rank.factors import DTYPES
from git_theta_ext.updates.low_rank.prediction import add
from git_theta_ext.updates.parameter_file import build

CHUNK = 1 << 15
"""Values computed at once."""

WORTH = 96
"""Products for each value up to which a law is stored; a chain has at most eight such updates."""

MOVED = 8
"""Products that it costs as much as to move an entry to another place and back."""

Settings = dict[str, Any]
Parts = dict[str, Part]


class Law(Protocol):
    """What the numbers of an update make of the rows of a matrix: the same bits on every machine.

    Rows are a block's first axis in memory, columns all others.
    """

    kind: ClassVar[str]

    def of_rows(self, rows: slice) -> Law:
        """The law of some of its rows alone, as a block has them."""
        ...

    def stored(self, spec: BlockSpec) -> Law | None:
        """The same in the form in which a block keeps it; None where none is read or worth it."""
        ...

    def rounded(self, bits: int) -> Law:
        """The same with numbers of so many bits of mantissa."""
        ...

    @property
    def numbers(self) -> int:
        """How many are stored."""
        ...

    def predict(self, dtype: DType, values: Values) -> Values:
        """Change raw bits, flat, row after row, in place, and return them."""
        ...

    def packed(self) -> tuple[Settings, Parts]:
        """What is stored of it."""
        ...

    def remarks(self) -> tuple[tuple[str, str], ...]:
        """What it is, for those who read manifests."""
        ...


class Supplied:
    """A kind of update that stores a law: `read` is its half of `packed`."""

    needs_base: ClassVar[bool] = True
    kind: ClassVar[str]
    known: ClassVar[frozenset[str]] = DTYPES
    """Element types of its blocks."""

    def read(self, settings: Mapping[str, Any], parts: Mapping[str, memoryview], count: int) -> Law:
        """The law of a block of so many values.

        Raises:
            CorruptObjectError, KeyError, TypeError, ValueError: it does not describe one.
        """
        raise NotImplementedError

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """None: it is not sought."""
        return None

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values; writes into `base`."""
        if base is None or spec.dtype.name not in self.known:
            raise CorruptObjectError(f"a change of kind {self.kind!r} to {spec.dtype.name}")
        law = self.read(parameters.settings, parameters.parts, len(base))
        values = law.predict(spec.dtype, base)
        correction.apply(parameters.settings, parameters.parts, values, True)
        return values


def encoded(spec: BlockSpec, new: Values, base: Values, law: Law) -> Encoded:
    """A block as the numbers of a law, and what they miss.

    Args:
        spec: what the block is, of a dtype that the law's kind knows.
        new, base: its raw bits and its predecessor's, flat, of one dtype and length.
        law: of as many values, as `stored` gives it.
    """
    predicted = law.predict(spec.dtype, base.copy())
    settings, parts = correction.encode(new, predicted, True)
    more, numbers = law.packed()
    pieces = build(law.kind, {**settings, **more}, {**parts, **numbers})
    return Encoded(law.kind, pieces, law.remarks())


def add_rows(
    dtype: DType, values: Values, columns: int, rows: Callable[[slice], NDArray[np.float32]]
) -> Values:
    """Add rows that are computed, in float32 (float64 for F64), and round once to the dtype.

    Args:
        dtype: a real float dtype.
        values: raw bits, flat; they are changed.
        columns: how many values a row has.
        rows: what is added to some of the rows.
    """
    step = max(1, CHUNK // columns)
    count = len(values) // columns
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for first in range(0, count, step):
            some = slice(first, min(first + step, count))
            piece = slice(some.start * columns, some.stop * columns)
            added = rows(some).ravel().astype(np.float64)
            values[piece] = add(dtype, values[piece], added, "sum")
    return values
