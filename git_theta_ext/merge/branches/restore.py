"""Some tensors of a checkpoint as another version has them, the rest as it is.

A result is made of two manifests, as a merge makes one. All are made before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from git_theta_ext.checkpoints import shards as sharded
from git_theta_ext.checkpoints.converted import Held, held_in_work_tree, manifest_of
from git_theta_ext.checkpoints.memo import note
from git_theta_ext.checkpoints.shards import Model
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import (
    ChangedWhileReadError,
    ThetaError,
    UsageError,
)
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import IndexEntry, Repository, literal
from git_theta_ext.git.trees import Row, restage, store_blob
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.merge.branches.cutting import cut_as
from git_theta_ext.merge.branches.models import model_at
from git_theta_ext.merge.combine.partial import combine_part, differences
from git_theta_ext.merge.conflicts import shard_index
from git_theta_ext.merge.decide.partial import untied
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_together, claimed

_SHOWN = 3
"""Tensors that an error names."""
_WHOLE = "to take all of it from there: git restore --source REV -- FILE"

Select = Callable[[str, Sequence[str]], list[str]]
"""Gives those of some names, in a checkpoint at a path, that are to be restored."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What becomes of one checkpoint, or of one sharded model, in the work tree or in the index.

    Attributes:
        path: of the checkpoint, or the model's pattern.
        changed, added, removed: tensors, by name; none where it is as in the source already.
        selected: how many tensors of the source were asked for.
        files: the new manifests of the files that change, by path.
        index: path and text of the index of shards, where that changes.
        untied: tensors that were the same values, and no longer are: each with the other one.
        moved: whether the structure of the source stands, which its tensors need.
    """

    path: str
    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    selected: int
    files: Mapping[str, Manifest]
    index: tuple[str, bytes] | None
    untied: tuple[tuple[str, str], ...]
    moved: bool


@dataclass(frozen=True, slots=True)
class Restoring:
    """Tensors of one version of checkpoints that are to stand in the work tree or the index.

    Attributes:
        repository: one with a work tree.
        source: a commit; empty: the index.
        label: what messages call it.
        select: which tensors.
        blocks: where objects are, and new ones go.
    """

    repository: Repository
    source: str
    label: str
    select: Select
    blocks: Blocks
    _sources: dict[str, Model] = field(default_factory=dict)

    # -- what there is -----------------------------------------------------------------------------

    def has_some(self, path: str) -> bool:
        """Whether the source has a checkpoint at a path, with a tensor that is asked for."""
        try:
            found = self._source(path)
        except UsageError:
            return False
        return bool(self._names(path, found.joined))

    def _names(self, path: str, manifest: Manifest) -> list[str]:
        tensors = [entry.tensor.name for entry in manifest.entries if not entry.opaque]
        return self.select(path, tensors)

    def _source(self, path: str) -> Model:
        """The checkpoint of the source; one file is a model of one.

        Raises:
            UsageError: it has none there.
        """
        if path not in self._sources:
            found = self._read(path)
            if found is None:
                raise UsageError(f"{self.label} has no {path!r}")
            self._sources[path] = found
        return self._sources[path]

    def _read(self, path: str) -> Model | None:
        if not sharded.names_model(path):
            oid = self._blob(path)
            text = b"" if oid is None else self.repository.blob(oid)
            if not text:
                return None
            return Model(path, ((path, manifest_of(text, path, self.repository, self.blocks)),))
        found = model_at(self.repository, self.source, path)
        if found is not None:
            found.require_whole()
        return found

    def _blob(self, path: str) -> str | None:
        if self.source:
            return self.repository.blob_at(self.source, path)
        return next((one.oid for one in _entries(self.repository, path) if one.stage == 0), None)

    # -- the results -------------------------------------------------------------------------------

    def of_index(self, path: str) -> Restored:
        """What the index is to hold.

        Raises:
            UsageError: it cannot be made, or there is nothing to make it of; nothing was changed.
        """
        return self._made(path, {one.path: _manifest(self, one) for one in self._staged(path)})

    def of_work_tree(self, path: str) -> tuple[Restored, Mapping[str, Held]]:
        """What the work tree is to hold, and what it holds; errors as for `of_index`.

        Raises:
            UsageError: see `of_index`.
            ChangedWhileReadError: a file changes while it is read.
        """
        held = {
            one.path: held_in_work_tree(self.repository, one.path, self.blocks)
            for one in self._staged(path)
        }
        made = self._made(path, {name: one.manifest for name, one in held.items()}, in_tree=True)
        return made, held

    def _staged(self, path: str) -> list[IndexEntry]:
        """What the index has of a checkpoint.

        Raises:
            UsageError: nothing, or it is in conflict.
        """
        found = _entries(self.repository, path)
        if any(one.stage for one in found):
            raise UsageError(
                f"{path!r} is in conflict",
                hint=advise(self.repository, "git theta resolve FILE", path),
            )
        if not found:
            raise UsageError(f"{path!r} is not in the index")
        return found

    def _made(
        self, path: str, shards: Mapping[str, Manifest], *, in_tree: bool = False
    ) -> Restored:
        """The result of one checkpoint, whose files are as `shards` say."""
        now, source = Model(path, tuple(shards.items())), self._source(path)
        is_model = sharded.names_model(path)
        if is_model:
            _require_apart(now, "the work tree" if in_tree else "the index")
        mine = now.joined if is_model else now.parts[0]
        yours = source.joined if is_model else source.parts[0]
        selected = self._names(path, yours)
        if not selected:
            raise UsageError(f"{path!r} has no such tensor in {self.label}")
        wanted = {*selected, *self._names(path, mine)}
        after = combine_part(mine, yours, wanted, self.blocks, joined=is_model)
        if not isinstance(after, Manifest):
            raise self._refused(path, after)
        found = cut_as(now, source, source, after, self.blocks) if is_model else {path: after}
        gone = next((name for name in shards if name not in found), None)
        if gone is not None:
            raise UsageError(f"no tensor would be left in the shard {gone!r}")
        changes = {name: one for name, one in found.items() if one != shards[name]}
        if not is_model:
            self._require_of_one_shard(path, mine, after)
        return Restored(
            path,
            *differences(mine, after),
            len(selected),
            changes,
            self._index_text(path, shards, found, in_tree=in_tree) if is_model else None,
            tuple(untied(mine, after)),
            not is_model and after.skeleton.sha256 == yours.skeleton.sha256 != mine.skeleton.sha256,
        )

    def _require_of_one_shard(self, path: str, before: Manifest, after: Manifest) -> None:
        """Refuse to give a shard by itself a tensor that another one may have, or to take one away.

        Raises:
            UsageError: names the tensor, and how all shards are restored.
        """
        model = sharded.model_of(path)
        _, added, removed = differences(before, after)
        if model is None or not (added or removed):
            return
        what = f"get {added[0]!r}" if added else f"lose {removed[0]!r}"
        raise UsageError(
            f"{path!r} would {what}, and is one shard of {model!r}: nothing was changed",
            hint="name all of the model: "
            + advise(self.repository, "git theta restore OPTIONS FILE", model),
        )

    def _refused(self, path: str, reasons: Mapping[str, str]) -> UsageError:
        """The error that says why; some tensors are named."""
        lines = [f"{name}: {why}" for name, why in list(reasons.items())[:_SHOWN]]
        more = [f"… and {len(reasons) - _SHOWN:,} more"] if len(reasons) > _SHOWN else []
        whole = _WHOLE.replace("REV", self.label) if self.source else None
        return UsageError(
            f"{path!r} cannot be given these tensors of {self.label}, and nothing was changed:\n"
            + "\n".join([*lines, *more]),
            hint=whole and advise(self.repository, whole, path),
        )

    def _index_text(
        self,
        path: str,
        before: Mapping[str, Manifest],
        after: Mapping[str, Manifest],
        *,
        in_tree: bool,
    ) -> tuple[str, bytes] | None:
        """The index of shards as it is to be; None where it is right, or there is none."""
        name = sharded.index_of(path)
        text = self._text_in_tree(name) if in_tree else None
        if not in_tree:
            staged = self.repository.index(literal(name))
            text = self.repository.blob(staged[0].oid) if staged else None
        made = shard_index.merge_texts([None, text, None], "ours", after, [before, {}])
        return None if made is None or made[0] == text else (name, made[0])

    def _text_in_tree(self, name: str) -> bytes | None:
        if not WorkTree(self.repository.top).has_file(name):
            return None
        with files.plain(self.repository.top / name) as file:
            return file.read(limits.SHARD_INDEX_BYTES + 1)

    # -- writing -----------------------------------------------------------------------------------

    def write(self, results: Sequence[tuple[Restored, Mapping[str, Held]]]) -> None:
        """Write results into the work tree, each file whole or not at all.

        All objects are fetched, and all files looked at, before the first one is written.

        Raises:
            ChangedWhileReadError: a file changed since it was read; nothing was written.
            ThetaError: an object is missing or damaged, or a file cannot be written; it is named.
        """
        todo = {
            path: (manifest, held[path])
            for one, held in results
            for path, manifest in one.files.items()
        }
        whole = {name: one for name, (one, held) in todo.items() if held.identity is not None}
        self.blocks.ensure(ref for one in whole.values() for ref in one.objects())
        check_together({name: claimed(one) for name, one in whole.items()}, self.repository.top)
        ready = {name: Smudger(one, self.blocks, name) for name, one in whole.items()}
        for path, (_, held) in todo.items():
            if not held.is_still(self.repository, path):
                raise ChangedWhileReadError(f"{path} changed while it was restored")
        for path, (manifest, _) in todo.items():
            try:
                self._write(path, manifest, ready.get(path))
            except ThetaError as error:
                raise type(error)(f"{path}: {error.message}", hint=error.hint) from error
        tree = WorkTree(self.repository.top)
        for one, _ in results:
            if one.index is not None:
                path, text = one.index
                tree.replace(path, text)

    def _write(self, path: str, manifest: Manifest, smudger: Smudger | None) -> None:
        """One file; where the work tree holds a manifest, it holds one afterwards."""
        tree = WorkTree(self.repository.top)
        if smudger is None:
            tree.replace(path, manifest_bytes(manifest))
            return
        smudger.check_room(path, (self.repository.top / path).parent)
        smudger.write_into(tree, path)
        note(self.repository, path, manifest)

    def stage(self, results: Sequence[Restored]) -> None:
        """Put results into the index, all at once.

        Raises:
            RepositoryError: the index is locked or cannot be written; it is as it was.
        """
        texts: dict[str, bytes] = {}
        for one in results:
            texts |= {name: manifest_bytes(manifest) for name, manifest in one.files.items()}
            texts |= dict([one.index] if one.index else [])
        entries = self.repository.index(*map(literal, texts)) if texts else []
        rows = [
            Row(one.mode, store_blob(self.repository, texts[one.path]), one.path) for one in entries
        ]
        if rows:
            self.blocks.store.flush()
            restage(self.repository, rows)


def _entries(repository: Repository, path: str) -> list[IndexEntry]:
    """The files of the index that a path stands for."""
    if not sharded.names_model(path):
        return repository.index(literal(path))
    found = repository.index(sharded.pathspec_of(path))
    return [one for one in found if sharded.model_of(one.path) is not None]


def _require_apart(model: Model, where: str) -> None:
    """Refuse a model that has a tensor in two shards: it is not told which of them is meant.

    Raises:
        UsageError: there is such a tensor.
    """
    seen: set[str] = set()
    for path, shard in model.shards:
        names = {entry.tensor.name for entry in shard.entries}
        if seen & names:
            raise UsageError(f"{min(seen & names)} is in {path!r} and in another shard in {where}")
        seen |= names


def _manifest(restoring: Restoring, entry: IndexEntry) -> Manifest:
    text = restoring.repository.blob(entry.oid)
    return manifest_of(text, entry.path, restoring.repository, restoring.blocks)
