"""Manifests become what they stand for: pointers of git-lfs with their files, or plain blobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import files
from git_theta_ext.git import attributes
from git_theta_ext.git.attributes import Line
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.manifest.text import Parser
from git_theta_ext.migration import tracking
from git_theta_ext.migration.attribute_patterns import filter_of, matches
from git_theta_ext.migration.found import MANIFEST, Files
from git_theta_ext.migration.headers import Commit
from git_theta_ext.migration.importing import (
    ATTRIBUTES,
    Tell,
    attributes_in,
    macros_of,
    put_attributes,
)
from git_theta_ext.migration.journal import Journal
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.rewrite import Contents
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.transfer.pointer_files import pointer_text, read_pointer

TO_LFS, TO_RAW = "lfs", "raw"

Filter = Callable[[str, Sequence[Line]], str | None]
"""The filter of a path, by the lines of a `.gitattributes`."""


class Exporting:
    """A converter: see `rewrite.Converter`."""

    def __init__(
        self, repository: Repository, found: Files, journal: Journal, to: str, tell: Tell
    ) -> None:
        """`to` is `lfs` or `raw`; nothing is written before files come."""
        pipes = found.pipes
        self._pipes, self._found, self._journal = pipes, found, journal
        self._to, self._tell = to, tell
        self._lfs = LfsFiles(repository)
        self._blocks = Blocks.open(repository)
        self._parser = Parser()
        self._lines: dict[str, tuple[Line, ...]] = {}
        self._macros: Mapping[str, str] = {}

    def begin(self, commit: Commit, parents: Sequence[str]) -> Hashable:
        """See `rewrite.Converter`."""
        self._macros = macros_of(self._pipes, commit.tree)
        return tuple(sorted(self._macros.items()))

    def folder(self, contents: Contents) -> None:
        """See `rewrite.Converter`."""
        for name, item in list(contents.items.items()):
            path = contents.path_of(name)
            if not item.is_file or name == ATTRIBUTES:
                continue
            if self._found.look(path, item.oid).kind != MANIFEST:
                continue
            if self._found.selection.names(path):
                new = self._converted(path, item.oid)
                contents.items[name] = item._replace(oid=new)
                contents.moved.append(path)
            else:
                contents.kept.append((path, MANIFEST))
        if contents.path and (content := attributes_in(self._pipes, contents)) is not None:
            where, macros = contents.path, self._macros
            self._settle(
                contents, content, lambda path, lines: filter_of(path, [(where, lines)], macros)
            )

    def top(self, contents: Contents, inherited: frozenset[str]) -> frozenset[str]:
        """See `rewrite.Converter`."""

        def said(path: str, lines: Sequence[Line]) -> str | None:
            return filter_of(path, [("", lines), *self._below(contents, path)], self._macros)

        content = attributes_in(self._pipes, contents)
        if content is not None or contents.moved:
            self._settle(contents, content, said, every=True)
        return frozenset()

    def _settle(
        self,
        contents: Contents,
        content: bytes | None,
        said: Filter,
        *,
        every: bool = False,
    ) -> None:
        """Take our lines out of a folder's `.gitattributes`; add what its files need now.

        `said` gives the filter of a path by the lines that are left. At the top, `every` file gets
        what it needs; below it only those of which the folder itself says something else.
        """
        patterns: list[str] = []
        left = content
        if content is not None and not contents.kept:
            left, patterns = tracking.without_lines(content)
        lines = attributes.lines(left or b"")
        depth = len(contents.path) + 1 if contents.path else 0
        wanted = TO_LFS if self._to == TO_LFS else ""
        words = tracking.LFS if self._to == TO_LFS else tracking.NONE
        added: dict[bytes, None] = {}
        for path in contents.moved:
            now = said(path, lines)
            if (now or "") == wanted or (not every and now is None):
                continue
            inside = path[depth:]
            own = [one for one in patterns if matches(one, inside)]
            for pattern in own or [attributes.literal(inside)]:
                added[tracking.line_of(pattern, words)] = None
        left = tracking.with_plain_lines(left, list(added))
        if left != content:
            put_attributes(self._pipes, contents, left)

    def _below(self, contents: Contents, path: str) -> list[tuple[str, Sequence[Line]]]:
        """The lines of each `.gitattributes` between the top and a file, as they are now."""
        found: list[tuple[str, Sequence[Line]]] = []
        items = contents.items
        folders = path.split("/")[:-1]
        for number, name in enumerate(folders, 1):
            below = items.get(name.encode("utf-8", "surrogateescape"))
            if below is None:
                break
            tree = self._pipes.tree(below.oid)
            items = {one.name: one for one in tree}
            if (item := items.get(ATTRIBUTES)) is not None and item.is_file:
                if item.oid not in self._lines:
                    text = self._pipes.read(item.oid, "blob")
                    self._lines[item.oid] = tuple(attributes.lines(text))
                found.append(("/".join(folders[:number]), self._lines[item.oid]))
        return found

    def _converted(self, path: str, oid: str) -> str:
        """The blob that takes the place of a manifest; its file is written if it is not there."""
        known = self._journal.blobs.get(oid)
        if known is not None and self._is_whole(known):
            return known
        manifest = self._parser.parse(self._pipes.read(oid, "blob"))
        smudger = Smudger(manifest, self._blocks, path)
        with self._pipes.scratch() as file:
            smudger.check_room(path, file.parent)
            oid_of_file = _written(file, smudger)
            if self._to == TO_RAW:
                new = self._pipes.write_file("blob", file)
            else:
                ref = UpdateRef("lfs", oid_of_file, smudger.size)
                self._lfs.take(file, ref, move=True)
                new = self._pipes.write("blob", pointer_text(ref).encode("ascii"))
        self._journal.note_blob(oid, new)
        self._tell(path, smudger.size)
        return new

    def _is_whole(self, blob: str) -> bool:
        """Whether the file of a pointer that was written before is still here."""
        if self._to == TO_RAW:
            return True
        ref = read_pointer(self._pipes.read(blob, "blob"))
        return ref is not None and self._lfs.find(ref) is not None


def _written(path: Path, smudger: Smudger) -> str:
    """Write a file; its SHA-256."""
    digest = hashlib.sha256()
    with files.new_file(path, mode=0o666) as file:

        def write(data: memoryview) -> None:
            file.write(data)
            digest.update(data)

        smudger.write(write)
    return digest.hexdigest()
