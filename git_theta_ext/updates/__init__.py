"""Updates: each predicts a block from its predecessor and keeps the exact residual.

The registry knows all its members and imports one when it is asked for. A kind that it does not
know may come from another package, through the entry-point group `git_theta_ext.updates`.
"""

from __future__ import annotations

import typing
from functools import cache
from importlib import import_module

from git_theta_ext.core.errors import UnknownUpdateError
from git_theta_ext.updates.base import Update

_KINDS = {
    "dense": ("git_theta_ext.updates.dense", "Dense"),
    "delta": ("git_theta_ext.updates.delta", "Delta"),
    "patch": ("git_theta_ext.updates.patch", "Patch"),
    "sparse": ("git_theta_ext.updates.sparse", "Sparse"),
    "step": ("git_theta_ext.updates.step", "Step"),
    "scale": ("git_theta_ext.updates.scale", "Scale"),
    "low-rank": ("git_theta_ext.updates.low_rank.update", "LowRank"),
    "scaled-low-rank": ("git_theta_ext.updates.low_rank.scaled", "ScaledLowRank"),
    "kronecker": ("git_theta_ext.updates.structured.kronecker", "Kronecker"),
    "hadamard": ("git_theta_ext.updates.structured.hadamard", "Hadamard"),
    "orthogonal": ("git_theta_ext.updates.structured.orthogonal", "Orthogonal"),
    "cast": ("git_theta_ext.updates.cast", "Cast"),
    "quantise": ("git_theta_ext.updates.quantise", "Quantise"),
    "permute": ("git_theta_ext.updates.permute", "Permute"),
    "resize": ("git_theta_ext.updates.resize", "Resize"),
}
_GROUP = "git_theta_ext.updates"


def kinds() -> list[str]:
    """The kinds of update that this package has."""
    return list(_KINDS)


@cache
def get(kind: str) -> Update:
    """The update of a kind.

    Raises:
        UnknownUpdateError: neither this package nor an installed plug-in has it.
    """
    if kind in _KINDS:
        module, name = _KINDS[kind]
        return typing.cast(Update, getattr(import_module(module), name)())
    from importlib.metadata import entry_points

    for point in entry_points(group=_GROUP, name=kind):
        return typing.cast(Update, point.load()())
    raise UnknownUpdateError(
        f"unknown kind of update {kind!r}; known: {', '.join(_KINDS)}",
        hint=f"install the package that offers {kind!r} under the entry points {_GROUP}",
    )
