"""What is wanted of a package, how it is got, and what was got."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core.tensors import DType
from git_theta_ext.packages.fetched import Package, Progress
from git_theta_ext.packages.release.signing import Trust

Watch = Callable[[str, int], AbstractContextManager[Progress]]
"""Given what is done and how many bytes it takes, gives what is called with those that are done."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of checkpoints is wanted: tensors by patterns (none: all), as which container and dtype.

    Where nothing is said, a checkpoint is wanted byte for byte.
    """

    tensors: tuple[str, ...] = ()
    container: str | None = None
    dtype: DType | None = None

    def __bool__(self) -> bool:
        return bool(self.tensors or self.container or self.dtype)


BYTE_FOR_BYTE = Wanted()


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written: its path from the folder, its length in bytes, and its SHA-256.

    `remark` is what its readers have to know, because it does not say it itself.
    """

    path: str
    size: int
    sha256: str
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class How:
    """How a version is got.

    `wanted` says which tensors, and as what. `force` replaces files that somebody changed;
    `offline` asks no remote; `refresh` asks it for a tag, too, that is here. With `trust`, nothing
    is written that was not signed by whom it names; `signature` is a file of this machine, for a
    version that has none.
    """

    wanted: Wanted = BYTE_FOR_BYTE
    force: bool = False
    offline: bool = False
    refresh: bool = False
    trust: Trust | None = None
    signature: Path | None = None


AS_IT_IS = How()


@dataclass(frozen=True, slots=True)
class Got:
    """What was got: `place` is the folder, or the file where one was asked for.

    `files` are all that belong to it, `written` those that were not there as they are. `removed`
    are those of an earlier version, `left` the ones among these that somebody changed; `remarks`
    are what readers have to know of files that were written.
    """

    package: Package
    place: Path
    files: tuple[Written, ...]
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Where it goes: a folder, and, if one file is meant, its name there."""

    folder: Path
    name: str | None = None

    @property
    def path(self) -> Path:
        """The folder or the file."""
        return self.folder if self.name is None else self.folder / self.name
