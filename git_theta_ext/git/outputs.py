"""Files that the user names, as with `-o FILE`: whole or not at all, and no trap of a repository.

Outside of work trees a path is the user's word, links on the way included. Inside one a commit may
have put a link there: a link at the end is replaced, one on the way is refused, and so is `.git`.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError
from git_theta_ext.core.text import printable
from git_theta_ext.git.work_tree import WorkTree, is_link, parts_of

_IN_MEMORY_BYTES = 1 << 20
_STREAMS = ("/dev/", "/proc/")
_MOST_LINKS = 40
"""As on Linux: more of them are a loop."""


@contextmanager
def writing(path: str | Path, work_tree: Path | None = None) -> Iterator[IO[bytes]]:
    """A new file, which can be sought in, that becomes `path` when the block ends.

    A pipe, a terminal or a device (`/dev/stdout`) gets the bytes when the block ends.

    Args:
        path: as the user typed it.
        work_tree: the top of the repository's, for one that has no `.git` in it; others are found.

    Raises:
        StoreError: it cannot be written, or lies behind a link of a work tree, or in `.git`.
    """
    try:
        folder, name = _place(path, work_tree)
        top = _top(folder, work_tree)
        if _is_stream(folder / name if top else Path(path), linked=top is None):
            with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as spool:
                yield spool
                spool.seek(0)
                with files.streaming(path) as stream:
                    shutil.copyfileobj(spool, stream, 1 << 20)
        elif top is not None:
            inside = os.path.relpath(folder / name, top).replace(os.sep, "/")
            with WorkTree(top).replacing(inside, make=False) as file:
                yield file
        else:
            kept = files.permissions(folder / name)
            with files.replacing(folder / name, kept=kept) as file:
                yield file
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def to_stdout() -> Iterator[IO[bytes]]:
    """A new file, which can be sought in, that goes to standard output when the block ends.

    Raises:
        StoreError: it cannot be kept meanwhile.
    """
    try:
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as spool:
            yield spool
            spool.seek(0)
            while piece := spool.read(1 << 20):
                sys.stdout.buffer.write(piece)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write to standard output: {error.strerror or error}") from error


def write(path: str | Path, content: bytes, work_tree: Path | None = None) -> None:
    """Write a file that the user named; as for `writing`."""
    with writing(path, work_tree) as file:
        file.write(content)


def check_folder(path: str | Path) -> None:
    """Refuse a folder to be made, or written into, that a work tree has laid a trap with.

    Raises:
        StoreError: it lies behind a link of a work tree, or is one, or is in `.git`.
    """
    folder, _ = _place(Path(path) / "file", None)
    top = _top(folder, None)
    if top is not None:
        parts_of(os.path.relpath(folder / "file", top).replace(os.sep, "/"))


def _place(path: str | Path, work_tree: Path | None) -> tuple[Path, str]:
    """The real folder of a path, and the name in it, found as the system would find it."""
    *folders, name = Path(os.path.realpath(os.getcwd()), path).parts
    here, ahead, links = Path(folders[0] if folders else name), folders[:0:-1], 0
    while ahead:
        part = ahead.pop()
        place = here / part
        if part == "..":
            here = here.parent
        elif not is_link(place):
            here = place
        elif _top(here, work_tree) is not None:
            raise StoreError(
                f"{printable(str(path))} leads through {printable(str(place))}, a link inside a "
                "work tree: nothing is written there",
                hint="name the folder itself that the file is to be written to",
            )
        else:
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            # What the link names is gone through in the same way: it may lead into a work tree.
            to = Path(here, os.readlink(place)).parts
            here, ahead = Path(to[0]), [*ahead, *to[:0:-1]]
    return here, name


def _top(folder: Path, work_tree: Path | None) -> Path | None:
    """The top of the work tree that a folder is in, `.git` included; None outside of any.

    Raises:
        StoreError: the folder is in a Git directory without a work tree around it.
    """
    given = None if work_tree is None else Path(os.path.realpath(work_tree))
    for place in (folder, *folder.parents):
        if place == given or os.path.lexists(place / ".git"):
            return place
        if (
            (place / "HEAD").is_file()
            and (place / "objects").is_dir()
            and (place / "refs").is_dir()
        ):
            raise StoreError(
                f"{printable(str(folder))} belongs to a Git directory: nothing is written there",
                hint="name another folder",
            )
    return None


def _is_stream(path: Path, *, linked: bool) -> bool:
    """Whether bytes are to be sent to what is at a path, for it is no file to be replaced.

    Args:
        path: the file.
        linked: a link to such a thing is one, too.
    """
    try:
        found = os.stat(path, follow_symlinks=linked)
    except OSError:
        return False
    if stat.S_ISREG(found.st_mode):  # /dev/stdout may lead to a file: it is not to be replaced
        return linked and os.path.abspath(path).startswith(_STREAMS) and os.path.islink(path)
    return not stat.S_ISDIR(found.st_mode) and not stat.S_ISLNK(found.st_mode)
