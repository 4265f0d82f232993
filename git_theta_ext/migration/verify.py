"""Whether a manifest stands for exactly the bytes of a file: found out before anything names it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.manifest.model import Block, Manifest, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import sha256_of

_KEPT_BLOCKS = 100_000


class Verifier:
    """Compares versions with their originals; a block that stays from version to version once."""

    def __init__(self, blocks: Blocks) -> None:
        """`blocks` has the objects."""
        self._blocks = blocks
        self._known: OrderedDict[Block, None] = OrderedDict()

    def require_same(
        self, manifest: Manifest, path: str, file: Path, ref: UpdateRef | None
    ) -> None:
        """Check that a checkpoint comes back as the file that it was made of.

        Every block is rebuilt when it first comes, and compared; of one that an earlier version
        had as well the bytes of the file are hashed.

        Args:
            manifest: what is to stand for it.
            path: what messages call it.
            file: the original.
            ref: what git-lfs promises of it; None where it is a blob.

        Raises:
            CorruptObjectError: it differs, or the original is not what git-lfs promises.
        """
        with FileSource(file) as source:
            if not Smudger(manifest, self._blocks, path).same_as(source, self._known):
                raise CorruptObjectError(
                    f"{printable(path)} does not come back as it was; nothing was moved",
                    hint="this should never happen: please report it",
                )
        if ref is not None and sha256_of(file) != ref.oid:
            raise CorruptObjectError(
                f"{printable(path)}: the file of git-lfs is not object {ref.oid}: it is damaged",
                hint=f"remove {printable(str(file))}, which git-lfs then fetches again",
            )
        for entry in manifest.entries:
            for block in entry.blocks:
                if block.inline is None:
                    self._known[block] = None
                    self._known.move_to_end(block)
        while len(self._known) > _KEPT_BLOCKS:
            self._known.popitem(last=False)
