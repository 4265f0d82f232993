"""What a history holds, and what it would take moved in: a few versions are encoded to see."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from git_theta_ext import formats
from git_theta_ext.checkpoints.clean import Cleaner
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.formats.layout.source import BytesSource, FileSource
from git_theta_ext.git.object_pipes import ObjectPipes
from git_theta_ext.git.repository import Repository, git_hash
from git_theta_ext.manifest.text import Parser
from git_theta_ext.migration.found import LFS, MANIFEST, OTHER, RAW, Version
from git_theta_ext.migration.importing import original
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.past import PastPredecessors
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import claimed
from git_theta_ext.objects.store.store import Store


@dataclass(slots=True)
class Group:
    """The files of one ending: versions and bytes by kind, and the container they are in."""

    versions: dict[str, int] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)
    format: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What two versions of a file would take: the first, and the next one after it.

    Bytes as they are, and in the store; the next ones are 0 where there is only one version.
    """

    path: str
    first: int
    first_stored: int
    next: int = 0
    next_stored: int = 0


def ending_of(path: str) -> str:
    """What a file's kind is called: `*.pt`, or its name where it has no ending."""
    name = os.path.basename(path)
    ending = os.path.splitext(name)[1]
    return f"*{ending}" if ending else name


def grouped(pipes: ObjectPipes, every: Iterable[Version]) -> dict[str, Group]:
    """The versions of a history by ending; each blob counts once."""
    groups: dict[str, Group] = {}
    seen: set[tuple[str, str]] = set()
    parser = Parser()
    for one in every:
        if one.found.kind == OTHER or (ending_of(one.path), one.oid) in seen:
            continue
        seen.add((ending_of(one.path), one.oid))
        group = groups.setdefault(ending_of(one.path), Group())
        nbytes = one.found.size
        if one.found.kind == MANIFEST:
            try:
                manifest = parser.parse(pipes.read(one.oid, "blob"))
            except ThetaError:
                continue
            nbytes, group.format = claimed(manifest), group.format or manifest.format
        group.paths.add(one.path)
        group.versions[one.found.kind] = group.versions.get(one.found.kind, 0) + 1
        group.nbytes[one.found.kind] = group.nbytes.get(one.found.kind, 0) + nbytes
    return groups


class Sampler:
    """Encodes versions into a store that is thrown away."""

    def __init__(self, repository: Repository, pipes: ObjectPipes, folder: Path) -> None:
        """`folder` is made, and is the caller's to remove."""
        self._repository, self._pipes = repository, pipes
        self._lfs = LfsFiles(repository)
        folder.mkdir()
        self._folder = folder

    def sample(self, versions: Sequence[Version]) -> tuple[Sample, str]:
        """What the first of some versions of a file takes, and the second; and its container."""
        store = Store(self._folder / "store")
        memo = Memo(self._folder / "memo")
        blocks, parser = Blocks(store), Parser()
        texts: dict[str, bytes] = {}
        before: Mapping[str, str] = {}
        rows: list[tuple[int, int]] = []
        known: set[str] = set()
        container = ""
        for one in versions[:2]:
            past = PastPredecessors(self._repository, [before] if before else [], parser, texts)
            with (
                original(self._pipes, self._lfs, one.oid, one.found) as path,
                FileSource(path) as source,
            ):
                container = formats.sniff(source)
                text = Cleaner(blocks, past, memo).clean(one.path, source)
            objects = {ref.oid: ref.size for ref in parser.parse(text).objects()}
            rows.append((one.found.size, sum(objects[oid] for oid in objects.keys() - known)))
            known |= objects.keys()
            oid = git_hash(BytesSource(text).read, len(text), len(one.oid))
            texts, before = {oid: text}, {one.path: oid}
        later = rows[1] if len(rows) > 1 else (0, 0)
        return Sample(versions[0].path, *rows[0], *later), container


def chosen(every: Sequence[Version], count: int, largest: int) -> list[list[Version]]:
    """Versions to look at: of the files that take most, the last two that are here.

    Args:
        every: all versions, the oldest first.
        count: of how many files.
        largest: a longer file is left out.
    """
    by_path: dict[str, list[Version]] = {}
    for one in every:
        if one.found.kind in (LFS, RAW) and one.found.size <= largest:
            by_path.setdefault(one.path, []).append(one)
    order = sorted(by_path.values(), key=lambda rows: -sum(one.found.size for one in rows))
    return [rows[-2:] for rows in order[:count]]
