"""Which checkpoint that went became which that came, as `git diff -M` tells it of other files.

Git looks at lines, and of a trained model's manifest nearly every line is new. What stays is which
tensors there are: `checkpoint-20/model.safetensors` has those of `checkpoint-10/model.safetensors`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from git_theta_ext.core.names import natural_key
from git_theta_ext.manifest.model import Manifest

_LEAST = 0.5
"""The share of tensors that two versions must have in common, as of lines in `git diff -M`."""

_Traits = frozenset[tuple[object, ...]]


def renamed(gone: Mapping[str, Manifest], came: Mapping[str, Manifest]) -> dict[str, str]:
    """New paths, and the old ones that they were; each old path is named once at most.

    The pair that has most in common comes first; of equals, one that has kept its file name, then
    the last old path in natural order.
    """
    before = {path: _traits(manifest) for path, manifest in gone.items()}
    pairs = []
    for new, manifest in came.items():
        now = _traits(manifest)
        for old, then in before.items():
            share = _share(then, now)
            if share >= _LEAST:
                kept = posixpath.basename(old) == posixpath.basename(new)
                same = _share(_hashes(gone[old]), _hashes(manifest))
                pairs.append((share, kept, same, natural_key(old), natural_key(new), old, new))
    found: dict[str, str] = {}
    for *_, old, new in sorted(pairs, reverse=True):
        if new not in found and old not in found.values():
            found[new] = old
    return found


def _share(one: _Traits, other: _Traits) -> float:
    most = max(len(one), len(other))
    return len(one & other) / most if most else 0.0


def _traits(manifest: Manifest) -> _Traits:
    """What training leaves as it is; of bytes without tensors, their chunks."""
    tensors = [entry.tensor for entry in manifest.entries if not entry.opaque]
    if not tensors:
        return _hashes(manifest)
    return frozenset((one.name, one.dtype.name, one.memory_shape) for one in tensors)


def _hashes(manifest: Manifest) -> _Traits:
    return frozenset((block.sha256,) for entry in manifest.entries for block in entry.blocks)
