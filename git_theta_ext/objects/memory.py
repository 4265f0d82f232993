"""How much memory there is: of the machine, of a container, of this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 control groups write a number of this size where there is none."""

_Read = Callable[[Path], tuple[int, int, int] | None]
"""Reads limit, use and limit of swap space of a control group; None where it has no limit."""


def memory(proc: Path = _PROC, groups: Path = _GROUPS) -> tuple[int | None, int | None]:
    """Bytes of memory that are free at most, and those of memory and swap space; None if not known.

    On Linux the limits of the control groups that the process is in count too: those of a
    container, of a CI runner, of a batch system. On macOS swap space grows as it is needed, so
    there is no bound to tell; what is free is at most what is built in.

    Args:
        proc: where Linux tells of processes.
        groups: where Linux shows control groups.
    """
    found = _of_linux(proc)
    if found is not None:
        free, total, swap = found
        most = total + swap
        for limit, used, swap_limit in _limits(proc, groups):
            most = min(most, limit + min(swap, swap_limit))
            free = min(free, max(0, limit - used))
        return free, _of_process(most)
    if sys.platform == "win32":
        return _of_windows()
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _of_process(None)
    except (AttributeError, OSError, ValueError):
        return None, None


def _of_linux(proc: Path) -> tuple[int, int, int] | None:
    """Memory that is free, memory, and swap space."""
    try:
        rows = dict(
            line.split(":", 1)
            for line in (proc / "meminfo").read_text("ascii").splitlines()
            if ":" in line
        )
        found = {key: int(value.split()[0]) << 10 for key, value in rows.items()}
        return found["MemAvailable"], found["MemTotal"], found.get("SwapTotal", 0)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _of_process(most: int | None) -> int | None:
    """What `ulimit -v` leaves; Git has the same limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, AttributeError, OSError, ValueError):
        return most
    if limit == resource.RLIM_INFINITY or limit < 0:
        return most
    return limit if most is None else min(most, limit)


def _limits(proc: Path, groups: Path) -> Iterator[tuple[int, int, int]]:
    """Limit, use and limit of swap space of each control group around the process."""
    try:
        lines = (proc / "self" / "cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from _around(groups, path, _version_2)
            yield from _around(groups / "unified", path, _version_2)
        elif "memory" in controllers.split(","):
            yield from _around(groups / "memory", path, _version_1)


def _around(top: Path, path: str, read: _Read) -> Iterator[tuple[int, int, int]]:
    """What a group and those above it allow; inside a container only the top is to be seen."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        found = read(top.joinpath(*parts[:count]))
        if found is not None:
            yield found


def _version_2(group: Path) -> tuple[int, int, int] | None:
    limit = _number(group / "memory.max")
    if limit is None:
        return None
    swap = _number(group / "memory.swap.max")
    used = (_number(group / "memory.current") or 0) - _cached(group, ("file",))
    return limit, used, _NO_LIMIT if swap is None else swap


def _version_1(group: Path) -> tuple[int, int, int] | None:
    limit = _number(group / "memory.limit_in_bytes")
    if limit is None:
        return None
    both = _number(group / "memory.memsw.limit_in_bytes")
    used = (_number(group / "memory.usage_in_bytes") or 0) - _cached(
        group, ("total_inactive_file", "total_active_file")
    )
    return limit, used, _NO_LIMIT if both is None else max(0, both - limit)


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no limit, or no such file."""
    try:
        value = int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return value if 0 <= value < _NO_LIMIT else None


def _cached(group: Path, names: tuple[str, ...]) -> int:
    """Copies of files, which give way where memory is needed."""
    try:
        lines = (group / "memory.stat").read_text("ascii").splitlines()
        rows = dict(line.split(" ", 1) for line in lines if " " in line)
        return sum(int(rows.get(name, 0)) for name in names)
    except (OSError, ValueError):
        return 0


def _of_windows() -> tuple[int | None, int | None]:
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
