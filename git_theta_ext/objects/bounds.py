"""Before a checkpoint is rebuilt or compared: is it in proportion, and is there room for it?

What is out of all proportion is refused, what is unusual is said on stderr before it begins.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from git_theta_ext.core.errors import ManifestError, StoreError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.text import printable, size
from git_theta_ext.manifest.model import Block, Manifest
from git_theta_ext.objects.blocks import NOT_HONEST, Blocks
from git_theta_ext.objects.memory import memory
from git_theta_ext.objects.work import Work

_SMALL_BYTES = 64 << 20
"""Values up to this size are made without a look at the memory."""
SKIP = (
    "make room, or keep the manifest in the work tree for now: set GIT_THETA_SKIP_SMUDGE=1 in the "
    "environment, repeat the command, and run git theta pull FILE when there is room"
)


def check_work(
    blocks: Blocks, wanted: Iterable[tuple[BlockSpec, Block]], name: str, *, reading: bool
) -> None:
    """Look at what some blocks ask for; their objects should be at hand.

    Args:
        blocks: where they are.
        wanted: each block, and what it is.
        name: what messages call the file.
        reading: nobody needs the bytes themselves, so that too many of them are refused.

    Raises:
        ManifestError: no honest checkpoint asks for as much.
    """
    work = blocks.weigh(wanted)
    problem = work.too_long() or (work.too_large() if reading else None)
    if problem is not None:
        raise ManifestError(problem, hint=NOT_HONEST)
    remark = work.remark()
    if remark is not None:
        say(name, remark)


ROOM = "make room there, then try again"


def check_room(
    name: str, nbytes: int, folder: Path, *, certain: bool, in_memory: bool, hint: str = SKIP
) -> None:
    """Look whether a file of so many bytes can be written.

    Args:
        name: what messages call the file.
        nbytes: its size.
        folder: where it goes.
        certain: it does go there; else Git may want it elsewhere, and a lack of space is only said.
        in_memory: Git holds all of it before it writes.
        hint: what to do; `ROOM` for a file that is no checkpoint of the work tree.

    Raises:
        StoreError: it fits neither the disk, nor memory and swap space together.
    """
    free = free_space(folder)
    if free is not None and nbytes > free:
        lack = f"the file has {size(nbytes)}; {size(free)} are free on its disk"
        if certain:
            raise StoreError(lack, hint=hint)
        say(name, lack)
    if not in_memory:
        return
    available, most = memory()
    if most is not None and nbytes > most:
        raise StoreError(
            f"Git holds a file in memory before it writes it: this one has {size(nbytes)}; memory "
            f"and swap space together have {size(most)}",
            hint="set GIT_THETA_SKIP_SMUDGE=1 in the environment, repeat the command, then run "
            "git theta pull FILE, which writes block by block",
        )
    if available is not None and nbytes > available:
        say(
            name,
            f"Git holds all {size(nbytes)} in memory before it writes them; at most "
            f"{size(available)} are free (git theta pull writes block by block, after "
            "GIT_THETA_SKIP_SMUDGE=1)",
        )


def check_together(sizes: Mapping[str, int], top: Path) -> None:
    """Say it where files that are about to be written do not fit on the disk together.

    Args:
        sizes: their sizes by path.
        top: what the paths count from. Files that stand there give their room back.
    """
    if len(sizes) < 2:
        return
    free = free_space(top)
    needed = sum(sizes.values()) - sum(_length(top / path) for path in sizes)
    if free is not None and needed > free:
        say(
            f"{len(sizes)} files",
            f"together they need {size(needed)} more than now; {size(free)} are free on the disk",
        )


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def claimed(manifest: Manifest) -> int:
    """The size of the file that a manifest stands for, or a little less: padding is not counted."""
    return sum(entry.tensor.nbytes for entry in manifest.entries)


def check_held(name: str, nbytes: int, blocks: Iterable[Block], more: int = 0) -> None:
    """Look whether values can be held in memory whole, before they are made.

    Args:
        name: what messages call them.
        nbytes: what they take.
        blocks: what they are made of.
        more: bytes that are needed beside them.

    Raises:
        ManifestError: no honest checkpoint stands for as much.
        StoreError: they fit not into memory and swap space together.
    """
    if nbytes < _SMALL_BYTES:
        return
    encoded = {ref.oid: ref.size for block in blocks for ref in block.objects()}
    problem = Work(nbytes=nbytes, encoded=sum(encoded.values())).too_large()
    if problem is not None:
        raise ManifestError(f"{name}: {problem}", hint=NOT_HONEST)
    available, most = memory()
    nbytes += more
    if most is not None and nbytes > most:
        raise StoreError(
            f"{name} takes {size(nbytes)}; memory and swap space together have {size(most)}",
            hint="read a part: rows(name, start, stop) of theta.open(...), or check the file out",
        )
    if available is not None and nbytes > available:
        say(name, f"takes {size(nbytes)} of memory; at most {size(available)} are free")


def say(name: str, text: str) -> None:
    """A sentence about a file, on stderr, at once."""
    print(f"git-theta: {printable(name)}: {text}", file=sys.stderr, flush=True)


def free_space(folder: Path) -> int | None:
    """Bytes that can be written to a folder, or the nearest one above it; None if not known."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
