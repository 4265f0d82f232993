"""Before a checkpoint is rebuilt or compared: is it in proportion, and is there room for it?

What is out of all proportion is refused, what is unusual is said on stderr before it begins.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from git_theta_ext.blocks import NOT_HONEST, Blocks
from git_theta_ext.errors import ManifestError, StoreError
from git_theta_ext.manifest import Block
from git_theta_ext.tensors import BlockSpec
from git_theta_ext.text import printable, size

_SKIP = (
    "make room, or keep the manifest in the work tree for now: set GIT_THETA_SKIP_SMUDGE=1 in the "
    "environment, repeat the command, and run git theta pull FILE where there is room"
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


def check_room(name: str, nbytes: int, folder: Path, *, certain: bool, in_memory: bool) -> None:
    """Look whether a file of so many bytes can be written.

    Args:
        name: what messages call the file.
        nbytes: its size.
        folder: where it goes.
        certain: it does go there; else Git may want it elsewhere, and a lack of space is only said.
        in_memory: Git holds all of it before it writes.

    Raises:
        StoreError: it fits neither the disk, nor memory and swap space together.
    """
    free = free_space(folder)
    if free is not None and nbytes > free:
        lack = f"the file has {size(nbytes)}; {size(free)} are free on its disk"
        if certain:
            raise StoreError(lack, hint=_SKIP)
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
            f"Git holds all {size(nbytes)} in memory before it writes them; {size(available)} are "
            "free (git theta pull writes block by block, after GIT_THETA_SKIP_SMUDGE=1)",
        )


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


def memory() -> tuple[int | None, int | None]:
    """Bytes of memory that are free, and those of memory and swap space; None if not known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file if ":" in line)
        found = {key: int(value.split()[0]) << 10 for key, value in rows.items()}
        return found.get("MemAvailable"), found["MemTotal"] + found.get("SwapTotal", 0)
    except (OSError, ValueError, KeyError, IndexError):
        pass
    if sys.platform == "win32":
        return _windows_memory()
    try:
        # Swap space grows as it is needed (macOS), so there is no bound to tell.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    except (AttributeError, OSError, ValueError):
        return None, None


def _windows_memory() -> tuple[int | None, int | None]:
    """From GlobalMemoryStatusEx: free memory, and the bound on what all processes may have."""
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64)
            for name in ("total", "free", "most", "left", "virtual", "space", "extended")
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    library = getattr(ctypes, "windll", None)
    if library is None or not library.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return int(status.free), int(status.most)
