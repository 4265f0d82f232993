"""The modules of a checkpoint: what each takes, which commit last changed it, and its version.

From commits and manifests alone, as `history` reads them: no object is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.modules import Module, Modules
from git_theta_ext.comparison.history import Blame, History, blame_by, signature
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import MAX_BYTES, Entry, Manifest, stored_bytes

_PROBES = 8
"""Hashes of a module that are looked for in the text of a manifest before it is parsed."""

Part = Mapping[str, Entry]
"""The tensors of one module in one version, by name."""


@dataclass(slots=True)
class Assigned:
    """Which modules the tensors of one checkpoint belong to, however many versions are asked of."""

    modules: Modules
    path: str
    _known: dict[str, tuple[Module, ...]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Module, ...]:
        """The modules of a tensor."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self.modules.of(self.path, name)
        return found

    def parts(self, manifest: Manifest | None) -> dict[str, dict[str, Entry]]:
        """The tensors of each module that has some; what is no tensor belongs to none."""
        found: dict[str, dict[str, Entry]] = {}
        for entry in manifest.entries if manifest is not None else ():
            for module in () if entry.opaque else self.of(entry.tensor.name):
                found.setdefault(module.name, {})[entry.tensor.name] = entry
        return found


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """A module in one version of a checkpoint; sizes in bytes.

    Attributes:
        module: what it is.
        names: of its tensors, in order.
        parameters: how many elements they have.
        nbytes: what they take in the file.
        stored: what they take in the store, each parameter file once.
        change: the commit that last changed it; None where it has no tensors.
        tag: the newest tag in which it is the same; None where there is none.
    """

    module: Module
    names: tuple[str, ...]
    parameters: int
    nbytes: int
    stored: int
    change: Blame | None
    tag: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """All modules of one version of a checkpoint.

    `unassigned` are the tensors of no module, `several` those of more than one, with their names.
    """

    path: str
    rows: tuple[ModuleRow, ...]
    unassigned: tuple[str, ...]
    several: Mapping[str, tuple[str, ...]]


def overview(repository: Repository, history: History, modules: Modules) -> Overview:
    """The modules of the newest version of a checkpoint.

    Raises:
        UsageError: the names need more work than is allowed.
    """
    path = history.newest.path
    assigned = Assigned(modules, path)
    manifest = history.manifest(history.newest)
    parts = assigned.parts(manifest)
    changed = last_changes(history, assigned)
    tags = newest_tags(repository, history, assigned, parts)
    names = [] if manifest is None else [
        entry.tensor.name for entry in manifest.entries if not entry.opaque
    ]  # fmt: skip
    return Overview(
        path,
        tuple(
            _row(module, parts.get(module.name, {}), changed.get(module.name),
                 tags.get(module.name))
            for module in modules if module.is_in(path)
        ),
        tuple(name for name in names if not assigned.of(name)),
        {
            name: tuple(module.name for module in found)
            for name in names if len(found := assigned.of(name)) > 1
        },
    )  # fmt: skip


def _row(module: Module, part: Part, change: Blame | None, tag: str | None) -> ModuleRow:
    blocks = [block for entry in part.values() for block in entry.blocks]
    return ModuleRow(
        module,
        tuple(part),
        sum(entry.tensor.count for entry in part.values()),
        sum(entry.tensor.nbytes for entry in part.values()),
        stored_bytes(blocks) + sum(len(block.inline or b"") for block in blocks),
        change,
        tag,
    )


def same(one: Part, two: Part) -> bool:
    """Whether a module is the same in two versions, to the bit."""
    if one.keys() != two.keys():
        return False
    pairs = ((entry, two[name]) for name, entry in one.items())
    # Versions that were read together share what is the same.
    return all(now is then or signature(now) == signature(then) for now, then in pairs)


def last_changes(history: History, assigned: Assigned) -> dict[str, Blame]:
    """For each module of the newest version the commit that last changed it, to the bit.

    A tensor that came or went changed it, too. As for single tensors, a merge is named only for
    what is as in none of its parents.
    """
    return blame_by(history, assigned.parts, lambda then, now: same(now, then or {}))


def newest_tags(
    repository: Repository, history: History, assigned: Assigned, parts: Mapping[str, Part]
) -> dict[str, str]:
    """For each module the newest tag in whose commit it is the same, on whatever branch.

    Args:
        repository: whose tags.
        history: of the checkpoint; its paths are looked at in each tag.
        assigned: which tensors are whose.
        parts: the modules as they are.
    """
    pending = dict(parts)
    probes = {name: _probes(part) for name, part in parts.items()}
    found: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    for tag, commit in _tags(repository):
        if not pending:
            break
        for path in history.paths:
            blobs = _blobs(repository, commit, path)
            if not blobs or blobs in seen:
                continue
            seen.add(blobs)
            lengths = repository.blob_sizes(blobs)
            if any(lengths.get(blob, MAX_BYTES + 1) > MAX_BYTES for blob in blobs):
                continue  # it is no manifest, or not here
            texts = [repository.blob(blob) for blob in blobs]
            likely = [
                name for name in pending
                if all(any(one in text for text in texts) for one in probes[name])
            ]  # fmt: skip
            content = history.at(commit, path) if likely else None
            there = assigned.parts(None if content is None else content.manifest)
            for name in likely:
                if same(pending[name], there.get(name, {})):
                    found[name] = tag
                    del pending[name]
    return found


def _probes(part: Part) -> list[bytes]:
    """Some hashes that the text of a manifest has if the module is the same in it."""
    largest = sorted(part.values(), key=lambda entry: -entry.tensor.nbytes)[:_PROBES]
    blocks = [block for entry in largest for block in entry.blocks[:1] if block.chain]
    return [block.sha256.encode("ascii") for block in blocks]


def _tags(repository: Repository) -> Iterator[tuple[str, str]]:
    """Tags and their commits, the newest first. Source: git-for-each-ref(1)."""
    answer = repository.git(
        "for-each-ref", "--sort=-version:refname", "--sort=-creatordate",
        "--format=%(refname:lstrip=2)%00%(objectname)%00%(objecttype)%00%(*objectname)%00"
        "%(*objecttype)", "refs/tags",
    )  # fmt: skip
    for line in os.fsdecode(answer).splitlines():
        name, oid, kind, peeled, inner = line.split("\0")
        if kind == "commit" or inner == "commit":
            yield name, oid if kind == "commit" else peeled
        elif commit := repository.resolve(f"{oid}^{{commit}}"):
            yield name, commit


def _blobs(repository: Repository, commit: str, path: str) -> tuple[str, ...]:
    """The blobs of a checkpoint, or of all shards of one, in a commit."""
    if shards.names_model(path):
        return shards.blobs_of_model(repository, commit, path)
    oid = repository.blob_at(commit, path)
    return () if oid is None else (oid,)
