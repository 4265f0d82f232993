"""Every version of a checkpoint with its scores: what `git theta scores` shows, as data.

From commits, manifests and kept results alone; no tensor is read and no outcome of an example.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints import shards
from git_theta_ext.comparison.history import History, Version
from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.evaluation.content import Identities
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.results import Result, Score
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import HEAD_BYTES, Block, Entry, Manifest, Place, is_manifest
from git_theta_ext.manifest.text import Parser

_NAMED = 5
"""Changed tensors that are named for a version."""
_REMEMBERED = 50_000
"""Versions from which on those are forgotten that were not asked for."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A tensor that changed: `stored` bytes of new objects; `how` is the kind of its update."""

    name: str
    how: str
    stored: int


@dataclass(frozen=True, slots=True)
class Row:
    """One version: what it stores and changes against those before it, and its results.

    `content` is None where the checkpoint is not there, or not stored tensor by tensor; `state`
    says which, and is empty otherwise. `before` are the numbers of the rows that it came from; a
    merge has several. `changed` names the tensors that take the most room, of `changes` in all.
    """

    number: int
    version: Version
    content: str | None
    stored: int
    changes: int
    changed: tuple[Changed, ...]
    before: tuple[int, ...]
    results: tuple[Result, ...] = ()
    state: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A score of a version; not `current`: measured otherwise than the newest of its column."""

    score: Score
    result: Result
    current: bool


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of one task of one evaluation, over all versions.

    `cells` are by the number of the row; several where people measured differently.
    """

    evaluation: str
    task: str
    metric: str
    higher_is_better: bool | None
    cells: Mapping[int, tuple[Cell, ...]] = field(repr=False)

    @property
    def name(self) -> str:
        """`glue/rte/acc`; the task alone where it is called as the evaluation."""
        words = [self.evaluation, self.task, self.metric]
        return "/".join(words[1:] if self.task == self.evaluation else words)

    def best_first(self, row: Row) -> tuple[bool, float]:
        """The key that sorts rows by this column; those without a score come last."""
        cells = [cell for cell in self.cells.get(row.number, ()) if cell.current]
        value = cells[0].score.value if cells else 0.0
        return not cells, value if self.higher_is_better is False else -value


@dataclass(frozen=True, slots=True)
class Table:
    """The versions of a checkpoint, the newest first, and what was measured of them."""

    path: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]


def read(repository: Repository, revision: str, path: str) -> Table:
    """The versions of a checkpoint with their scores.

    Args:
        repository: any.
        revision: where its history ends.
        path: of the checkpoint, or what stands for the shards of a model; from the top.

    Raises:
        UsageError: there is no such revision, or nothing was ever at that path.
    """
    history = History(repository, revision, path)
    versions = list(history)
    numbers = {(one.commit, one.path): number for number, one in enumerate(versions)}
    manifests = _Manifests(repository)
    memory = Memory(repository.common_dir / "theta" / "versions.json")
    found = []
    for version in versions:
        before = [one for one in history.parents(version) if (one.commit, one.path) in numbers]
        places = tuple(numbers[one.commit, one.path] for one in before)
        found.append((places, _facts(manifests, memory, version, before)))
    memory.flush()
    results = Kept(repository).of([facts.content for _, facts in found if facts.content])
    rows = tuple(
        Row(number, versions[number], facts.content, facts.stored, facts.changes, facts.changed,
            places, results.get(facts.content or "", ()), facts.state)
        for number, (places, facts) in enumerate(found)
    )  # fmt: skip
    return Table(path, rows, tuple(_columns(rows)))


@dataclass(frozen=True, slots=True)
class _Facts:
    """What follows from the manifests of a version and of those before it; see `Row`."""

    content: str | None = None
    stored: int = 0
    changes: int = 0
    changed: tuple[Changed, ...] = ()
    state: str = ""


def _facts(
    manifests: _Manifests, memory: Memory, version: Version, before: Sequence[Version]
) -> _Facts:
    """What a version is, from memory where that knows its blobs."""
    blobs = [manifests.blob(one) for one in (version, *before)]
    key = " ".join(oid for oid in blobs if oid) if all(blobs) else ""
    known = memory.get(key)
    if known is not None:
        return known
    now = manifests.of(version)
    if not now:
        return _Facts(state=manifests.state(version))
    facts = _Facts(manifests.identities.of(now),
                   *_difference(now, [manifests.of(one) for one in before]))  # fmt: skip
    memory.put(key, facts)
    return facts


class Memory:
    """Facts on versions by the ids of their blobs, in a file that is safe to delete.

    A thousand manifests take seconds to read; what follows from them never changes.
    """

    def __init__(self, path: Path) -> None:
        """A file that is not there, or cannot be read, is as an empty one."""
        self._path = path
        self._rows: dict[str, Any] = {}
        self._used: dict[str, Any] = {}
        self._changed = False
        with suppress(OSError, ValueError, RecursionError), files.own(path) as file:
            rows = json.loads(file.read(limits.RESULT_FILE_BYTES))
            self._rows = rows if isinstance(rows, dict) else {}

    def get(self, key: str) -> _Facts | None:
        """What is known; None where that is nothing."""
        with suppress(KeyError, ValueError, TypeError):
            content, stored, changes, changed = self._rows[key]
            tensors = tuple(Changed(str(a), str(b), int(c)) for a, b, c in changed)
            self._used[key] = self._rows[key]
            return _Facts(str(content), int(stored), int(changes), tensors)
        return None

    def put(self, key: str, facts: _Facts) -> None:
        """Remember facts; those of several files, which have no key, are not remembered."""
        if key:
            rows = [(one.name, one.how, one.stored) for one in facts.changed]
            self._used[key] = (facts.content, facts.stored, facts.changes, rows)
            self._changed = True

    def flush(self) -> None:
        """Write what was new; a file that cannot be written costs time at the next command."""
        if not self._changed:
            return
        rows = self._used if len(self._rows) > _REMEMBERED else self._rows | self._used
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_file(self._path, json.dumps(rows).encode("ascii"))


class _Manifests:
    """The manifests of versions, each blob parsed once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._parser = Parser()
        self._known: dict[str, Manifest | None] = {}
        self.identities = Identities()

    def blob(self, version: Version) -> str | None:
        """The blob of a version that is one file."""
        if shards.names_model(version.path):
            return None
        return self._repository.blob_at(version.commit, version.path)

    def of(self, version: Version) -> tuple[Manifest, ...]:
        """Those of a version; empty where there is none."""
        if not shards.names_model(version.path):
            oid = self.blob(version)
            one = None if oid is None else self._get(oid)
            return () if one is None else (one,)
        try:
            model = shards.find(self._repository, version.commit, version.path, self._get)
        except UsageError:
            return ()
        return () if model is None else model.parts

    def state(self, version: Version) -> str:
        """Why a version has no manifest."""
        oid = self.blob(version)
        if oid is None:
            return "not there"
        if oid not in self._repository.blob_sizes([oid]):
            return "not on this machine"
        head = self._repository.blob(oid)[:HEAD_BYTES]
        return "a damaged manifest" if is_manifest(head) else "not stored tensor by tensor"

    def _get(self, oid: str) -> Manifest | None:
        if oid not in self._known:
            self._known[oid] = self._parse(oid)
        return self._known[oid]

    def _parse(self, oid: str) -> Manifest | None:
        if oid not in self._repository.blob_sizes([oid]):
            return None
        data = self._repository.blob(oid)
        try:
            return self._parser.parse(data) if is_manifest(data[:HEAD_BYTES]) else None
        except ManifestError:
            return None


def _difference(
    now: Sequence[Manifest], before: Sequence[Sequence[Manifest]]
) -> tuple[int, int, tuple[Changed, ...]]:
    """Bytes that a version stores, how many tensors changed since its first parent, and which."""
    known = {ref.place for parts in before for one in parts for ref in one.objects()}
    first = [entry for one in (before[0] if before else ()) for entry in one.entries]
    then = {id(entry) for entry in first}
    named = {entry.tensor.name: entry for entry in first}
    stored = 0
    changed: list[Changed] = []
    for manifest in now:
        stored += _new_bytes([manifest.skeleton], known)
        for entry in manifest.entries:
            if id(entry) in then:
                continue
            own = _new_bytes(entry.blocks, known)
            stored += own
            old = named.get(entry.tensor.name)
            if before and old is not None and _bits(old) == _bits(entry):
                continue
            how = "added" if old is None else _kind(entry)
            changed.append(Changed(entry.tensor.name, how, own))
    changed.sort(key=lambda one: (-one.stored, one.name))
    return stored, len(changed), tuple(changed[:_NAMED])


def _new_bytes(blocks: Iterable[Block], known: set[Place]) -> int:
    """What blocks store that is not known yet, in bytes; from then on it is."""
    total = 0
    for block in blocks:
        for ref in block.objects():
            if ref.place not in known:
                total += ref.nbytes
                known.add(ref.place)
    return total


def _bits(entry: Entry) -> tuple[object, ...]:
    info = entry.tensor
    return info.dtype, info.shape, info.order, [block.sha256 for block in entry.blocks]


def _kind(entry: Entry) -> str:
    kinds = {block.chain[-1].kind for block in entry.blocks if block.chain}
    return kinds.pop() if len(kinds) == 1 else "inline" if not kinds else "several"


def _columns(rows: Sequence[Row]) -> Iterable[Column]:
    """One column for each metric of any version: first what most versions have, then by name."""
    found: dict[tuple[str, str, str], dict[int, list[tuple[Score, Result]]]] = {}
    for row in rows:
        for result in row.results:
            for score in result.scores:
                key = (result.evaluation, score.task, score.metric)
                found.setdefault(key, {}).setdefault(row.number, []).append((score, result))
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    for (evaluation, task, metric), cells in ordered:
        newest = max((pair for pairs in cells.values() for pair in pairs), key=lambda p: p[1].when)
        yield Column(
            evaluation, task, metric, newest[0].higher_is_better,
            {number: tuple(_cells(pairs, newest)) for number, pairs in cells.items()},
        )  # fmt: skip


def _cells(pairs: Iterable[tuple[Score, Result]], newest: tuple[Score, Result]) -> Iterable[Cell]:
    """The different values of one version; the same value, measured again, is one."""
    seen: set[tuple[object, ...]] = set()
    cells = [Cell(score, result, _alike((score, result), newest)) for score, result in pairs]
    for cell in sorted(cells, key=lambda one: not one.current):
        key = (cell.score.value, cell.current)
        if key not in seen:
            seen.add(key)
            yield cell


def _alike(one: tuple[Score, Result], other: tuple[Score, Result]) -> bool:
    """Whether two scores are of the same task and examples, as far as both say."""
    return all(
        a is None or b is None or a == b
        for a, b in zip(_of_what(*one), _of_what(*other), strict=True)
    )


def _of_what(score: Score, result: Result) -> tuple[str | None, ...]:
    return (
        result.definition, result.examples_hash, score.version, score.task_hash, score.ids_hash,
    )  # fmt: skip
