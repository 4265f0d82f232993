"""`permute`: predicts that the rows are old ones in another order.

Frameworks order the gates of an LSTM differently (PyTorch: input, forget, cell, output; ONNX:
input, output, forget, cell), exports sort experts and vocabularies, and neurons of a hidden layer
may change places without changing what a network computes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates import correction
from git_theta_ext.updates.base import Encoded, Parameters
from git_theta_ext.updates.coders import compress_numbers, decompress_numbers
from git_theta_ext.updates.parameter_file import build
from git_theta_ext.updates.residual import apply as move
from git_theta_ext.updates.residual import difference, is_ordered

_MIN_UNIT = 32
"""Values of the shortest row: shorter ones are found twice by accident, and save little."""
_PROBES = 8
_RUN = 64
_PROBE = 8
"""Consecutive values by which a row is recognised."""


class Permute:
    """The update that stores where each row comes from."""

    kind: ClassVar[str] = "permute"
    needs_base: ClassVar[bool] = True

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """Store the order, and what it misses; None unless most rows have moved, whole."""
        unit = unit_of(spec, len(new))
        if base is None or base.dtype != new.dtype or len(base) != len(new) or not unit:
            return None
        places = glance_places(len(base))
        if not looks_permuted(spec, new, places, base[places]):
            return None
        order, found = _order(new.reshape(-1, unit), base.reshape(-1, unit))
        if 2 * found < len(order):
            return None
        predicted = base.reshape(-1, unit)[order].ravel()
        settings, parts = correction.encode(new, predicted, is_ordered(spec.dtype))
        # Rows that moved together follow one another: their steps are zero.
        steps = np.diff(order, prepend=-1).astype(np.int32) - np.int32(1)
        coded = difference(steps.view(np.uint32), np.zeros(len(steps), np.uint32), False)
        parts["order"] = compress_numbers(coded)
        settings["row"] = unit
        return Encoded(self.kind, build(self.kind, settings, parts), (("moved", str(found)),))

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values, in a fresh array."""
        settings, unit = parameters.settings, parameters.settings["row"]
        if base is None or type(unit) is not int or unit < 1 or len(base) % unit:
            raise CorruptObjectError(f"rows of {unit!r} values do not fit their predecessor")
        rows = len(base) // unit
        coded: Values = np.empty(rows, np.uint32)
        decompress_numbers(parameters.parts["order"], coded)
        steps = move(coded, np.zeros_like(coded), False).view(np.int32).astype(np.int64)
        order = np.cumsum(steps + 1) - 1
        if rows and not 0 <= order.min() <= order.max() < rows:
            raise CorruptObjectError(f"a row is taken from place {order.max()} of {rows}")
        values: Values = base.reshape(rows, unit)[order].ravel()
        correction.apply(settings, parameters.parts, values, is_ordered(spec.dtype))
        return values


def unit_of(spec: BlockSpec, count: int) -> int:
    """Values in a row: the fewest trailing axes that have enough of them; 0 if there is none."""
    unit = count // max(spec.count, 1)
    for extent in spec.shape[:0:-1]:
        unit *= extent
        if unit >= _MIN_UNIT:
            return unit if unit < count else 0
    return 0


def glance_places(count: int) -> NDArray[np.intp]:
    """A few runs of places, spread over a block of `count` values."""
    length = min(_RUN, count // _PROBES)
    return (np.arange(_PROBES)[:, None] * (count // _PROBES) + np.arange(length)).ravel()


def looks_permuted(spec: BlockSpec, new: Values, places: NDArray[np.intp], few: Values) -> bool:
    """Whether a quarter of some old values, or more, stand in other rows now.

    Args:
        spec: what the block is.
        new: its values.
        places: where old values stood, in runs of consecutive places.
        few: these old values; of each run the first eight count.
    """
    unit = unit_of(spec, len(new))
    if not unit or not len(places):
        return False
    starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    grid = new.reshape(-1, unit)
    hits = sum(_is_elsewhere(grid, int(places[at]), few[at : at + _PROBE]) for at in starts)
    return 4 * hits >= len(starts)


def _is_elsewhere(grid: Values, place: int, run: Values) -> bool:
    """Whether a run of old values stands in one of the rows, at the same column."""
    row, column = divmod(place, grid.shape[1])
    run = run[: grid.shape[1] - column]
    if len(run) < _PROBE // 2 or (run == run[0]).all():
        return False
    rows = np.flatnonzero(grid[:, column] == run[0])
    if len(rows) > _PROBES or row in rows:
        return False
    return any((grid[at, column : column + len(run)] == run).all() for at in rows)


def _order(new: Values, base: Values) -> tuple[NDArray[np.int64], int]:
    """For each row the old row that it is, and how many are one; the rest follow their neighbour.

    Of equal old rows the one that follows the previous row's is taken, else the first.
    """
    then = [row.tobytes() for row in base]
    places: dict[bytes, int] = {}
    for place, key in enumerate(then):
        places.setdefault(key, place)
    order = np.empty(len(new), np.int64)
    found, following = 0, 0
    for at, row in enumerate(new):
        key = row.tobytes()
        known = places.get(key)
        if known is None:
            place = following
        else:
            place = following if then[following] == key else known
            found += 1
        order[at] = place
        following = (place + 1) % len(then)
    return order, found
