"""What differs between two versions: decided from the manifests, then measured where it matters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from git_theta_ext.checkpoints.versions import Side
from git_theta_ext.comparison.measure import Measure
from git_theta_ext.comparison.overlap import Pair, measure_pairs
from git_theta_ext.comparison.quantised import Requantised
from git_theta_ext.comparison.skeletons import Note, compare_structures
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import BlockSpec, TensorInfo
from git_theta_ext.manifest.model import Block, Entry, Manifest, Recipe
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_work

Status = Literal["added", "removed", "changed", "renamed"]
Lacking = Callable[[Sequence[Block]], str | None]
"""Why the values of some blocks cannot be had; None if they can."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of a change, the largest first.

    `estimated` where they are not exact; `partial` where they are those of a low-rank part, and the
    rest of the change (other training, or rounding) has more than a hundredth of its energy.
    """

    values: tuple[float, ...]
    estimated: bool
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One tensor that differs. `old` and `new` are None where it was added or removed.

    `kind` and `info` are those of the update that made it, where all its blocks agree; `stored`
    counts the bytes of objects that were not needed before.
    """

    status: Status
    old: TensorInfo | None
    new: TensorInfo | None
    kind: str | None = None
    info: tuple[tuple[str, str], ...] = ()
    stored: int = 0
    measure: Measure | None = None
    spectrum: Spectrum | None = None
    lacking: str | None = None
    """Why its values were not measured, where they were to be and could not."""

    @property
    def name(self) -> str:
        """The name that the tensor has now, or had last."""
        tensor = self.new or self.old
        return tensor.name if tensor is not None else ""

    @property
    def count(self) -> int:
        """Number of elements that the tensor has now, or had last."""
        tensor = self.new or self.old
        return tensor.count if tensor is not None else 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that differs between two versions of one checkpoint.

    `tensors` and `parameters` count those that either version has, each once.
    `size` is the length of the new version in bytes, 0 where nothing was measured; `notes` say what
    differs outside the tensors, where that could be read; `unchanged` are the names of tensors that
    do not differ. `renamed_from` is the path of the old version where it was another one. `remarks`
    say how the versions are stored where one is not stored by tensor; without `compared`, one of
    them is not on this machine. `opaque` are the names of bytes that are no tensors, `quantised`
    the weights that are told as one value each besides their tensors.
    """

    changes: tuple[Change, ...]
    tensors: int
    parameters: int
    changed_parameters: int
    stored: int
    size: int
    old_format: str | None
    new_format: str | None
    structure_changed: bool
    notes: tuple[Note, ...] = ()
    unchanged: tuple[str, ...] = ()
    renamed_from: str | None = None
    remarks: tuple[str, ...] = ()
    compared: bool = True
    opaque: frozenset[str] = frozenset()
    quantised: tuple[Requantised, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether there is anything to tell: also of how it is stored, and where."""
        told = bool(self.remarks) or self.renamed_from is not None
        return bool(self.changes) or self.structure_changed or told

    @property
    def measure(self) -> Measure:
        """How far all changed tensors moved together; a lower bound of the old norm is theirs."""
        return sum((one.measure for one in self.changes if one.measure), Measure())

    def to_records(self) -> list[dict[str, Any]]:
        """One flat row per changed tensor, for tables such as `pandas.DataFrame`; sizes in bytes.

        `changed_entries` and `change` (relative to the old norm) are None where not measured.
        """
        return [
            {
                "name": one.name,
                "status": one.status,
                "old_name": None if one.old is None else one.old.name,
                "old_dtype": None if one.old is None else one.old.dtype.name,
                "new_dtype": None if one.new is None else one.new.dtype.name,
                "old_shape": None if one.old is None else one.old.shape,
                "new_shape": None if one.new is None else one.new.shape,
                "update": one.kind,
                "stored": one.stored,
                "changed_entries": None if one.measure is None else one.measure.changed,
                "change": None if one.measure is None else one.measure.relative,
                "cosine": None if one.measure is None else one.measure.cosine,
            }
            for one in self.changes
        ]


def compare(
    old: Side | None,
    new: Side | None,
    measured: bool = True,
    *,
    known: Collection[str] = (),
    lacking: Lacking | None = None,
) -> Comparison:
    """Compare two versions; only tensors whose hashes differ are read.

    Args:
        old, new: None where the file did not exist.
        measured: also read the values of changed tensors, to say how far they moved.
        known: objects that were stored already, besides those of the old version.
        lacking: asked of the blocks of each such tensor, in both versions, before they are read;
            by default all can be had.
    """
    before = _entries(old)
    after = _entries(new)
    known = set(known)
    if old is not None:
        known.update(ref.oid for ref in old.manifest.objects())
    renames = _renames(before, after)
    changes: list[Change] = []
    differing = {name for name, now in after.items() if not _same(before.get(name), now)}
    # Sorted are those alone: of a long history, most tensors are as they were.
    for name in sorted([*differing, *(name for name in before if name not in after)],
                       key=natural_key):  # fmt: skip
        then, now = before.get(name), after.get(name)
        if now is None and then is not None:
            if then.tensor.name not in renames.values():
                changes.append(Change("removed", then.tensor, None))
        elif now is not None and then is None:
            changes.append(_arrival(now, before.get(renames.get(name, "")), known))
        elif now is not None and then is not None:
            kind, info = _update(then, now)
            stored = stored_by(now.blocks, known)
            changes.append(Change("changed", then.tensor, now.tensor, kind, info, stored))
    if measured and old is not None and new is not None:
        changes = _measured(changes, old, new, before, after, lacking=lacking)
    whole = {**before, **after}
    restructured = (
        old is not None
        and new is not None
        and old.manifest.skeleton.sha256 != new.manifest.skeleton.sha256
    )
    notes: tuple[Note, ...] = ()
    read = lacking is None or old is None or new is None or not (
        lacking([*old.skeletons(), *new.skeletons()])
    )  # fmt: skip
    if measured and restructured and read and old is not None and new is not None:
        notes = compare_structures((old.manifest, old.structure()), (new.manifest, new.structure()))
    return Comparison(
        tuple(changes),
        len(whole),
        sum(entry.tensor.count for entry in whole.values()),
        sum(_parameters(change) for change in changes),
        _all_stored(new.manifest, before, known) if new is not None else 0,
        new.length() if measured and new is not None else 0,
        old.manifest.format if old is not None else None,
        new.manifest.format if new is not None else None,
        restructured,
        notes,
        tuple(name for name in after if name not in differing),
        opaque=frozenset(name for name, entry in whole.items() if entry.opaque),
    )


def _measured(
    changes: Sequence[Change],
    old: Side,
    new: Side,
    before: Mapping[str, Entry],
    after: Mapping[str, Entry],
    *,
    lacking: Lacking | None,
) -> list[Change]:
    """The changes, those of values with how far they moved; the blocks are fetched in one batch."""
    chosen = [change for change in changes if change.status in ("changed", "added")]
    reasons: dict[str, str] = {}
    if lacking is not None:
        for change in chosen:
            why = lacking(versions_of(before.get(change.name), after[change.name]))
            if why is not None:
                reasons[change.name] = why
        chosen = [change for change in chosen if change.name not in reasons]
    pairs = [Pair(old, new, before.get(one.name), after[one.name]) for one in chosen]
    then = [block for pair in pairs if pair.then is not None for block in pair.then.blocks]
    old.prepare([old.manifest.skeleton, *then])
    new.prepare([new.manifest.skeleton, *(block for pair in pairs for block in pair.now.blocks)])
    _check_work(pairs)
    found = {one.name: measure for one, measure in zip(chosen, measure_pairs(pairs), strict=True)}
    return [
        replace(change, measure=found.get(change.name), lacking=reasons.get(change.name))
        for change in changes
    ]


def versions_of(then: Entry | None, now: Entry) -> list[Block]:
    """The blocks that are read to measure a tensor: those of both its versions."""
    return [*(then.blocks if then is not None else ()), *now.blocks]


def _check_work(pairs: Sequence[Pair]) -> None:
    """Refuse to read what is out of all proportion to its objects; both sides count together."""
    wanted: dict[int, tuple[Blocks, list[tuple[BlockSpec, Block]]]] = {}
    for pair in pairs:
        pairs_of_blocks = zip(pair.then.blocks if pair.then else (), pair.now.blocks, strict=False)
        both = {one.sha256 for one, two in pairs_of_blocks if one.sha256 == two.sha256}
        for side, entry in ((pair.old, pair.then), (pair.new, pair.now)):
            if side is None or entry is None:
                continue
            store = side.store_of((entry.tensor.name, 0))
            if store is not None:
                _, found = wanted.setdefault(id(store), (store, []))
                whole = entry.parts()
                found += [one for one in whole if one[1].sha256 not in both]
    for store, blocks in wanted.values():
        check_work(store, blocks, "what changed", reading=True)


def _entries(side: Side | None) -> dict[str, Entry]:
    return {} if side is None else side.manifest.by_name()


def _parameters(change: Change) -> int:
    """How many elements differ: of a measured tensor those with other bits, else all."""
    if change.status == "renamed":
        return 0
    if change.measure is None or change.old is None or change.new is None:
        return change.count
    if change.old.dtype != change.new.dtype:
        return change.count
    return change.measure.changed + max(0, change.new.count - change.old.count)


def _hashes(entry: Entry) -> tuple[str, ...]:
    return tuple(block.sha256 for block in entry.blocks)


def _same(then: Entry | None, now: Entry) -> bool:
    if then is now or then is None:  # versions that were read together share what is the same
        return then is now
    a, b = then.tensor, now.tensor
    return _hashes(then) == _hashes(now) and (a.dtype, a.shape, a.order) == (
        b.dtype,
        b.shape,
        b.order,
    )


def _renames(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> dict[str, str]:
    """New names of tensors that kept their bytes, and the old names that they had."""
    gone: dict[tuple[str, ...], list[str]] = {}
    for name, entry in before.items():
        if name not in after and entry.tensor.nbytes:
            gone.setdefault((entry.tensor.dtype.name, *_hashes(entry)), []).append(name)
    found = {}
    for name, entry in after.items():
        if name not in before:
            candidates = gone.get((entry.tensor.dtype.name, *_hashes(entry)))
            if candidates:
                found[name] = candidates.pop(0)
    return found


def _arrival(now: Entry, then: Entry | None, known: set[str]) -> Change:
    if then is not None:
        return Change("renamed", then.tensor, now.tensor)
    return Change("added", None, now.tensor, _last_kind(now), (), stored_by(now.blocks, known))


def stored_by(blocks: Iterable[Block], known: Collection[str]) -> int:
    """Bytes of the objects of some blocks that were not needed before."""
    files = {ref.place: ref.nbytes for block in blocks for ref in block.objects()}
    return sum(size for (oid, _), size in files.items() if oid not in known)


def _all_stored(manifest: Manifest, before: Mapping[str, Entry], known: set[str]) -> int:
    """Bytes of the objects of a version that are not known, as all are of the version before."""
    fresh = (one for one in manifest.entries if before.get(one.tensor.name) is not one)
    return stored_by([manifest.skeleton, *(block for one in fresh for block in one.blocks)], known)


def _last_kind(entry: Entry) -> str | None:
    kinds = {block.chain[-1].kind for block in entry.blocks if block.chain}
    return kinds.pop() if len(kinds) == 1 else None


def _update(then: Entry, now: Entry) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """The kind of update that made the new version of the old one, and its remarks.

    Nothing where blocks differ in kind; no remarks where they differ in those.
    """
    kinds, remarks = set(), set()
    for old, new in zip(then.blocks, now.blocks, strict=False):
        if old.sha256 != new.sha256 and new.chain:
            first, last = new.chain[0], new.chain[-1]
            if isinstance(first, Recipe) and first not in old.chain:
                kinds.add(first.kind)
                remarks.add(first.info)
                continue
            follows = len(new.chain) > 1 and first in old.chain
            kinds.add(last.kind if follows else "dense")
            remarks.add(last.info if follows else ())
    kind = kinds.pop() if len(kinds) == 1 else None
    return kind, remarks.pop() if kind and len(remarks) == 1 else ()
