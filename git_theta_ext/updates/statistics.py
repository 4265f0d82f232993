"""What a reader of the manifest wants to know of an update, in two figures."""

from __future__ import annotations

import math

import numpy as np

from git_theta_ext.core.tensors import DType
from git_theta_ext.core.values import Values, as_floats
from git_theta_ext.updates.residual import SLICE


def describe(dtype: DType, new: Values, base: Values) -> tuple[tuple[str, str], ...]:
    """`change`, the norm of the difference over that of the old values, and `entries` if few.

    Sums run in float64 over finite values, slice by slice in a fixed order.
    """
    info: list[tuple[str, str]] = []
    now, then = as_floats(dtype, new), as_floats(dtype, base)
    moved = norm = 0.0
    changed = 0
    for start in range(0, len(new), SLICE):
        piece = slice(start, start + SLICE)
        changed += int(np.count_nonzero(new[piece] != base[piece]))
        if now is None or then is None:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            old = then[piece].astype(np.float64)
            step = now[piece].astype(np.float64) - old
            square_step, square_old = float(np.sum(step * step)), float(np.sum(old * old))
        if not math.isfinite(square_step + square_old):
            finite = np.isfinite(step)
            with np.errstate(over="ignore", invalid="ignore"):
                square_step = float(np.sum(np.square(step[finite])))
                square_old = float(np.sum(np.square(old[finite])))
        moved += square_step
        norm += square_old
    if norm > 0 and math.isfinite(moved / norm):
        info.append(("change", percent(math.sqrt(moved / norm))))
    if 2 * changed < len(new):
        info.append(("entries", percent(changed / len(new))))
    return tuple(info)


def percent(share: float) -> str:
    """A share as a percentage of two significant digits: `0.87%`, `12%`, `130%`, `1.2e-05%`."""
    number = 100 * share
    return f"{number:.0f}%" if 99.5 <= number < 1e6 else f"{number:.2g}%"
