"""The work tree as a place to write to that somebody else may have laid out.

A commit can hold links, and names that another file system reads as `.git`. So every folder on the
way is opened by itself, from the top, and never through a link; names that Git would refuse are
refused here; and what stands at the end is replaced, never followed (see `files`). Where the system
can open a folder relative to another one (Linux, macOS) nobody can change the way meanwhile;
elsewhere each folder is looked at just before.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from git_theta_ext.core import advice, files
from git_theta_ext.core.errors import StoreError
from git_theta_ext.core.text import printable

_IGNORED_BY_HFS = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
"""Characters that macOS's older file system takes as not there (Git, `utf8.c`)."""

_GIT_DIR = re.compile(r"(?:\.git|git~1)[ .]*(?:$|[\\/:])", re.IGNORECASE)
"""`.git` as NTFS reads it: any case, its short name, blanks and dots after it, a stream of it."""

_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[1-9¹²³])[ ]*(?:[.:]|$)", re.I
)
_NOT_ON_WINDOWS = re.compile(r'[\x00-\x1f<>:"|?*\\]|[ .]$')


def is_git_dir(name: str) -> bool:
    """Whether some file system takes a name, or a part of it, for `.git`, as Git refuses it."""
    plain = _IGNORED_BY_HFS.sub("", name)
    return any(_GIT_DIR.match(part) for one in (name, plain) for part in re.split(r"[\\/]", one))


def parts_of(path: str) -> list[str]:
    """The folders and the name of a path from the top of a work tree.

    Raises:
        StoreError: it would leave the work tree, or lead into `.git`.
    """
    parts = path.split("/")
    shown = printable(path)
    if path.startswith("/") or os.path.isabs(path) or os.path.splitdrive(path)[0]:
        raise _refused(shown, "is not a path inside the work tree")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise _refused(shown, "is not a path inside the work tree")
    if any(map(is_git_dir, parts)):
        raise _refused(shown, "leads into .git")
    if os.name == "nt":
        for part in parts:
            if _DEVICE.match(part) or _NOT_ON_WINDOWS.search(part):
                raise _refused(shown, f"has a name that Windows reads otherwise: {printable(part)}")
    return parts


class WorkTree:
    """A work tree, by its top; paths count from there, with slashes, as Git has them."""

    def __init__(self, top: Path) -> None:
        """`top` is the user's word: links on the way to it are followed."""
        self.top = top

    @contextmanager
    def replacing(
        self, path: str, *, make: bool = True, executable: bool = False
    ) -> Iterator[BinaryIO]:
        """A new file that takes its place when the block ends, and vanishes if it fails.

        It has the permissions of the file that it replaces.

        Args:
            path: of the file.
            make: folders that lack are made.
            executable: it may be run, as far as the umask lets it, whatever it replaces.

        Raises:
            StoreError: it cannot be written, or is refused: a folder on the way is a link, the name
                is one of `.git`, leaves the work tree, or is another file's on this file system.
        """
        with self.replacing_as(path, make=make, executable=executable) as (file, _):
            yield file

    @contextmanager
    def replacing_as(
        self, path: str, *, make: bool = True, executable: bool = False
    ) -> Iterator[tuple[BinaryIO, str]]:
        """As `replacing`, with the path that the file has meanwhile: others may write to it too."""
        with self._opened(path, make=make) as (folder, name):
            hidden = files.temporary_name(name)
            kept = None if executable else files.permissions(name, folder)
            mode = 0o777 if executable else 0o666
            with files.replacing(
                name, mode=mode, kept=kept, folder=folder, temporary=hidden
            ) as file:
                yield file, "/".join([*parts_of(path)[:-1], os.path.basename(hidden)])

    def write_at(self, path: str, offset: int, data: memoryview) -> None:
        """Write over a part of a new file of `replacing_as`; see `files.write_at`.

        Raises:
            StoreError: it is not there, cannot be written, or the way to it is refused.
        """
        with self._opened(path) as (folder, name):
            files.write_at(name, offset, data, folder)

    def replace(self, path: str, content: bytes) -> None:
        """Write a file whole, or leave what is there as it is; errors as for `replacing`."""
        with self.replacing(path) as file:
            file.write(content)

    def take(self, source: Path, path: str) -> None:
        """Move a file from elsewhere into its place; where that takes a copy, it is made first.

        Raises:
            StoreError: it cannot be written, or is refused; see `replacing`.
        """
        with self._opened(path, make=True) as (folder, name):
            try:
                files.move(source, name, folder)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                kept = files.permissions(source)
                hidden = files.temporary_name(name)
                with (
                    source.open("rb") as original,
                    files.replacing(name, kept=kept, folder=folder, temporary=hidden) as copy,
                ):
                    shutil.copyfileobj(original, copy, 1 << 20)
                os.unlink(source)

    def remove(self, path: str) -> None:
        """Remove a file or a link; none is no error.

        Raises:
            StoreError: it cannot be removed, or the way to it is refused.
        """
        try:
            with self._opened(path) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise

    def set_time(self, path: str, moment: int) -> None:
        """Set the time of a file in ns, where that can be done; a link is let be."""
        with suppress(OSError, StoreError), self._opened(path) as (folder, name):
            if _is_file(name, folder):
                follow = os.utime not in os.supports_follow_symlinks
                os.utime(name, ns=(moment, moment), dir_fd=folder, follow_symlinks=follow)

    def has_file(self, path: str) -> bool:
        """Whether there is a regular file, reached without a link: one that may be read."""
        try:
            with self._opened(path) as (folder, name):
                return _is_file(name, folder)
        except (OSError, StoreError):
            return False

    @contextmanager
    def _opened(self, path: str, *, make: bool = False) -> Iterator[tuple[int | None, str]]:
        """A descriptor of the folder that holds a path, and the name in it.

        Without descriptors of folders it is None, and the name is a whole path.
        """
        parts = parts_of(path)
        try:
            if not files.BY_FOLDER:
                yield None, self._checked(parts, make)
                return
            folder = files.open_folder(self.top)
            try:
                for number, part in enumerate(parts[:-1]):
                    _refuse_collision(self.top.joinpath(*parts[: number + 1]))
                    shown = "/".join(parts[: number + 1])
                    deeper = _open_folder(part, folder, shown, make)
                    os.close(folder)
                    folder = deeper
                _refuse_collision(self.top.joinpath(*parts))
                yield folder, parts[-1]
            finally:
                os.close(folder)
        except OSError as error:
            why = error.strerror or error
            raise StoreError(f"cannot write {self.top / path}: {why}") from error

    def _checked(self, parts: list[str], make: bool) -> str:
        """The whole path, after a look at every folder on the way; the plain fallback."""
        place = self.top
        for number, part in enumerate(parts):
            place = place / part
            _refuse_collision(place)
            if number == len(parts) - 1:
                break
            if is_link(place):
                raise _linked("/".join(parts[: number + 1]))
            if make:
                place.mkdir(exist_ok=True)
        return str(place)


def _open_folder(name: str, above: int, shown: str, make: bool) -> int:
    try:
        return files.open_folder(name, above)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=above)
        return files.open_folder(name, above)
    except OSError as error:
        with suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
                raise _linked(shown) from error
        raise


def _is_file(name: str, folder: int | None) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def is_link(path: Path | str) -> bool:
    """Whether a symbolic link, or on Windows a junction, stands at a path."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    tag = getattr(found, "st_reparse_tag", 0)
    return stat.S_ISLNK(found.st_mode) or (bool(tag) and tag == junction)


def _refuse_collision(place: Path) -> None:
    """Raise StoreError where the file system takes a name for another one's that is there.

    Whether case counts is asked of the name itself: the other case is then the same file.
    """
    other = place.with_name(place.name.swapcase())
    if other == place:
        return
    try:
        if not os.path.samestat(os.lstat(place), os.lstat(other)):
            return
        known = os.listdir(place.parent)
    except OSError:
        return
    rival = collision(place.name, known)
    if rival is not None:
        raise _refused(
            printable(place.name), f"and {printable(rival)} are one file on this file system"
        )


def collision(name: str, known: Iterable[str]) -> str | None:
    """The name, of those in a folder, that stands in the place of one in another spelling.

    None where the name itself is there, composed or decomposed (macOS takes these for equal).
    """
    there = list(known)
    if any(_composed(one) == _composed(name) for one in there):
        return None
    return next((one for one in there if _folded(one) == _folded(name)), None)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(_composed(name).casefold())


def _linked(shown: str) -> StoreError:
    return StoreError(
        f"{printable(shown)} is a symbolic link: nothing is written or read through it",
        hint=advice.with_name("remove the link, or put a folder in its place: rm FILE", shown),
    )


def _refused(shown: str, why: str) -> StoreError:
    return StoreError(
        f"{shown} {why}: it is not written",
        hint="name another file; where a commit has this one, rename it: git mv FILE NEW",
    )
