"""Sine and arc cosine from additions, products, quotients and square roots alone.

Those are rounded the same way everywhere (IEEE 754), which the sines of C libraries are not; and
one more or less in the last place of a weight would change a merged tensor. Accurate to a few units
in the last place, which is more than a merge needs.
"""

from __future__ import annotations

import math

_PI = 3.141592653589793


def sine(angle: float) -> float:
    """The sine of an angle from -2π to 2π, in radians."""
    if angle < 0:
        return -sine(-angle)
    if angle > _PI:
        return -sine(angle - _PI)
    if angle > _PI / 2:
        angle = _PI - angle
    square = angle * angle
    total = term = angle
    for number in range(1, 14):
        term = -term * square / (2 * number * (2 * number + 1))
        total += term
    return total


def arccos(cosine: float) -> float:
    """The angle, from 0 to π, whose cosine this is; `cosine` is from -1 to 1."""
    if cosine < 0:
        return _PI - arccos(-cosine)
    opposite = math.sqrt((1.0 - cosine) * (1.0 + cosine))
    # tan of half the angle, halved twice more so that the series is short.
    tangent = opposite / (1.0 + cosine)
    for _ in range(2):
        tangent = tangent / (1.0 + math.sqrt(1.0 + tangent * tangent))
    square = tangent * tangent
    total, power = 0.0, tangent
    for number in range(24):
        total += power / (2 * number + 1)
        power = -power * square
    return 8.0 * total
