"""Bytes of packs that nothing needs any more: parts of tensors that have changed since."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from git_theta_ext.core import files
from git_theta_ext.manifest.model import Place, UpdateRef
from git_theta_ext.objects.store.store import Store


def dead_bytes(store: Store, refs: Iterable[UpdateRef]) -> int:
    """How much of the packs that hold some parameter files is none of them.

    Args:
        store: where the packs are; one that is not here is not counted.
        refs: every parameter file that is needed, as often as one likes.
    """
    used: dict[Place, UpdateRef] = {ref.place: ref for ref in refs if ref.part is not None}
    left: dict[str, int] = {}
    for ref in used.values():
        left[ref.oid] = left.get(ref.oid, ref.size) - ref.nbytes
    total = 0
    for ref in {ref.oid: ref for ref in used.values()}.values():
        path = store.find(ref.oid, ref.size)
        if path is None:
            continue
        with suppress(OSError):  # another process may have pruned it
            header = 8 + int.from_bytes(files.read_part(path, 0, 8), "little")
            total += max(0, left[ref.oid] - header)
    return total
