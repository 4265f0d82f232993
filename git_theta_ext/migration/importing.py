"""Files of git-lfs and plain blobs become manifests, as `git add` would have written them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from git_theta_ext.checkpoints.clean import Cleaner
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.core import files
from git_theta_ext.core.errors import CorruptObjectError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.formats.neighbours import has_neighbour
from git_theta_ext.git import attributes
from git_theta_ext.git.object_pipes import Item, ObjectPipes
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Block, UpdateRef
from git_theta_ext.manifest.text import Parser
from git_theta_ext.migration import tracking
from git_theta_ext.migration.attribute_patterns import filter_of, matches
from git_theta_ext.migration.found import LFS, MISSING, RAW, Checkpoints, Files, Found
from git_theta_ext.migration.headers import Commit
from git_theta_ext.migration.journal import Journal
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.past import PastPredecessors
from git_theta_ext.migration.rewrite import Contents
from git_theta_ext.migration.verify import Verifier
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.where import store_of

ATTRIBUTES = b".gitattributes"
_WORDS: Mapping[str, Sequence[str]] = {"lfs": tracking.LFS, "raw": tracking.NONE}

Tell = Callable[[str, int], object]
"""Called with the path and the bytes of each version that was moved."""


class Importing:
    """A converter: see `rewrite.Converter`."""

    def __init__(self, repository: Repository, found: Files, journal: Journal, tell: Tell) -> None:
        """Nothing is written before files come."""
        self._repository, self.pipes, self.found = repository, found.pipes, found
        self.journal, self._tell = journal, tell
        self._lfs = LfsFiles(repository)
        self._blocks = Blocks.open(repository)
        self._verifier = Verifier(self._blocks)
        self._memo = Memo(store_of(repository).root / "memo")
        self._parser = Parser()
        self._made = set(journal.blobs.values())
        self._checkpoints = Checkpoints(found, self._made)
        self._cleaner: Cleaner | None = None
        self._parents: Sequence[str] = ()
        self._macros: Mapping[str, str] = {}

    def begin(self, commit: Commit, parents: Sequence[str]) -> Hashable:
        """See `rewrite.Converter`."""
        self._parents, self._cleaner = parents, None
        self._macros = macros_of(self.pipes, commit.tree)
        return tuple(sorted(self._macros.items()))

    def close(self) -> None:
        """Let go of what was kept for further versions."""
        self._blocks.store.let_go()
        if self._memo.grew:
            self._memo.trim(self._blocks.store.root / "objects")

    def folder(self, contents: Contents) -> None:
        """See `rewrite.Converter`."""
        selection = self.found.selection
        for name, item in list(contents.items.items()):
            path = contents.path_of(name)
            if not item.is_file:
                continue
            if not selection.names(path):
                if selection.leaves_out(path) and selection.could_name(path):
                    is_pointer = self.found.is_pointer(item.oid)
                    contents.kept.append((path, "lfs" if is_pointer else "raw"))
                continue
            found = self.found.look(path, item.oid)
            if found.kind == MISSING:
                contents.kept.append((path, "lfs"))
            elif found.kind in (LFS, RAW):
                new = self.converted(path, item.oid, found)
                contents.items[name] = item._replace(oid=new)
                contents.moved.append(path)
        if contents.path:
            self.track_below(contents)

    def top(self, contents: Contents, inherited: frozenset[str]) -> frozenset[str]:
        """See `rewrite.Converter`."""
        patterns = [one for path in contents.moved for one in self.found.selection.patterns(path)]
        tracked = inherited.union(patterns)
        if tracked:
            kept = [
                (attributes.literal(path), _WORDS[kind])
                for path, kind in contents.kept
                if any(matches(pattern, path) for pattern in tracked)
            ]
            content = self.attributes_of(contents)
            self.replace_attributes(
                contents, tracking.with_lines(content, sorted(tracked), sorted(kept))
            )
        return tracked

    def track_below(self, contents: Contents) -> None:
        """Add lines to the `.gitattributes` of a folder that would overrule those at the top."""
        content = self.attributes_of(contents)
        if content is None or not contents.moved:
            return
        lines = attributes.lines(content)
        depth = len(contents.path) + 1
        patterns = set()
        for path in contents.moved:
            said = filter_of(path, [(contents.path, lines)], self._macros)
            if said not in (None, "theta"):
                ours = self.found.selection.patterns(path)
                own = [one for one in ours if "/" not in one]
                patterns.update(own or [attributes.literal(path[depth:])])
        kept = [(attributes.literal(path[depth:]), _WORDS[kind]) for path, kind in contents.kept]
        self.replace_attributes(
            contents, tracking.with_lines(content, sorted(patterns), sorted(kept))
        )

    def attributes_of(self, contents: Contents) -> bytes | None:
        """See `attributes_in`."""
        return attributes_in(self.pipes, contents)

    def replace_attributes(self, contents: Contents, content: bytes | None) -> None:
        """Put another `.gitattributes` into a folder, or none."""
        if content != self.attributes_of(contents):
            put_attributes(self.pipes, contents, content)

    def converted(self, path: str, oid: str, found: Found) -> str:
        """The blob of the manifest of a file, which is made if no version before was the same."""
        key = f"{oid} {path}" if has_neighbour(path) else oid
        file = original(self.pipes, self._lfs, oid, found)
        return self.stored(key, path, file, found.ref)

    def stored(
        self,
        key: str,
        path: str,
        opened: AbstractContextManager[Path],
        ref: UpdateRef | None = None,
    ) -> str:
        """The blob of the manifest of a file, made and verified if it was not before.

        Args:
            key: says which bytes they are, and all else that the manifest depends on.
            path: of the checkpoint, in the commit that is being rewritten.
            opened: gives the file.
            ref: what git-lfs promises of it.
        """
        known = self.journal.blobs.get(key)
        if known is not None:
            return known
        with opened as file, FileSource(file) as source:
            hashed: dict[int, str] = {}
            text = self._cleaned(path, source, hashed)
            self._verifier.require_same(self._parser.parse(text), path, source, hashed, ref)
            size = source.size
        new = self.pipes.write("blob", text)
        self.journal.note_blob(key, new)
        self._made.add(new)
        self._tell(path, size)
        return new

    def _cleaned(self, path: str, source: FileSource, hashed: dict[int, str]) -> bytes:
        """The manifest of a file; `hashed` is told the SHA-256 of its blocks, by their offsets."""

        def told(offset: int, block: Block) -> None:
            hashed[offset] = block.sha256

        if self._cleaner is None:
            parents = [self._checkpoints.of(tree) for tree in self._parents]
            past = PastPredecessors(self._repository, parents, self._parser)
            self._cleaner = Cleaner(self._blocks, past, self._memo)
        text = self._cleaner.clean(path, source, told=told)
        # Until a ref names it nothing else keeps a prune from taking what was stored.
        self._blocks.store.share()
        return text


def macros_of(pipes: ObjectPipes, tree: str) -> dict[str, str]:
    """The macros that a commit's topmost `.gitattributes` defines; see `attributes.macros`."""
    for item in pipes.tree(tree) if tree else ():
        if item.name == ATTRIBUTES and item.is_file:
            return attributes.macros(pipes.read(item.oid, "blob"))
    return {}


def attributes_in(pipes: ObjectPipes, contents: Contents) -> bytes | None:
    """The `.gitattributes` of a folder; None where there is none.

    Raises:
        UsageError: it is a link, which Git does not follow.
    """
    item = contents.items.get(ATTRIBUTES)
    if item is None or item.is_folder:
        return None
    if not item.is_file:
        raise UsageError(
            f"{printable(contents.path_of(ATTRIBUTES))} is a symbolic link in a commit; Git does "
            "not follow it, and lines cannot be added to it"
        )
    return pipes.read(item.oid, "blob")


def put_attributes(pipes: ObjectPipes, contents: Contents, content: bytes | None) -> None:
    """Put another `.gitattributes` into a folder, or none."""
    old = contents.items.pop(ATTRIBUTES, None)
    if content is not None:
        mode = b"100644" if old is None else old.mode
        contents.items[ATTRIBUTES] = Item(mode, ATTRIBUTES, pipes.write("blob", content))


@contextmanager
def original(pipes: ObjectPipes, lfs: LfsFiles, oid: str, found: Found) -> Iterator[Path]:
    """The file that a blob stands for, or is.

    Args:
        pipes: reads the blob.
        lfs: has the files of git-lfs.
        oid: of the blob.
        found: what it is.

    Raises:
        CorruptObjectError: it is gone, or the blob is damaged.
    """
    if found.ref is not None:
        path = lfs.find(found.ref)
        if path is None:
            raise CorruptObjectError(f"object {found.ref.oid} of git-lfs vanished meanwhile")
        yield path
        return
    with pipes.scratch() as path:
        with files.new_file(path, mode=0o600) as file:
            hashed = _Hashed(file.write, len(oid), found.size)
            pipes.copy(oid, hashed)
        if hashed.hexdigest() != oid:
            raise CorruptObjectError(f"blob {oid} is damaged")
        yield path


class _Hashed:
    """Passes bytes on, and finds out which blob they are."""

    def __init__(self, write: Callable[[bytes], object], digits: int, size: int) -> None:
        self._write = write
        self._digest = hashlib.new("sha1" if digits == 40 else "sha256", usedforsecurity=False)
        self._digest.update(b"blob %d\0" % size)

    def write(self, data: bytes, /) -> None:
        self._write(data)
        self._digest.update(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
