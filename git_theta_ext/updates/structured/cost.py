"""What the structured kinds cost to decode, by what their settings claim: products of numbers.

Claims are not believed further than decoding takes them: settings that are none cost nothing, and
are refused there before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.updates.structured.law import MOVED

KINDS = frozenset({"hadamard", "kronecker", "orthogonal"})


def products(kind: str, settings: Mapping[str, Any] | None, values: float) -> float:
    """Products of two numbers that a block of so many values takes; the most where none are known.

    Args:
        kind: one of `KINDS`.
        settings: of its parameter file.
        values: of the block.
    """
    if settings is None:
        return 2.0 * limits.RANK * values
    if kind != "orthogonal":
        return _of_sides(settings) * values
    most = limits.RANK
    if settings.get("form") == "reflections":
        return 2.0 * _number(settings.get("vectors"), most) * values
    size, matrices = (_number(settings.get(name), most) for name in ("size", "matrices"))
    made = _number(settings.get("blocks"), values) * matrices * size**3
    each = 3 + _number(settings.get("terms"), most)
    return matrices * (size + MOVED) * values + min(made, matrices * size**2 * values) * each


def _of_sides(settings: Mapping[str, Any]) -> int:
    """The ranks of both sides, and the inner extents of their cores."""
    total = 0
    for said in (settings.get("first"), settings.get("second")):
        if isinstance(said, Mapping):
            core = said.get("core")
            inner = core[0] if isinstance(core, list) and core else 0
            total += _number(said.get("rank"), limits.RANK) + _number(inner, limits.RANK)
    return total


def _number(claimed: Any, most: float) -> int:
    """A number that is claimed; 0 where it is none, or out of its range."""
    return claimed if type(claimed) is int and 0 < claimed <= most else 0
