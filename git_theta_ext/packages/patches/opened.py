"""A patch that somebody sent, opened to be read: looked through, hashed, and believed in nothing.

Nothing but the file is needed, and nothing is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from git_theta_ext.core import files
from git_theta_ext.core.errors import FormatError, ManifestError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.manifest.model import HEAD_BYTES, Manifest, is_manifest
from git_theta_ext.manifest.text import Parser
from git_theta_ext.packages.patches import mail
from git_theta_ext.packages.patches.bundle import (
    DESCRIPTION,
    REF,
    Changed,
    Description,
    is_bundle,
    read_header,
)
from git_theta_ext.packages.patches.git_packs import BLOB, COMMIT, TREE, PackReader

_FOLDER = "40000"


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of a patch: its id, tree, parents, author (with address and time) and message."""

    oid: str
    tree: str
    parents: tuple[str, ...]
    author: str
    message: str

    @property
    def subject(self) -> str:
        """The first line of its message."""
        return self.message.strip().partition("\n")[0]


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One line of a folder: octal mode, name, object."""

    mode: str
    name: str
    oid: str


class Patch:
    """An open patch. What it says of itself has been compared with its commits."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        """Look through it.

        Args:
            name: what messages call it.
            file: the bundle; stays open as long as it is read.

        Raises:
            FormatError: it is no patch, damaged, or past a limit.
        """
        self.name = name
        self.header, start = read_header(file)
        self.pack = PackReader(file, start, self.header.algorithm)
        self._parser = Parser()
        self._rows: dict[str, dict[str, TreeRow]] = {}
        self.tip = self.header.at("HEAD")
        self._own = self._tree(self.commit(self.header.at(REF)).tree)
        described = self._own.get(DESCRIPTION)
        if described is None:
            raise FormatError("it does not say what it is")
        self.description = Description.parse(self.pack.read(described.oid, BLOB))
        self._check()

    def _check(self) -> None:
        """Compare what it says of itself with what its commits hold."""
        if self.description.tip != self.tip:
            raise FormatError("it describes another commit than it brings")
        base = self.description.base
        known = [oid for oid, _ in self.header.prerequisites]
        if base not in known and base not in self.pack.entries:
            raise FormatError("it describes an update of a commit that it neither has nor needs")
        for one in self.description.files:
            if self.found_at(one.path) not in (one.new, None):
                raise FormatError(f"it describes {one.path!r} otherwise than it brings it")

    def found_at(self, path: str) -> str | None:
        """The blob at a path of the last commit; empty: there is none; None: not to be told."""
        tree, rest = self.commit(self.tip).tree, path
        while tree in self.pack.entries:
            name, slash, rest = rest.partition("/")
            row = self._tree(tree).get(name)
            if row is None or (slash != "") != (row.mode == _FOLDER):
                return ""
            if not slash:
                return row.oid
            tree = row.oid
        return None

    def commit(self, oid: str) -> Commit:
        """A commit of it.

        Raises:
            FormatError: it is not in it, or damaged.
        """
        text = self.pack.read(oid, COMMIT).decode("utf-8", "surrogateescape")
        head, _, message = text.partition("\n\n")
        rows = [line.partition(" ") for line in head.split("\n")]
        trees = [value for key, _, value in rows if key == "tree"]
        parents = tuple(value for key, _, value in rows if key == "parent")
        authors = [value for key, _, value in rows if key == "author"]
        if len(trees) != 1 or len(authors) != 1:
            raise FormatError(f"commit {oid} is damaged")
        return Commit(oid, trees[0], parents, authors[0], message)

    @cached_property
    def commits(self) -> list[Commit]:
        """The commits that it brings, parents before their children."""
        done: dict[str, Commit] = {}
        waiting = [(self.tip, False)]
        while waiting:
            oid, ready = waiting.pop()
            if oid in done:
                continue
            entry = self.pack.entries.get(oid)
            if entry is None or entry.kind != COMMIT:
                continue
            found = self.commit(oid)
            if ready:
                done[oid] = found
                continue
            waiting.append((oid, True))
            waiting += [(parent, False) for parent in found.parents]
        return list(done.values())

    def _tree(self, oid: str) -> dict[str, TreeRow]:
        """The rows of a folder, by name."""
        if oid not in self._rows:
            self._rows[oid] = {row.name: row for row in self._read_tree(oid)}
        return self._rows[oid]

    def _read_tree(self, oid: str) -> Iterator[TreeRow]:
        data, at, width = self.pack.read(oid, TREE), 0, len(oid) // 2
        while at < len(data):
            end = data.find(b"\0", at)
            mode, space, name = data[at:end].partition(b" ")
            if end < 0 or not space or end + 1 + width > len(data):
                raise FormatError(f"folder {oid} is damaged")
            found = data[end + 1 : end + 1 + width].hex()
            yield TreeRow(mode.decode("ascii", "replace"), name.decode("utf-8", "surrogateescape"),
                          found)  # fmt: skip
            at = end + 1 + width

    @cached_property
    def names(self) -> list[str]:
        """What its commits are made of: they, their folders and files, as far as they are in it."""
        found: dict[str, None] = {}
        waiting = []
        for commit in self.commits:
            found[commit.oid] = None
            waiting.append(commit.tree)
        while waiting:
            oid = waiting.pop()
            if oid in found or oid not in self.pack.entries:
                continue
            found[oid] = None
            if self.pack.entries[oid].kind == TREE:
                waiting += [row.oid for row in self._tree(oid).values()]
        return list(found)

    def manifest(self, oid: str) -> Manifest | None:
        """The manifest that a blob is; None for any other blob, and for one that is not in it.

        Raises:
            FormatError: it begins as a manifest, and is none.
        """
        entry = self.pack.entries.get(oid)
        if entry is None or entry.kind != BLOB:
            return None
        if not entry.base and not is_manifest(next(self.pack.pieces(entry), b"")[:HEAD_BYTES]):
            return None
        text = self.pack.read(oid, BLOB)
        if not is_manifest(text[:HEAD_BYTES]):
            return None
        try:
            return self._parser.parse(text)
        except ManifestError as error:
            raise FormatError(f"blob {oid} is a damaged manifest: {error.message}") from error

    def versions(self, one: Changed) -> tuple[Manifest | None, Manifest | None]:
        """The manifests of a file before and after; None where there is none."""
        return self.manifest(one.base), self.manifest(one.new)

    @cached_property
    def manifests(self) -> list[Manifest]:
        """Those of all commits that it brings."""
        found = (self.manifest(oid) for oid in self.names)
        return [one for one in found if one is not None]

    @cached_property
    def objects(self) -> dict[str, int]:
        """Our objects that its manifests name and that lie in it: id -> size."""
        every = [*self.manifests, *filter(None, (self.manifest(one.base)
                                                 for one in self.description.files))]  # fmt: skip
        refs = {ref.oid: ref.size for manifest in every for ref in manifest.objects()}
        return {oid: size for oid, size in refs.items() if self.holds(oid, size)}

    def holds(self, oid: str, size: int) -> bool:
        """Whether an object lies in it; its bytes were hashed when the patch was opened."""
        entry = self.pack.by_sha256.get(oid)
        return entry is not None and entry.size == size

    def write_object(self, oid: str, path: Path) -> None:
        """Write an object to a new file."""
        with files.new_file(path) as file:
            for piece in self.pack.pieces(self.pack.by_sha256[oid]):
                file.write(piece)

    def structure(self, sha256: str) -> bytes | None:
        """A skeleton that lies in it plain; None where it does not."""
        entry = self.pack.by_sha256.get(sha256)
        if entry is None or sha256 not in self.description.structures:
            return None
        return b"".join(self.pack.pieces(entry))


def is_patch(path: Path) -> bool:
    """Whether a file is there that begins as a patch does."""
    try:
        with files.plain(path, follow=True) as file:
            head = file.read(1 << 16)
    except OSError:
        return False
    return is_bundle(head) or mail.begins_as_mail(head)


@contextmanager
def opened(name: str) -> Iterator[Patch]:
    """A patch that the user named: a bundle, or a mail with one.

    Raises:
        UsageError: there is no such file.
        FormatError: it is no patch, damaged, or past a limit.
    """
    with ExitStack() as stack:
        try:
            file: IO[bytes] = stack.enter_context(files.plain(Path(name), follow=True))
            head = file.read(64)
            if not head:
                raise FormatError("it is empty: no patch")
            if not is_bundle(head):
                file.seek(0)
                content = mail.patch_in(file)
                file = stack.enter_context(tempfile.SpooledTemporaryFile(1 << 20))
                file.write(content)
            yield Patch(name, file)
        except FileNotFoundError as error:
            raise UsageError(f"there is no file {printable(name)}") from error
        except IsADirectoryError as error:
            raise UsageError(f"{printable(name)} is a folder") from error
        except FormatError as error:
            raise FormatError(f"{printable(name)}: {error.message}", hint=error.hint) from error
