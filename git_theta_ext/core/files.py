"""The one door through which files are written: whole or not at all, and never through a link.

A file is written beside its place, under a name that nobody could have put there before, and then
moved over what stands in its place: a link is replaced, never followed. Whatever goes wrong, a
signal or an exception of any kind, what was there stays and the temporary file goes. No other
module opens a file for writing; `worktree` adds what is to be refused inside a work tree.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import BinaryIO, TypeAlias

StrPath: TypeAlias = str | os.PathLike[str]

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", 0) | getattr(os, "O_CLOEXEC", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY
_PERMISSIONS = 0o777
_PIECE_BYTES = 1 << 20
_FICLONE = 0x40049409

BY_FOLDER = bool(_NO_LINK) and {os.open, os.rename, os.unlink, os.mkdir, os.stat} <= set(
    os.supports_dir_fd
)
"""Whether a name can be taken relative to an open folder (not on Windows)."""


@contextmanager
def replacing(
    path: StrPath,
    *,
    mode: int = 0o666,
    kept: int | None = None,
    durable: bool = False,
    temporary: str | None = None,
    folder: int | None = None,
) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends, and vanishes if it fails.

    Args:
        path: what is replaced: nothing, a file, or a link (not what the link leads to).
        mode: the permissions of the new file, of which the umask takes some away.
        kept: permissions to have exactly instead, from the first byte on; see `permissions`.
        durable: the bytes are on disk before the file has its name. That the name survives a loss
            of power, too, takes `sync_folders`.
        temporary: the name to write under; on the same file system, and in nobody else's reach.
        folder: a descriptor of the folder that `path` and `temporary` count from.

    Raises:
        OSError: it cannot be written.
    """
    name = os.fspath(path)
    hidden = temporary_name(name) if temporary is None else temporary
    file = _create(hidden, mode, kept, folder)
    try:
        with file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _unlink_quietly(hidden, folder)
        raise


def replace_file(
    path: StrPath,
    content: bytes | Iterable[bytes | memoryview],
    *,
    mode: int = 0o666,
    kept: int | None = None,
    durable: bool = False,
) -> None:
    """Write a file whole, or leave what is there as it is.

    Args:
        path: what is replaced: nothing, a file, or a link (not what the link leads to).
        content: its bytes, in one piece or in several that are written one after the other.
        mode: the permissions of the new file, of which the umask takes some away.
        kept: permissions to have exactly instead; see `permissions`.
        durable: the bytes are on disk before the file has its name; see `replacing`.

    Raises:
        OSError: it cannot be written.
    """
    pieces = [content] if isinstance(content, bytes) else content
    with replacing(path, mode=mode, kept=kept, durable=durable) as file:
        for piece in pieces:
            file.write(piece)


def permissions(path: StrPath, folder: int | None = None) -> int | None:
    """Those of a file that is to be replaced; None where there is none, or a link in its place."""
    try:
        found = os.stat(path, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return found.st_mode & _PERMISSIONS if stat.S_ISREG(found.st_mode) else None


@contextmanager
def new_file(path: StrPath, *, mode: int = 0o666, kept: int | None = None) -> Iterator[BinaryIO]:
    """A file that was not there before, in a folder of our own; removed if the block fails.

    Permissions as for `replacing`.

    Raises:
        OSError: there is something at `path`, be it a link, or it cannot be written.
    """
    file = _create(os.fspath(path), mode, kept, None)
    try:
        with file:
            yield file
    except BaseException:
        _unlink_quietly(path, None)
        raise


def move(source: StrPath, target: StrPath, folder: int | None = None) -> None:
    """Give a file another name on the same file system; what has that name is replaced.

    Args:
        source: its name.
        target: the new one.
        folder: a descriptor of the folder that `target` counts from.

    Raises:
        OSError: it cannot be moved.
    """
    os.replace(source, target, dst_dir_fd=folder)


def copy_file(source: StrPath, target: StrPath) -> None:
    """Put a copy of a file's bytes in the place of `target`, whole or not at all.

    Raises:
        OSError: one cannot be read, or the other not be written.
    """
    with open(source, "rb") as original, replacing(target) as copy:
        shutil.copyfileobj(original, copy, 1 << 20)


def share_blocks(source: StrPath, file: BinaryIO) -> bool:
    """Have a new file share the bytes of another one until one of them is written to (a reflink).

    False where the file system cannot: then nothing was done. Source: ioctl_ficlone(2).
    """
    if sys.platform != "linux":
        return False
    import fcntl

    with plain(source) as original, suppress(OSError):
        fcntl.ioctl(file.fileno(), _FICLONE, original.fileno())
        return True
    return False


def link_or_copy(source: StrPath, target: StrPath) -> None:
    """Show a file under a second name, for somebody who only reads it.

    Raises:
        OSError: neither a hard link nor a copy can be made.
    """
    try:
        os.link(source, target)
    except OSError:
        copy_file(source, target)


def editing(path: StrPath) -> BinaryIO:
    """A file that is there, not a link, opened to read it and to write over parts of it.

    Only for files that nobody else looks at meanwhile, and to sync one.

    Raises:
        OSError: it cannot be opened.
    """
    return os.fdopen(os.open(path, os.O_RDWR | _NO_LINK | _BINARY), "r+b")


def write_at(path: StrPath, offset: int, data: memoryview, folder: int | None = None) -> None:
    """Write over a part of a new file that other machines write to, too; on disk afterwards.

    It is not read: a network file system would send back all of a page of which it knows more than
    what was written, and with it what another machine has changed meanwhile.

    Args:
        path: a file that is there, not a link.
        offset: where the bytes go, from its beginning.
        data: the bytes, one an item.
        folder: a descriptor of the folder that `path` counts from.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | _NO_LINK | _BINARY
    with os.fdopen(os.open(path, flags, dir_fd=folder), "wb", buffering=0) as file:
        file.seek(offset)
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())


def appending(
    path: StrPath, *, mode: int = 0o666, fresh: bool = False, follow: bool = False
) -> BinaryIO:
    """A file that grows line by line, made where it is not there.

    Args:
        path: the file.
        mode: the permissions of a new one, of which the umask takes some away.
        fresh: empty it first.
        follow: the path is a file that the user or the system named, which may be a link.

    Raises:
        OSError: it cannot be opened, or is a link, a pipe, or another user's.
    """
    if follow:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY | (os.O_TRUNC if fresh else 0)
        return os.fdopen(os.open(path, flags, mode), "ab")
    if fresh:  # not emptied: what has this name may have another one, too
        with suppress(FileNotFoundError):
            os.unlink(path)
    with suppress(FileExistsError):
        return os.fdopen(os.open(path, _NEW | os.O_APPEND, mode), "ab")
    own(path).close()
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | _NO_WAIT | _NO_LINK | _BINARY), "ab")


def streaming(path: StrPath) -> BinaryIO:
    """A pipe, a terminal or another device that the user named, opened to write to it.

    Raises:
        OSError: it is not there or cannot be opened.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC | _BINARY), "wb")


def lock_file(path: StrPath) -> int:
    """A descriptor of a file that is there to be locked, made if need be; it stays empty.

    Raises:
        OSError: it cannot be opened, or is a link, which would have a file made elsewhere.
    """
    flags = _BINARY | _NO_LINK | _NO_WAIT
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)  # another user's; it can be locked all the same


def plain(path: StrPath, *, follow: bool = False) -> BufferedReader:
    """A regular file, opened to be read; nothing that a reader would wait for, or never end with.

    Raises:
        OSError: there is none: a pipe, a device, a folder, or a link unless that is followed.
    """
    file = os.fdopen(
        os.open(path, os.O_RDONLY | _BINARY | _NO_WAIT | (0 if follow else _NO_LINK)), "rb"
    )
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))


def pieces_of(path: StrPath) -> Iterator[bytes]:
    """The bytes of a regular file, which a link may lead to, without the cost of a file object.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | _BINARY | _NO_WAIT)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        left = found.st_size
        # To the end that it has when it is there: a file may have grown.
        while piece := os.read(descriptor, min(_PIECE_BYTES, max(left, 1))):
            left -= len(piece)
            yield piece
    finally:
        os.close(descriptor)


def read_whole(path: StrPath) -> bytes:
    """All bytes of a regular file; see `pieces_of`."""
    pieces = list(pieces_of(path))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_into(path: StrPath, start: int, into: memoryview, *, follow: bool) -> int:
    """Fill memory with the bytes of a regular file; how many there were.

    Args:
        path: the file.
        start: where in it to begin.
        into: what is filled.
        follow: whether a link may lead to it.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with plain(path, follow=follow) as file:
        file.seek(start)
        return file.readinto(into)


def read_part(path: StrPath, start: int, stop: int) -> bytes:
    """The bytes of a regular file from one place to another; fewer where it ends before.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with plain(path) as file:
        file.seek(start)
        return file.read(stop - start)


def write_new(
    path: StrPath, pieces: Iterable[memoryview], *, mode: int = 0o666, kept: int | None = None
) -> int:
    """Write a file that was not there before, as `new_file`; its length in bytes.

    Args:
        path: in a folder of our own.
        pieces: its bytes, in flat views of one byte an item, one after the other.
        mode: the permissions of the new file, of which the umask takes some away.
        kept: permissions to have exactly instead; see `permissions`.

    Raises:
        OSError: there is something at `path`, be it a link, or it cannot be written.
    """
    descriptor = _open_new(os.fspath(path), mode, kept, None)
    length = 0
    try:
        try:
            for piece in pieces:
                done = 0
                while done < len(piece):
                    done += os.write(descriptor, piece[done:] if done else piece)
                length += done
        finally:
            os.close(descriptor)
    except BaseException:
        _unlink_quietly(path, None)
        raise
    return length


def own(path: StrPath) -> BufferedReader:
    """As `plain`, a file of this user's: one that is believed, where others may write beside it.

    Raises:
        OSError: there is none, or it is another user's, or has further names.
    """
    file = plain(path)
    found = os.fstat(file.fileno())
    if not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and found.st_nlink == 1):
        return file
    file.close()
    raise PermissionError(errno.EPERM, "it is another user's", os.fspath(path))


def open_folder(path: StrPath, above: int | None = None) -> int:
    """A descriptor of a folder, to count names from; one in an open folder may not be a link.

    Raises:
        OSError: there is none, or a link to one.
    """
    flags = os.O_RDONLY | _FOLDER | (0 if above is None else _NO_LINK)
    return os.open(path, flags, dir_fd=above)


def sync_file(path: StrPath) -> None:
    """Have a file's bytes on disk.

    Raises:
        OSError: they did not get there, or the path is a link.
    """
    flags = os.O_RDWR if os.name == "nt" else os.O_RDONLY  # objects cannot be written to
    descriptor = os.open(path, flags | _NO_LINK | _BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_quietly(path: StrPath) -> None:
    """Remove a file of our own, if it is there and can be removed."""
    _unlink_quietly(path, None)


def folder_to_sync(path: StrPath) -> int:
    """A descriptor of a folder, to sync its entries or all of its file system; not on Windows.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync_folders(folders: Iterable[StrPath]) -> None:
    """Flush the entries of folders, each once; Windows has no such call and does not need one."""
    if os.name == "nt":
        return
    for folder in sorted({os.fspath(folder) for folder in folders}):
        with suppress(OSError):
            descriptor = folder_to_sync(folder)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def temporary_name(path: str) -> str:
    """A name beside a file that nobody can guess; short enough however the name is encoded."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name[:40]}.theta-{secrets.token_hex(8)}")


def _create(name: str, mode: int, kept: int | None, folder: int | None) -> BinaryIO:
    """A file that was not there, with its permissions before it has a byte."""
    return os.fdopen(_open_new(name, mode, kept, folder), "wb")


def _open_new(name: str, mode: int, kept: int | None, folder: int | None) -> int:
    """As `_create`, a descriptor."""
    descriptor = os.open(name, _NEW, mode if kept is None else kept & 0o600, dir_fd=folder)
    try:
        if kept is not None:
            if os.name == "nt":
                os.chmod(name, kept)
            else:
                os.fchmod(descriptor, kept)
    except BaseException:
        os.close(descriptor)
        _unlink_quietly(name, folder)
        raise
    return descriptor


def _unlink_quietly(path: StrPath, folder: int | None) -> None:
    with suppress(OSError):
        os.unlink(path, dir_fd=folder)
