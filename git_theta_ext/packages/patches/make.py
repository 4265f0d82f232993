"""Make a patch of commits: a bundle that also holds the objects that their manifests need.

Git packs commits, folders and manifests; our objects, compressed already, are put behind them as
they are, one after the other, so that neither memory nor the repository grows with them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from git_theta_ext.core import files
from git_theta_ext.core.errors import CorruptObjectError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.process import run_git_into
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import commit_of
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.reachable import manifests
from git_theta_ext.packages.patches.bundle import (
    DESCRIPTION,
    REF,
    Changed,
    Description,
    Header,
)
from git_theta_ext.packages.patches.git_packs import BLOB, COMMIT, TREE, PackWriter

_ZEROS = "0" * 40
_SMALL_BYTES = 4 << 20
"""Objects up to this size are deflated again: the headers of many small ones are text."""
_WHO = "git-theta <git-theta@localhost> 0 +0000"


@dataclass(frozen=True, slots=True)
class Range:
    """Which commits: the two versions, what the receiver has, and the branch, if it is one.

    `base` and `tip` are ids of commits; `has` are those that the receiver must have.
    """

    base: str
    tip: str
    has: tuple[str, ...]
    branch: str | None


def range_of(repository: Repository, text: str, has: str | None = None) -> Range:
    """The commits that a user named as `REV..REV`, or as `REV` for `REV..HEAD`.

    Args:
        repository: where they are.
        text: as it was typed.
        has: a revision that the receiver has, instead of what both come from.

    Raises:
        UsageError: there are no such commits, or none at all.
    """
    first, dots, last = text.partition("..")
    if last.startswith("."):
        raise UsageError(
            f"{text!r} has three dots: a patch is of commits on a base",
            hint=f"git theta format-patch {first}..{last[1:]} -o FILE",
        )
    last = (last or "HEAD") if dots else "HEAD"
    since, tip = (_commit(repository, one or "HEAD") for one in (first, last))
    found = repository.git("merge-base", "--all", since, tip, ok=(0, 1)).decode().split()
    if not found:
        raise UsageError(f"{printable(text)}: the two have no commit in common")
    base = found[0]
    if base == tip:
        raise UsageError(f"{printable(text)} has no commits: nothing to make a patch of")
    known = since
    if has is not None:
        known = _commit(repository, has)
        met = repository.git("merge-base", known, tip, ok=(0, 1)).decode().strip()
        if not met or met == tip:
            raise UsageError(f"--base {printable(has)}: no commits lie between it and {last}")
        if repository.git("merge-base", base, met, ok=(0, 1)).decode().strip() == base:
            base = met
    answer = repository.git("rev-list", "--boundary", tip, f"^{known}").decode()
    needed = [line[1:] for line in answer.split() if line.startswith("-")]
    return Range(base, tip, tuple(dict.fromkeys(needed)), repository.branch(last))


def _commit(repository: Repository, revision: str) -> str:
    return commit_of(repository, revision)


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a patch: objects of Git by id, our objects with their sizes, skeletons."""

    span: Range
    description: Description
    names: tuple[str, ...]
    objects: dict[str, int]
    structures: dict[str, bytes]


def gather(repository: Repository, span: Range, blocks: Blocks) -> Contents:
    """Find what a patch has to hold; our objects are fetched where they are missing.

    Raises:
        MissingObjectError, TransferError: one is nowhere.
        UsageError: no checkpoint changes, so that plain Git does all that is needed.
    """
    parts = repository.git(
        "rev-list", "--objects", "--no-object-names", span.tip, *(f"^{one}" for one in span.has)
    ).decode()  # fmt: skip
    names = parts.split()
    changed = _changed(repository, span)
    both = [oid for one in changed for oid in (one.base, one.new)]
    known = _manifests(repository, [*names, *both])
    marked = tuple(_marked(one, known) for one in changed)
    if not any(one.checkpoint for one in marked):
        raise UsageError(
            "no checkpoint is changed by these commits",
            hint="git format-patch   makes patches of all else",
        )
    there = [oid for commit in span.has for oid in repository.blobs_at(commit).values()]
    held = _objects(_manifests(repository, there).values())
    objects = {oid: size for oid, size in _objects(known.values()).items() if oid not in held}
    blocks.ensure(ref for manifest in known.values() for ref in manifest.objects()
                  if ref.oid in objects)  # fmt: skip
    structures = dict(_structures(marked, known, blocks))
    more = [oid for one in marked if one.checkpoint for oid in (one.base, one.new) if oid]
    more += _folders(repository, span.tip, [one.path for one in marked])
    description = Description(span.base, span.tip, marked, tuple(structures))
    every = tuple(dict.fromkeys((*names, *more)))
    return Contents(span, description, every, objects, structures)


def _objects(found: Iterable[Manifest]) -> dict[str, int]:
    return {ref.oid: ref.size for manifest in found for ref in manifest.objects()}


def _manifests(repository: Repository, oids: Iterable[str]) -> dict[str, Manifest]:
    """Those of some objects that are manifests, by id.

    Raises:
        ManifestError: one is damaged.
    """
    found = {}
    for oid, manifest in manifests(repository, dict.fromkeys(filter(None, oids))):
        if not isinstance(manifest, Manifest):
            raise manifest
        found[oid] = manifest
    return found


def _changed(repository: Repository, span: Range) -> list[Changed]:
    """The files that differ between the two versions; a moved one is one."""
    options = ("-r", "-z", "-M", "--raw", "--no-abbrev")
    answer = repository.git("diff-tree", *options, span.base, span.tip)
    words = iter(os.fsdecode(answer).split("\0")[:-1])
    found = []
    for line in words:
        _, mode, base, new, status = line.lstrip(":").split(" ")
        path = next(words)
        was = ""
        if status[0] in "RC":
            was, path = path, next(words)
        base, new = (oid if oid.strip("0") else "" for oid in (base, new))
        found.append(Changed(path, was, mode, base, new, checkpoint=False))
    return found


def _marked(one: Changed, known: dict[str, Manifest]) -> Changed:
    checkpoint = one.base in known or one.new in known
    return Changed(one.path, one.was, one.mode, one.base, one.new, checkpoint)


def _structures(
    changed: Iterable[Changed], known: dict[str, Manifest], blocks: Blocks
) -> Iterator[tuple[str, bytes]]:
    """The skeletons of files whose skeleton changed: who has another model may have neither."""
    for one in changed:
        both = [known[oid].skeleton for oid in (one.base, one.new) if oid in known]
        if len({block.sha256 for block in both}) > 1:
            for block in both:
                yield block.sha256, blocks.read_bytes(block)


def _folders(repository: Repository, tip: str, paths: Iterable[str]) -> Iterator[str]:
    """The folders that some files of a version are in, so that the receiver can look into them."""
    folders = {path[:at] for path in paths for at, char in enumerate(path) if char == "/"}
    for folder in ("", *sorted(folders)):
        found = repository.resolve(f"{tip}:{folder}")
        if found is not None:
            yield found


def write(
    repository: Repository,
    contents: Contents,
    blocks: Blocks,
    file: IO[bytes],
    advance: Callable[[int], object] = lambda count: None,
) -> None:
    """Write a patch.

    Args:
        repository: whose commits are in it.
        contents: what `gather` found.
        blocks: where our objects are.
        file: is sought in.
        advance: called with the bytes of each of our objects that was written.

    Raises:
        CorruptObjectError: an object here is damaged.
        RepositoryError: Git cannot pack its own.
    """
    span = contents.span
    algorithm = "sha1" if len(span.tip) == len(_ZEROS) else "sha256"
    subjects = {oid: subject_of(repository, oid) for oid in span.has}
    refs = [("HEAD", span.tip), *([(span.branch, span.tip)] if span.branch else [])]
    header = Header(algorithm, tuple(subjects.items()), (*refs, (REF, "0" * len(span.tip))))
    file.write(header.text())
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        with files.new_file(os.path.join(folder, "pack")) as pack:
            run_git_into(
                pack,
                ["-c", "core.bigFileThreshold=16m", "pack-objects", "-q", "--stdout",
                 "--delta-base-offset", "--depth=50", "--no-reuse-delta"],
                repository.cwd,
                stdin="".join(f"{oid}\n" for oid in contents.names).encode(),
            )  # fmt: skip
        with files.plain(os.path.join(folder, "pack")) as source:
            own = _Packed(source, contents, blocks, algorithm).write(file.write, advance)
    file.seek(0)
    file.write(Header(algorithm, header.prerequisites, (*refs, (REF, own))).text())
    file.seek(0, os.SEEK_END)


def subject_of(repository: Repository, oid: str) -> str:
    """The first line of a commit's message, harmless."""
    text = repository.git("show", "-s", "--format=%s", oid).decode("utf-8", "replace")
    return printable(text.strip())[:200]


class _Packed:
    """The pack of a patch: what Git packed, then our objects, then what names them."""

    def __init__(
        self, source: IO[bytes], contents: Contents, blocks: Blocks, algorithm: str
    ) -> None:
        self._source, self._contents = source, contents
        self._blocks, self._algorithm = blocks, algorithm
        self._trailer = 20 if algorithm == "sha1" else 32

    def write(self, write: Callable[[bytes], object], advance: Callable[[int], object]) -> str:
        """Write it; the id of the commit that names our objects."""
        head = self._source.read(12)
        there = int.from_bytes(head[8:], "big")
        count = there + self._count()
        pack = PackWriter(write, count, self._algorithm)
        left = self._source.seek(0, os.SEEK_END) - 12 - self._trailer
        self._source.seek(12)
        while left:
            piece = self._source.read(min(left, 1 << 20))
            pack.raw(piece)
            left -= len(piece)
        own = self._own(pack, advance)
        pack.finish()
        return own

    def _folders(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for oid in sorted(self._contents.objects):
            found.setdefault(oid[:2], []).append(oid)
        return found

    def _count(self) -> int:
        """Objects that come behind those of Git."""
        tops = len(self._folders())
        extra = 1 if tops else 0  # the folder of all
        extra += bool(self._bases())
        extra += len(self._contents.structures) + bool(self._contents.structures)
        return len(self._contents.objects) + tops + extra + 3  # description, top folder, commit

    def _bases(self) -> list[str]:
        changed = [one for one in self._contents.description.files if one.checkpoint]
        return sorted({oid for one in changed for oid in (one.base, one.new) if oid})

    def _own(self, pack: PackWriter, advance: Callable[[int], object]) -> str:
        """Write our objects and the commit that names them; its id."""
        tops = []
        for top, oids in self._folders().items():
            rows = []
            for oid in oids:
                size = self._contents.objects[oid]
                level = 6 if size <= _SMALL_BYTES else 0
                rows.append(("100644", oid, pack.add(BLOB, size, self._read(oid, size), level)))
                advance(size)
            tops.append(("40000", top, _tree(pack, rows)))
        rows = [("100644", DESCRIPTION, _blob(pack, self._contents.description.text()))]
        rows += [("40000", "objects", _tree(pack, tops))] if tops else []
        if self._bases():
            kept = [("100644", oid, oid) for oid in self._bases()]
            rows.append(("40000", "manifests", _tree(pack, kept)))
        if self._contents.structures:
            plain = [("100644", name, _blob(pack, data))
                     for name, data in self._contents.structures.items()]  # fmt: skip
            rows.append(("40000", "structures", _tree(pack, plain)))
        text = f"tree {_tree(pack, rows)}\nauthor {_WHO}\ncommitter {_WHO}\n\ngit theta patch\n"
        return pack.add(COMMIT, len(text), [text.encode()], 6)

    def _read(self, oid: str, size: int) -> Iterator[bytes]:
        """The bytes of an object of the store, hashed."""
        path = self._blocks.store.find(oid, size)
        if path is None:
            raise CorruptObjectError(f"object {oid} vanished while the patch was written")
        digest = hashlib.sha256()
        for piece in files.pieces_of(path):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != oid:
            self._blocks.store.verify(oid, size)
            raise CorruptObjectError(f"object {oid} changed while it was read")


def _blob(pack: PackWriter, data: bytes) -> str:
    return pack.add(BLOB, len(data), [data], 6)


def _tree(pack: PackWriter, rows: Iterable[tuple[str, str, str]]) -> str:
    """A folder of rows (mode, name, id); names are ASCII, and none is another's beginning."""
    data = b"".join(
        f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid)
        for mode, name, oid in sorted(rows, key=lambda row: row[1])
    )
    return pack.add(TREE, len(data), [data], 6)
