"""What the comparisons with PEFT share: how far two tensors are apart, in steps of their dtype."""

from __future__ import annotations

import torch

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def steps(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """How many steps of their dtype two tensors are apart, entry by entry."""
    kind = torch.int32 if ours.dtype == torch.float32 else torch.int16
    bits = [one.contiguous().view(kind).to(torch.int64) for one in (ours, theirs)]
    lowest = -(1 << (8 * ours.element_size() - 1))
    signed = [torch.where(one < 0, lowest - one, one) for one in bits]
    return (signed[0] - signed[1]).abs()


def share_of(apart: torch.Tensor) -> float:
    """The share of entries that are not equal."""
    return float((apart != 0).double().mean())


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, over the largest entry of `theirs`."""
    largest = max(float(theirs.double().abs().max()), 1e-30)
    return float((ours.double() - theirs.double()).abs().max()) / largest
