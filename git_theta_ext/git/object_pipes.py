"""Many objects of Git, read and written through a few processes that stay: for whole histories.

Any object, of any kind, with names by SHA-1 or SHA-256. A large blob passes through a file and is
never held.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.core.text import printable
from git_theta_ext.git.process import Sink, conversation, run_git_fed, run_git_into
from git_theta_ext.git.repository import Repository

_PIECE = 1 << 20
_LEVELS = 250
"""Folders in folders that are followed: far more than people make, and few enough to recurse."""
_AS_IT_IS = ("--literally", "--no-filters")
_HASHING = {
    "blob": ("hash-object", "-t", "blob", "-w", "--no-filters"),
    # Git of today refuses to write what Git of old wrote: names without an address, say.
    "tree": ("hash-object", "-t", "tree", "-w", *_AS_IT_IS),
    "commit": ("hash-object", "-t", "commit", "-w", *_AS_IT_IS),
    "tag": ("hash-object", "-t", "tag", "-w", *_AS_IT_IS),
}
_WHOLE = "a shallow or partial clone lacks some; a whole one is needed"
_IS_TREE = 0o040000

AS_WRITTEN = {
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": os.path.join(os.devnull, "none"),  # of one that is there Git complains
}
"""Objects as they are, not what `git replace` or a graft shows in their place: that is not copied.

A history read with the one and rewritten by the other would be rewritten in part.
"""


class Item(NamedTuple):
    """One line of a tree: octal mode as Git writes it (`100644`, `40000`), name, object id."""

    mode: bytes
    name: bytes
    oid: str

    @property
    def is_folder(self) -> bool:
        """Whether it is a tree."""
        return int(self.mode, 8) == _IS_TREE

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file: no link, no submodule."""
        return self.mode.startswith(b"100")


def parse_tree(data: bytes, digits: int) -> list[Item]:
    """The lines of a tree object, whose ids have 40 or 64 digits.

    Raises:
        RepositoryError: it is cut short.
    """
    found, at, width = [], 0, digits // 2
    while at < len(data):
        blank = data.find(b" ", at)
        end = data.find(b"\0", blank)
        if blank < 0 or end < 0 or end + 1 + width > len(data):
            raise RepositoryError("a tree of this repository is damaged")
        name = data[blank + 1 : end]
        found.append(Item(data[at:blank], name, data[end + 1 : end + 1 + width].hex()))
        at = end + 1 + width
    return found


def tree_bytes(items: list[Item]) -> bytes:
    """The tree object of some lines, in the order that Git wants."""
    ordered = sorted(items, key=lambda one: one.name + (b"/" if one.is_folder else b""))
    return b"".join(b"%s %s\0%s" % (one.mode, one.name, bytes.fromhex(one.oid)) for one in ordered)


def _not_here(oid: str, kind: str) -> RepositoryError:
    return RepositoryError(
        f"{kind} {oid} is not in this repository, or cannot be read",
        hint=_WHOLE,
    )


class _Nowhere:
    """Takes bytes, and forgets them."""

    def write(self, data: bytes, /) -> None:
        """Take the next bytes."""


class ObjectPipes:
    """Reads and writes objects of one repository; use `opened`."""

    def __init__(self, repository: Repository, folder: Path, stack: ExitStack) -> None:
        """`folder` takes what is on its way; the processes end with `stack`."""
        self._repository, self._folder, self._stack = repository, folder, stack
        self._pipes: dict[str, tuple[BinaryIO, BinaryIO]] = {}

    def _pipe(self, *arguments: str) -> tuple[BinaryIO, BinaryIO]:
        key = " ".join(arguments)
        if key not in self._pipes:
            env = {**self._repository.env, **AS_WRITTEN}
            talk = conversation(arguments, self._repository.cwd, env)
            self._pipes[key] = self._stack.enter_context(talk)
        return self._pipes[key]

    @staticmethod
    def _ask(pipe: tuple[BinaryIO, BinaryIO], line: bytes) -> bytes | None:
        """A line of answer; None where git has ended."""
        with suppress(BrokenPipeError):
            pipe[0].write(line + b"\n")
            pipe[0].flush()
        answer = pipe[1].readline()
        return answer[:-1] if answer.endswith(b"\n") else None

    def _ended(self, oid: str) -> RepositoryError:
        """Why git ended when it was asked for an object: asked again, alone, it says so."""
        try:
            where = self._repository
            env = {**where.env, **AS_WRITTEN}
            run_git_into(_Nowhere(), ["cat-file", "-p", oid], where.cwd, env)
        except RepositoryError as error:
            return RepositoryError(f"object {oid} cannot be read: {error.message}", hint=_WHOLE)
        return RepositoryError(f"git ended while it was asked for object {oid}")

    def size(self, oid: str) -> tuple[str, int] | None:
        """The kind of an object and its length in bytes, or None if it is not here.

        Raises:
            RepositoryError: git cannot find out.
        """
        said = self._ask(self._pipe("cat-file", "--batch-check"), oid.encode())
        if said is None:
            raise self._ended(oid)
        answer = said.split()
        return None if len(answer) != 3 else (answer[1].decode(), int(answer[2]))

    def size_of(self, oid: str, kind: str) -> int:
        """The length of an object that has to be here; errors as for `read`."""
        stated = self.size(oid)
        if stated is None or stated[0] != kind:
            raise _not_here(oid, kind)
        return stated[1]

    def read(self, oid: str, kind: str) -> bytes:
        """An object's content, held as a whole.

        Raises:
            RepositoryError: it is not here, or of another kind.
        """
        stdout, length = self._begun(oid, kind)
        data = stdout.read(length)
        stdout.read(1)
        if len(data) != length:
            raise self._ended(oid)
        return data

    def copy(self, oid: str, file: Sink) -> None:
        """Write the content of a blob to a file, piece by piece; errors as for `read`."""
        stdout, left = self._begun(oid, "blob")
        while left:
            data = stdout.read(min(left, _PIECE))
            if not data:
                raise self._ended(oid)
            file.write(data)
            left -= len(data)
        stdout.read(1)

    def _begun(self, oid: str, kind: str) -> tuple[BinaryIO, int]:
        pipe = self._pipe("cat-file", "--batch")
        said = self._ask(pipe, oid.encode())
        if said is None:
            raise self._ended(oid)
        answer = said.split()
        if len(answer) != 3 or answer[1] != kind.encode():
            raise _not_here(oid, kind)
        return pipe[1], int(answer[2])

    def tree(self, oid: str, path: str = "") -> list[Item]:
        """The lines of a tree.

        Raises:
            RepositoryError: as for `read`; or its path has more folders than are followed.
        """
        if path.count("/") >= _LEVELS:
            shown = printable(path[:80])
            raise RepositoryError(f"a path has more than {_LEVELS} folders: {shown}…")
        return parse_tree(self.read(oid, "tree"), len(oid))

    def write(self, kind: str, data: bytes) -> str:
        """Write an object; its id."""
        path = self._folder / "object"
        files.replace_file(path, data, mode=0o600)
        return self.write_file(kind, path)

    def write_file(self, kind: str, path: Path) -> str:
        """Write the content of a file as an object; its id.

        Raises:
            RepositoryError: Git does not take it: the disk may be full.
        """
        if "\n" in str(path):  # it would be read as two
            return self._write_alone(kind, path)
        pipe = self._pipe(*_HASHING[kind], "--stdin-paths")
        made = self._ask(pipe, os.fsencode(path))
        return self._write_alone(kind, path) if made is None else made.decode()

    def _write_alone(self, kind: str, path: Path) -> str:
        arguments = [*_HASHING[kind], "--stdin"]

        def feed(write: Callable[[bytes], object]) -> None:
            for piece in files.pieces_of(path):
                write(piece)

        where = self._repository
        return run_git_fed(arguments, where.cwd, feed, env=where.env).decode().strip()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """The path of a file that is not there yet, and is gone after the block."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            yield Path(folder) / "file"


@contextmanager
def opened(repository: Repository, folder: Path | None = None) -> Iterator[ObjectPipes]:
    """The objects of a repository; what is on its way lies in a folder of its own in `folder`.

    Raises:
        RepositoryError: git cannot be started.
    """
    place = folder or repository.common_dir
    with (
        tempfile.TemporaryDirectory(prefix="theta-", dir=place, ignore_cleanup_errors=True) as own,
        ExitStack() as stack,
    ):
        yield ObjectPipes(repository, Path(own), stack)


def folder_of(pipes: ObjectPipes, blobs: Mapping[str, str]) -> list[Item]:
    """The lines of a folder with plain files, by their paths; folders in it are written."""
    made: list[Item] = []
    below: dict[str, dict[str, str]] = {}
    for path, oid in blobs.items():
        top, slash, rest = path.partition("/")
        if slash:
            below.setdefault(top, {})[rest] = oid
        else:
            made.append(Item(b"100644", os.fsencode(top), oid))
    for top, inside in below.items():
        oid = pipes.write("tree", tree_bytes(folder_of(pipes, inside)))
        made.append(Item(b"40000", os.fsencode(top), oid))
    return made
