"""The local store: parameter files named by their SHA-256, written once, never changed.

Objects live in `theta/objects/aa/bb/<oid>` under Git's common directory, where `git lfs prune`
does not look. A file gets its name only after its bytes are on disk (write, flush, rename; see
`durable`), so an object that has a name is whole, after a crash too. What is found under a name
may still be another user's work, or damaged: it is hashed before a new manifest relies on it.
Readers need no lock: names never change their content, and two writers of one object write the same
bytes. Writers share a lock, from their first object to `flush`, which `git theta prune` owns alone
while it removes objects; and an object that is found rather than written is made young, so that it
is not taken for garbage.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from git_theta_ext.core import files
from git_theta_ext.core.errors import CorruptObjectError, MissingObjectError, StoreError
from git_theta_ext.core.text import printable
from git_theta_ext.objects.store.durable import Durable, make_folder
from git_theta_ext.objects.store.locks import Busy, Lock
from git_theta_ext.objects.store.verified import Verified, only_ours

_Found = TypeVar("_Found")
_COPY_BYTES = 1 << 20
_LARGE_BYTES = 1 << 20
"""From here on an object is read into memory that is taken at once."""
_STALE_SECONDS = 24 * 3600
"""A temporary file older than this was left by a killed process; no write takes a day."""

YOUNG_SECONDS = 3600
"""An object that was written or found again later than this ago is never garbage: the manifest that
names it may not be in an index yet."""

_FRESH_SECONDS = 600
"""An object this young is not made younger: that saves a system call for each."""

_MODE = 0o444
"""Objects are read-only, like Git's, as far as the umask of a shared repository has it."""


class Store:
    """Content-addressed files below `root`; `alternates` are further stores that are only read."""

    def __init__(
        self, root: Path, alternates: Iterable[Path] = (), verified: Path | None = None
    ) -> None:
        """Open the store at `root` (the `theta` folder); nothing is created until a write.

        Args:
            root: where objects are written.
            alternates: folders of further stores.
            verified: where it is remembered which objects were hashed; not in a store that others
                write to.
        """
        self.root = root
        self._verified = Verified(verified)
        self._wrong: set[str] = set()
        self._roots = (root, *alternates)
        self._top, self._tops = str(root), [str(one) for one in self._roots]
        self._may_be_links = {os.fspath(root), os.fspath(root / "objects")}
        self._durable = Durable(os.fspath(root / "tmp"), folders_above, self._make_folder)
        self._new: dict[str, str] = {}
        """Objects that were written and not noted as verified yet, by their path."""
        self._lock = threading.Lock()
        self._shared: Lock | None = None
        self._known_private = False
        self.tell: Callable[[str], object] = _tell
        """Says what an object turned out to be."""

    def scratch(self, purpose: str) -> Path:
        """A name for a file that is gone again when a command ends, and that other processes see.

        Raises:
            StoreError: its folder cannot be made, or a link stands in its place.
        """
        folder = self.root / "tmp"
        try:
            self._make_folder(os.fspath(folder))
        except OSError as error:
            raise StoreError(_explain(error, self.root)) from error
        return folder / f"{purpose}-{os.getpid()}-{secrets.token_hex(8)}"

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folder that is written to, and those of further stores."""
        return self._roots

    def above(self, root: Path) -> Store:
        """A store at another folder, which also finds everything that this one has."""
        return Store(root, self._roots)

    def also(self, *folders: Path) -> Store:
        """This store, which also finds the objects below further folders."""
        made = Store(self.root, (*self._roots[1:], *folders))
        made._verified = self._verified
        return made

    def path(self, oid: str) -> Path:
        """Where an object is, or would be, in the first store."""
        return Path(f"{self._top}{_name(oid)}")

    def find(self, oid: str, size: int | None = None) -> Path | None:
        """The file that holds an object, or None; one of another size than promised is not it."""
        found = self._find(oid, size)
        return None if found is None else Path(found)

    def _find(self, oid: str, size: int | None) -> str | None:
        """As `find`, for each object of a checkpoint: without the cost of a Path."""
        found = self._look(oid, size)
        return None if found is None else found[0]

    def state(self, oid: str, size: int) -> os.stat_result | None:
        """What the system says of the file that `find` gives; None where there is none."""
        found = self._look(oid, size)
        return None if found is None else found[1]

    def _look(self, oid: str, size: int | None) -> tuple[str, os.stat_result | None] | None:
        """The file that holds an object; what the system says of it, if it has its name."""
        name = _name(oid)
        waiting = self._waiting(name, size)
        if waiting is not None:
            return waiting, None
        for root in self._tops:
            path = f"{root}{name}"
            try:
                status = os.stat(path)
            except OSError:
                continue
            if self._may_be(path, status, size):
                return path, status
        return None

    def _waiting(self, name: str, size: int | None) -> str | None:
        """Where the bytes of an object are that has no name yet."""
        waiting = self._durable.waiting(f"{self._top}{name}")
        if waiting is not None and size in (None, waiting[1]) and os.path.exists(waiting[0]):
            return waiting[0]
        return None  # or it has just been given its name

    def _may_be(self, path: str, status: os.stat_result, size: int | None) -> bool:
        """Whether a file may be an object; not a pipe, or a device that somebody put there."""
        right = size is None or status.st_size == size
        return right and stat.S_ISREG(status.st_mode) and path not in self._wrong

    def sound(self, oid: str, size: int) -> bool:
        """Whether nothing is wrong with an object as far as it is here; one that is absent may be.

        It is hashed at its first use, and again when its file has changed. A damaged or planted
        one is moved to the folder `damaged` of the store, or passed over where it lies in a store
        that is only read; stderr tells. Afterwards it is absent, and not sound until it is back.
        """
        if self._weeded(oid, size) is not None:
            return True
        wrong = self._wrong and any(f"{root}{_name(oid)}" in self._wrong for root in self._tops)
        return not wrong and not (self.root / "damaged" / oid).exists()

    def _weeded(self, oid: str, size: int) -> tuple[str, os.stat_result | None] | None:
        """Where an object is that is right, and what the system says of it; else None.

        What has its name and is not that is set aside, in every store. Nothing is said of one that
        this process has just written.
        """
        name = _name(oid)
        found: tuple[str, os.stat_result | None] | None = None
        for root in self._tops:
            path = f"{root}{name}"
            if root == self._top and (waiting := self._waiting(name, size)) is not None:
                found = waiting, None
                continue
            try:
                status = os.stat(path)
            except OSError:
                continue
            if path in self._wrong:
                continue
            if self._right(path, oid, size, status):
                found = found or (path, status)
                continue
            self._set_aside(Path(path), oid, size)
            if found is None and self._find(oid, size) == path:  # another process has mended it
                found = path, None
        return found

    def right_elsewhere(self, folder: Path, path: str, oid: str, size: int) -> bool:
        """Whether a file that is none of this store's holds an object; hashed once, as its own.

        Args:
            folder: the store that it lies in.
            path: the file.
            oid: the object.
            size: its length.
        """
        try:
            found = os.stat(path)
        except OSError:
            return False
        key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        return self._right(path, oid, size, found, key=f"{oid}@{key}")

    def _right(
        self, path: str, oid: str, size: int, found: os.stat_result, *, key: str | None = None
    ) -> bool:
        """Whether a file holds an object, by its hash, or by the memory of having hashed it.

        Args:
            path: the file.
            oid: the object.
            size: its length.
            found: what the system says of it.
            key: what it is remembered under, if it lies in no store of this one.
        """
        if found.st_size != size or not stat.S_ISREG(found.st_mode):
            return False
        if self._verified.knows(key or oid, found):
            return True
        try:
            if sha256_of(path) != oid:
                return False
            private = only_ours(os.stat(os.path.dirname(path))) if key else self._private
        except OSError:
            return False
        self._verified.note(key or oid, found, lasting=private and only_ours(found))
        return True

    def _set_aside(self, path: Path, oid: str, size: int) -> None:
        """Have a wrong object found no more."""
        if not path.is_relative_to(self.root):
            self._wrong.add(os.fspath(path))
            self.tell(
                f"{path} is damaged: its bytes are not those that its name promises; passed over"
            )
            return
        aside = self.root / "damaged" / oid
        try:
            self._make_folder(os.fspath(aside.parent))
            files.move(path, aside)
            if self._right(os.fspath(aside), oid, size, aside.stat()):  # mended just now
                files.move(aside, path)
                return
        except OSError as error:
            self._wrong.add(os.fspath(path))
            self.tell(f"{path} is damaged, and cannot be moved away: {error.strerror or error}")
        else:
            self.tell(f"object {oid} was damaged: its bytes are not its name's; moved to {aside}")

    @property
    def _private(self) -> bool:
        """Whether nobody else can put objects into this store."""
        if not self._known_private:
            objects = f"{self._top}{os.sep}objects"
            try:
                private = only_ours(os.stat(self._top))
                if private and os.path.exists(objects):
                    private = self._known_private = only_ours(os.stat(objects))
            except OSError:
                return False
            return private
        return True

    def has(self, oid: str, size: int | None = None) -> bool:
        """Whether an object is here, with the size that was promised."""
        return self._find(oid, size) is not None

    def keep(self, oid: str, size: int) -> bool:
        """Whether an object is here and right, to be named by a new manifest: made young if so.

        False, too, where its time cannot be set (it belongs to another user): write it again.
        """
        found = self._weeded(oid, size)
        if found is None:
            return False
        path, before = found
        if path != f"{self._top}{_name(oid)}":
            return True  # in a store that is only read, or flushed by this process with the others
        try:
            if self._shared is None or before is None:
                self.share()  # and then see whether it is still there
                before = os.stat(path)
            if abs(time.time() - before.st_mtime) > _FRESH_SECONDS:
                os.utime(path)
                self._note_written(oid, path, before.st_ino)
            else:  # whoever wrote it may not have flushed yet
                self._durable.need(folders_above(path))
        except OSError:
            return False
        return True

    def holds(self, oid: str, size: int) -> bool:
        """Whether an object is here and right, as for `keep`; for a manifest that is no new one."""
        return self._weeded(oid, size) is not None

    def share(self) -> None:
        """Share the store's lock until `flush`, `let_go` or the end of this process.

        Where no lock is to be had (a folder that cannot be written, a file system without locks)
        there is none for `git theta prune` either, which then removes nothing.
        """
        with self._lock:
            if self._shared is None:
                with suppress(OSError):
                    self.root.mkdir(parents=True, exist_ok=True)
                    self._shared = Lock(self.root / "lock", alone=False)

    def let_go(self) -> None:
        """Share the store's lock no longer."""
        with self._lock:
            if self._shared is not None:
                self._shared.release()
                self._shared = None

    @contextmanager
    def alone(self, timeout: float) -> Iterator[None]:
        """Own the store: no other process adds to it meanwhile.

        Raises:
            StoreError: others went on writing for `timeout` seconds, or there are no locks here.
        """
        self.let_go()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = Lock(self.root / "lock", alone=True, timeout=timeout)
        except Busy as error:
            raise StoreError(
                f"another command is writing to {self.root}", hint="let it end, then try again"
            ) from error
        except OSError as error:
            raise StoreError(f"cannot lock {self.root}: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    def remove(self, oid: str) -> None:
        """Remove an object; the caller owns the store and knows that nobody needs it.

        Raises:
            StoreError: it cannot be removed.
        """
        try:
            self.path(oid).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {self.path(oid)}: {error.strerror}") from error

    def read(self, oid: str, size: int | None = None, part: tuple[int, int] | None = None) -> bytes:
        """The bytes of an object, not yet verified: what they decode to is.

        Args:
            oid: its id.
            size: its length, where it is known.
            part: only from which byte to which; None for all of it.

        Raises:
            MissingObjectError: no store has it.
            StoreError: it cannot be read.
        """
        return self._from_file(
            oid,
            size,
            lambda path: files.read_whole(path) if part is None else files.read_part(path, *part),
        )

    def load(self, oid: str, size: int, part: tuple[int, int] | None = None) -> bytes | memoryview:
        """As `read`, of an object that may be large: into memory that is taken once, and at once.

        Raises:
            MissingObjectError, StoreError: see `read`.
        """
        import numpy as np

        start, stop = part or (0, size)
        if stop - start < _LARGE_BYTES:
            return self.read(oid, size, part)
        # The system is asked for large pages: a tenth of the time that bytes put together take.
        view = np.empty(stop - start, np.uint8).data
        return view[: self.fill(oid, size, start, view)]

    def fill(self, oid: str, size: int, start: int, into: memoryview) -> int:
        """Read an object, or a part of it, into the memory where it is wanted, not verified.

        Args:
            oid: its id.
            size: its length.
            start: where in the object to begin.
            into: what is to be filled, if the object is long enough.

        Returns:
            How many bytes were read.

        Raises:
            MissingObjectError, StoreError: see `read`.
        """
        return self._from_file(
            oid, size, lambda path: files.read_into(path, start, into, follow=True)
        )

    def _from_file(self, oid: str, size: int | None, read: Callable[[str], _Found]) -> _Found:
        """What `read` gives of the file that holds an object."""
        for last in (False, True):
            path = self._find(oid, size)
            if path is None:
                break
            try:
                return read(path)
            except FileNotFoundError as error:  # it may have been given its name meanwhile
                if last:
                    raise StoreError(f"cannot read {path}: {error.strerror}") from error
            except OSError as error:
                raise StoreError(f"cannot read {path}: {error.strerror}") from error
        raise MissingObjectError(
            f"object {oid} is not in {self.root / 'objects'}",
            hint="git theta fetch   (or: git theta fsck, to see what else is missing)",
        )

    def verify(self, oid: str, size: int | None = None) -> None:
        """Check that an object's bytes have the hash that names it.

        Raises:
            MissingObjectError, CorruptObjectError.
        """
        path = self._find(oid, size)
        if path is None:
            raise MissingObjectError(f"object {oid} is not in the local store")
        found = sha256_of(path)
        if found != oid:
            raise CorruptObjectError(
                f"object {path} is damaged: its bytes hash to {found}",
                hint="remove that file, then: git theta fetch",
            )

    def put(self, pieces: Iterable[bytes | memoryview]) -> tuple[str, int]:
        """Store the concatenation of `pieces`; its object id and size in bytes.

        It is on disk, with its name, after the next `flush`; without `gathering` the bytes are when
        this returns.

        Raises:
            StoreError: the disk is full, the folder cannot be written.
        """
        parts = [memoryview(piece).cast("B") for piece in pieces]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        oid, size = digest.hexdigest(), sum(part.nbytes for part in parts)
        if not self.keep(oid, size):  # which has moved a wrong one away
            self._write(oid, parts)
        return oid, size

    def take(self, source: Path, oid: str, size: int, *, move: bool = False) -> None:
        """Take over a file that another program stored under the same name, verified.

        Args:
            source: the file.
            oid: the SHA-256 that its bytes must have.
            size: the length that it must have.
            move: nobody else needs the file, so that it may be renamed instead of copied.

        Raises:
            CorruptObjectError: its size or hash is not what the name promises.
            StoreError: it cannot be read, or the store cannot be written.
        """
        if self.keep(oid, size):
            return
        if move and self._move(source, oid, size):
            return
        check = _Check(oid, size)
        if size <= _COPY_BYTES:
            self._take_at_once(source, oid, check)
            return
        with self._writing(oid) as file, files.plain(source, follow=True) as original:
            while chunk := original.read(_COPY_BYTES):
                check.feed(chunk)
                file.write(chunk)
            check.finish(source)

    def _take_at_once(self, source: Path, oid: str, check: _Check) -> None:
        """As `take`, of a file that fits into memory, if it is what it should be."""
        pieces = []
        try:
            for piece in files.pieces_of(source):
                check.feed(piece)
                pieces.append(memoryview(piece))
                if check.is_too_long():
                    break
        except OSError as error:
            raise StoreError(_explain(error, self.root)) from error
        check.finish(source)
        self._write(oid, pieces)

    def _move(self, source: Path, oid: str, size: int) -> bool:
        """Take a file over by giving it another name; False where that cannot be done."""
        target, check = f"{self._top}{_name(oid)}", _Check(oid, size)
        try:
            with files.editing(source) as file:
                while chunk := file.read(_COPY_BYTES):
                    check.feed(chunk)
                check.finish(source)
            os.chmod(source, os.stat(source).st_mode & _MODE)
            self._durable.take(os.fspath(source), target)
        except OSError:  # another file system, or a file that is not ours
            return False
        self._written(oid, target)
        return True

    def flush(self) -> None:
        """Make all objects put so far survive a power failure; let go of the lock.

        Raises:
            StoreError: the disk did not take them.
        """
        try:
            self._durable.settle()
        except OSError as error:
            self._new.clear()
            raise StoreError(_explain(error, self.root)) from error
        self.let_go()
        self.save_verified()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Objects that are put inside are flushed together, by `flush` or at the latest at the end.

        Until then they are found in this process alone. Nothing may name them before.

        Raises:
            StoreError: the disk did not take them.
        """
        with self._durable.gathering():
            yield
            try:
                self._durable.settle(names=False)
            except OSError as error:
                raise StoreError(_explain(error, self.root)) from error

    def save_verified(self) -> None:
        """Remember beyond this process which objects were hashed."""
        with self._lock:
            new, self._new = self._new, {}
        if new and self._private:
            for path, oid in new.items():
                self._note_written(oid, path)
        self._verified.keep()

    def _written(self, oid: str, target: str) -> None:
        """Note that an object was written; it has its final times once it has its name."""
        self._wrong.discard(target)
        with self._lock:
            self._new[target] = oid

    def _note_written(self, oid: str, path: str | Path, inode: int | None = None) -> None:
        """Remember an object that was just written, or verified under its former times."""
        with suppress(OSError):
            found = os.stat(path)
            if inode in (None, found.st_ino) and only_ours(found) and self._private:
                self._verified.note(oid, found)

    def remove_stale(self, now: float | None = None) -> None:
        """Remove temporary files that killed processes left behind a day ago or earlier.

        Those of the store itself, and those beside the caches that live next to it: names of
        the final files have no dot in them, temporary ones have.
        """
        limit = (time.time() if now is None else now) - _STALE_SECONDS
        for name, pattern in (("tmp", "*"), ("memo", "*.*"), ("confirmed", "*.*")):
            for path in (self.root / name).glob(pattern):
                with suppress(OSError):
                    found = path.lstat()
                    if found.st_mtime >= limit:
                        continue
                    if stat.S_ISDIR(found.st_mode):
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()

    def oids(self) -> Iterator[str]:
        """The ids of all objects of the first store, in no particular order."""
        for oid, _ in self.entries():
            yield oid

    def entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """The id of each object of the first store, and what the system says of its file."""
        for top in _folder(f"{self._top}{os.sep}objects"):
            for below in _folder(top.path) if len(top.name) == 2 else ():
                for one in _folder(below.path) if len(below.name) == 2 else ():
                    with suppress(OSError):
                        yield one.name, os.stat(one.path)

    def _make_folder(self, folder: str) -> None:
        """Make a folder of the store; a link in its place, which others may have put, is refused.

        `objects` itself may be one: people move it to a larger disk.
        """
        self._refuse_link(os.path.dirname(folder))
        try:
            os.mkdir(folder)  # what was made now is no link
        except OSError:
            self._refuse_link(folder)
            make_folder(folder)

    def _refuse_link(self, folder: str) -> None:
        if os.path.islink(folder) and folder not in self._may_be_links:
            raise OSError(errno.ELOOP, f"{folder} is a link", folder)

    def _write(self, oid: str, parts: Iterable[memoryview]) -> None:
        """As `_writing`, of what is at hand."""
        target = f"{self._top}{_name(oid)}"
        self.share()
        try:
            self._durable.write(target, parts, mode=_MODE)
        except OSError as error:
            raise StoreError(_explain(error, self.root)) from error
        self._written(oid, target)

    @contextmanager
    def _writing(self, oid: str) -> Iterator[IO[bytes]]:
        """A new file that becomes the object when the block ends, and vanishes if it fails."""
        target = f"{self._top}{_name(oid)}"
        self.share()
        try:
            with self._durable.writing(target, mode=_MODE) as file:
                yield file
        except OSError as error:
            raise StoreError(_explain(error, self.root)) from error
        self._written(oid, target)


class _Check:
    """Follows the bytes of a file that should be a certain object."""

    def __init__(self, oid: str, size: int) -> None:
        self._oid, self._size = oid, size
        self._digest, self._length = hashlib.sha256(), 0

    def feed(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._length += len(chunk)

    def is_too_long(self) -> bool:
        """Whether there have been more bytes than the object has."""
        return self._length > self._size

    def finish(self, source: Path) -> None:
        """Raise CorruptObjectError if the bytes were not that object's."""
        found = self._digest.hexdigest()
        if found != self._oid or self._length != self._size:
            raise CorruptObjectError(
                f"{source} should be object {self._oid} of {self._size} bytes, but holds "
                f"{self._length} bytes that hash to {found}"
            )


def _name(oid: str) -> str:
    """Where an object lies below a store."""
    return f"{os.sep}objects{os.sep}{oid[:2]}{os.sep}{oid[2:4]}{os.sep}{oid}"


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    for piece in files.pieces_of(path):
        digest.update(piece)
    return digest.hexdigest()


def _tell(text: str) -> None:
    """Say on stderr what an object turned out to be: what follows from it is the caller's."""
    print(f"git-theta: {printable(text)}", file=sys.stderr, flush=True)


def _explain(error: OSError, root: Path) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return f"no space left to store objects in {root}"
    return f"cannot write to the object store {root}: {error.strerror or error}"


def _folder(path: str) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing where there is none."""
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def folders_above(path: str | Path) -> list[str]:
    """The folders that an object's name needs: bb, aa, objects, the root, and what holds it."""
    found, rest = [], os.fspath(path)
    for _ in range(5):
        rest = rest[: rest.rfind(os.sep)]
        found.append(rest)
    return found
