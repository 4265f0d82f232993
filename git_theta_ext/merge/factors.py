"""Blend an adapter's factors by their product: exact, then cut to the rank that the sides have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from git_theta_ext.manifest import Entry
from git_theta_ext.merge.choice import Choice


def can_blend(
    members: Sequence[str], tables: Sequence[Mapping[str, Entry]], choice: Choice
) -> bool:
    """Whether factors can be blended by a strategy: a plain pair of LoRA, of one rank."""
    return False
