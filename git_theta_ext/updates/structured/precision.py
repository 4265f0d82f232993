"""A law's numbers in the precision that makes the smallest update."""

from __future__ import annotations

from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Encoded
from git_theta_ext.updates.low_rank.precision import bits_per_entry
from git_theta_ext.updates.structured.law import Law, encoded

_TRIAL_ROWS = 32
_SHORTEST, _SINGLE, _EXPONENT = 7, 24, 3
"""Bits of mantissa that are tried, and what sign and exponent take beside them, compressed."""


def as_pays(spec: BlockSpec, new: Values, base: Values, law: Law, columns: int) -> Encoded:
    """A block as a law, of short weights with numbers in the precision that pays.

    Weights of less than 32 bits do not tell all bits of the numbers. Some of the rows say how many:
    as the numbers get shorter, more entries are missed.

    Args:
        spec, new, base, law: as for `law.encoded`.
        columns: of the block's rows.
    """
    if spec.dtype.bits >= 32:
        return encoded(spec, new, base, law)
    first = len(new) // columns // 2
    some = slice(first, min(first + _TRIAL_ROWS, len(new) // columns))
    piece = slice(some.start * columns, some.stop * columns)
    truth, few = new[piece], law.of_rows(some)
    best, least = law, float(law.numbers * _SINGLE)
    for bits in range(_SHORTEST, _SINGLE):
        guess = few.rounded(bits).predict(spec.dtype, base[piece].copy())
        taken = law.numbers * (bits + _EXPONENT) + len(new) * bits_per_entry(truth, guess)
        if taken < least:
            best, least = law.rounded(bits), taken
    whole = encoded(spec, new, base, law)
    if best is law:
        return whole
    short = encoded(spec, new, base, best)
    return short if short.nbytes < whole.nbytes else whole
