"""Whether a manifest stands for exactly the bytes of a file: found out before anything names it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.manifest.model import Block, Manifest, UpdateRef
from git_theta_ext.objects.blocks import Blocks

_KEPT_BLOCKS = 100_000


class Verifier:
    """Compares versions with their originals; a block that stays from version to version once."""

    def __init__(self, blocks: Blocks) -> None:
        """`blocks` has the objects."""
        self._blocks = blocks
        self._known: OrderedDict[Block, None] = OrderedDict()

    def require_same(
        self,
        manifest: Manifest,
        path: str,
        source: FileSource,
        hashed: Mapping[int, str],
        ref: UpdateRef | None,
    ) -> None:
        """Check that a checkpoint comes back as the file that it was made of.

        Every block is rebuilt when it first comes, and compared. One that an earlier version had as
        well is the same where the bytes had its SHA-256 when it was made an entry of this one. What
        git-lfs promises is a hash of the whole file, for which it is read once more.

        Args:
            manifest: what is to stand for it.
            path: what messages call it.
            source: the original, as it was read before.
            hashed: the SHA-256 of its blocks, by their offsets, as they were found then.
            ref: what git-lfs promises of it; None where it is a blob.

        Raises:
            CorruptObjectError: it differs, or the original is not what git-lfs promises.
        """

        def known(start: int, block: Block) -> bool:
            return hashed.get(start) == block.sha256 and block in self._known

        digest = hashlib.sha256()
        smudger = Smudger(manifest, self._blocks, path)
        same = smudger.same_as(source, known, None if ref is None else digest.update)
        if same and not source.is_unchanged():  # what was found then counts no longer
            digest = hashlib.sha256()
            same = smudger.same_as(source, feed=digest.update)
        if not same:
            raise CorruptObjectError(
                f"{printable(path)} does not come back as it was; nothing was moved",
                hint="this should never happen: please report it",
            )
        if ref is not None and digest.hexdigest() != ref.oid:
            raise CorruptObjectError(
                f"{printable(path)}: the file of git-lfs is not object {ref.oid}: it is damaged",
                hint=f"move {printable(str(source.path))} away; a remote that has it is asked again"
                " then",
            )
        for entry in manifest.entries:
            for block in entry.blocks:
                if block.inline is None:
                    self._known[block] = None
                    self._known.move_to_end(block)
        while len(self._known) > _KEPT_BLOCKS:
            self._known.popitem(last=False)
