"""Chains: a dense block, then updates, each applied to what came before."""

from __future__ import annotations

from collections.abc import Sequence

from git_theta_ext import updates
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.updates.arithmetic import require_subnormals
from git_theta_ext.updates.base import Parameters, base_spec
from git_theta_ext.updates.dense import Dense


def decode_chain(
    spec: BlockSpec,
    files: Sequence[Parameters],
    *,
    whole: bool = True,
    base: Values | None = None,
    room: Values | None = None,
) -> Values:
    """The values that a chain of parameter files stands for, in a fresh writable array.

    Or in `room`, but only where that saves copying them.

    The caller verifies the hash; this only promises to stay within a small multiple of the block.

    Args:
        spec: what the last file decodes to.
        files: the parsed parameter files, the first one first.
        whole: whether the values must be as many as `spec` says. Not so for the first part of a
            chain, which for plain bytes may be of another length.
        base: what the part of the chain before `files` decodes to; it may be written to.
        room: memory that is free to be used, of the type of the values.

    Raises:
        CorruptObjectError: the files do not fit together or are damaged.
        UnknownUpdateError: one is of a kind that needs a plug-in.
        UsageError: this thread computes in a way that gives other bits (`require_subnormals`).
    """
    require_subnormals()
    values = base
    for file, expected in zip(files, specs(spec, files), strict=True):
        update = updates.get(file.kind)
        if update.needs_base != (values is not None):
            raise CorruptObjectError(f"{file.kind!r} stands at the wrong place in its chain")
        try:
            if room is not None and isinstance(update, Dense):
                values = update.decode(expected, file, values, room)
            else:
                values = update.decode(expected, file, values)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise CorruptObjectError(f"{file.kind}: settings are damaged: {error!r}") from error
    if values is None or (whole and values.nbytes != spec.nbytes):
        found = 0 if values is None else values.nbytes
        raise CorruptObjectError(f"the chain decodes to {found} bytes, expected {spec.nbytes}")
    return values


def specs(spec: BlockSpec, files: Sequence[Parameters]) -> list[BlockSpec]:
    """What each file of a chain decodes to, known from the end: `spec` is the last one's."""
    specs: list[BlockSpec] = []
    for file in reversed(files):
        specs.append(spec)
        spec = base_spec(file.settings) or spec
    return specs[::-1]


def before(spec: BlockSpec, files: Sequence[Parameters]) -> BlockSpec:
    """What stands before some files of a chain, of which the last one makes `spec`."""
    for file in reversed(files):
        spec = base_spec(file.settings) or spec
    return spec
