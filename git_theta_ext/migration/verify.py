"""Whether a manifest stands for exactly the bytes of a file: found out before anything names it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.manifest.model import Manifest, UpdateRef
from git_theta_ext.objects.blocks import Blocks


class _Compare:
    """Takes the bytes of a rebuilt file and compares them with another's."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self.at = 0
        self.same = True
        self.digest = hashlib.sha256()

    def __call__(self, data: memoryview) -> None:
        data = data.cast("B")
        length = data.nbytes
        if self.same:
            inside = self.at + length <= self._source.size
            self.same = inside and self._source.read(self.at, length) == data
        self.digest.update(data)
        self.at += length


def require_same(
    blocks: Blocks, manifest: Manifest, path: str, file: Path, ref: UpdateRef | None
) -> None:
    """Rebuild a checkpoint, and compare it with the file that it was made of.

    Args:
        blocks: where its objects are.
        manifest: what is to stand for it.
        path: what messages call it.
        file: the original.
        ref: what git-lfs promises of it; None where it is a blob.

    Raises:
        CorruptObjectError: it differs, or the original is not what git-lfs promises.
    """
    with FileSource(file) as source:
        compare = _Compare(source)
        Smudger(manifest, blocks, path).write(compare)
        if ref is not None and compare.same and compare.digest.hexdigest() != ref.oid:
            raise CorruptObjectError(
                f"{printable(path)}: the file of git-lfs is not object {ref.oid}: it is damaged",
                hint=f"remove {printable(str(file))}, which git-lfs then fetches again",
            )
        if not compare.same or compare.at != source.size:
            raise CorruptObjectError(
                f"{printable(path)} does not come back as it was; nothing was moved",
                hint="this should never happen: please report it",
            )
