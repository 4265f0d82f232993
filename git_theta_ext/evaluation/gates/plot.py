"""A small picture of scores in a line of text, which a comment can hold."""

from __future__ import annotations

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_NONE = "·"
MOST = 24
"""Versions that a picture shows: the last ones."""


def bars(values: Sequence[float | None]) -> str:
    """Bars from the lowest to the highest value, a point where there is none.

    "" where there are fewer than two values, which say nothing about how a score moved.
    """
    shown = list(values[-MOST:])
    known = [one for one in shown if one is not None]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    reach = (high - low) or 1.0
    top = len(_BARS) - 1
    return "".join(
        _NONE
        if one is None
        else _BARS[round(top * (one - low) / reach) if high > low else top // 2]
        for one in shown
    )
