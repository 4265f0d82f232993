"""Coupled groups: tensors of a checkpoint that mean something only together, found in manifests.

Codes mean nothing without their scales, indices nothing without their values, a moment nothing
without its step. Such tensors, and the skeleton where it holds a part of them, are one value to a
merge: taken whole from one side, or a conflict. What a group is, is told first by structure (dtype,
axes, what changed together), then by names; in doubt tensors belong together, for that costs a
decision, where the other mistake costs a model.

Nothing is read but manifests. Names stand in `layouts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from git_theta_ext.checkpoints.coupled import layouts
from git_theta_ext.core.names import natural_key
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.decide.models import models

Kind = Literal["model", "quantised", "sparse", "training", "factors", "renamed", "integers"]
Hold = Literal["", "follows", "belongs"]
"""How a group holds the skeleton: not at all; it goes with the side that is taken; it is a member,
so that a side that changed only the skeleton changed the group."""

_PICKLES = frozenset({"torch-zip", "torch-legacy", "pickle"})
_PARAMETERS_WITHIN = frozenset({"onnx", "tflite", "tensorflow"})
"""Containers that may keep scales and zero points in what is no tensor."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that are merged as one: those that some side changed, the codes first.

    `label` is what they are called together in messages.
    """

    kind: Kind
    label: str
    members: tuple[str, ...]
    holds: Hold = ""

    @property
    def leader(self) -> str:
        """The tensor under whose name the group is shown and decided."""
        return self.members[0]


@dataclass(slots=True)
class _Draft:
    """A group that is being put together; those that share a tensor or the skeleton are joined."""

    kind: Kind
    label: str
    names: set[str]
    first: str
    holds: Hold = ""


def find_groups(base: Manifest | None, sides: Sequence[Manifest]) -> tuple[Group, ...]:
    """The coupled groups in which some side changed something, in natural order.

    Args:
        base: what all sides come from; None where they added the file.
        sides: two or more versions.
    """
    table = _Table(base, sides)
    drafts = [
        *(
            _Draft("model", label, names, min(names, key=natural_key), "belongs")
            for label, names in models(table.entries, table.changed, table.formats)
        ),
        *_training(table),
        *_sparse(table),
        *_in_skeleton(table),
        *_factors(table),
        *_codes(table),
    ]
    drafts = [one for one in drafts if one.names & table.changed]
    found = (_finished(one, table) for one in _joined(drafts))
    return tuple(sorted(found, key=lambda group: natural_key(group.leader)))


class _Table:
    """All versions side by side: every name with some version of it, and what changed where."""

    def __init__(self, base: Manifest | None, sides: Sequence[Manifest]) -> None:
        """Note for each tensor which sides changed it, its module and if it has codes."""
        versions = [*([base] if base is not None else []), *sides]
        self.formats = {one.format for one in versions}
        self.entries: dict[str, Entry] = {}
        for version in reversed(versions):
            self.entries.update((entry.tensor.name, entry) for entry in version.entries)
        old = None if base is None else _contents(base)
        now = [_contents(side) for side in sides]
        self.changed_by = {
            name: frozenset(n for n, side in enumerate(now) if _moved(name, old, side, now))
            for name in self.entries
        }
        self.changed = {name for name, movers in self.changed_by.items() if movers}
        skeletons = {side.skeleton.sha256 for side in sides}
        self.skeleton_moved = bool(skeletons - ({base.skeleton.sha256} if base else set()))
        self.skeletons = len(skeletons - ({base.skeleton.sha256} if base else set()))
        self.modules: dict[str, list[str]] = {}
        for name in self.entries:
            self.modules.setdefault(layouts.module_of(name), []).append(name)
        weights = (name for name, entry in self.entries.items() if _is_weight(entry))
        self.weighted = {layouts.module_of(name) for name in weights}
        """Modules that have a weight of floats."""
        self.codes = {name for name, entry in self.entries.items() if is_codes(entry)}
        owners = self.codes | set(filter(self._is_flat, self.entries))
        owners |= {f"{layouts.module_of(name)}." for name in self.codes}
        self.below: dict[str, set[str]] = {}
        for name in self.entries:
            for owner in layouts.owners_of(name):
                if owner in owners:
                    self.below.setdefault(owner, set()).add(name)

    @property
    def pickled(self) -> bool:
        return bool(self.formats & _PICKLES)

    def _is_flat(self, name: str) -> bool:
        """Whether a tensor is bytes, or less, of one axis."""
        tensor = self.entries[name].tensor
        whole = tensor.dtype.kind in ("int", "uint", "bits")
        return whole and len(tensor.shape) < 2 and tensor.count > 1 and self.narrow(name)

    def narrow(self, name: str) -> bool:
        return self.entries[name].tensor.dtype.bits <= 8

    def certain(self, name: str) -> bool:
        """Whether what looks like codes is hardly anything else.

        It is narrow, or of a type that codes are packed into and in the place of a weight; ids and
        positions are mostly I64.
        """
        if self.narrow(name) or layouts.last_of(name) in layouts.CODE_WORDS:
            return True
        module = layouts.module_of(name)
        packed = self.entries[name].tensor.dtype.bits <= 32
        return bool(module) and packed and module not in self.weighted


def _is_weight(entry: Entry) -> bool:
    """Whether a tensor is a layer's weight, of floats."""
    tensor = entry.tensor
    real = tensor.dtype.kind in ("float", "complex") and tensor.dtype.bits > 8
    return real and len(tensor.shape) > 1 and layouts.last_of(tensor.name) in layouts.WEIGHTS


def _contents(manifest: Manifest) -> dict[str, tuple[object, ...]]:
    return {
        entry.tensor.name: (
            entry.tensor.dtype.name, entry.tensor.shape, entry.tensor.order, entry.opaque,
            *(block.sha256 for block in entry.blocks),
        )
        for entry in manifest.entries
    }  # fmt: skip


_Contents = Mapping[str, tuple[object, ...]]


def _moved(name: str, old: _Contents | None, side: _Contents, sides: Sequence[_Contents]) -> bool:
    if old is not None:
        return side.get(name) != old.get(name)
    return any(other.get(name) != side.get(name) for other in sides)


def is_codes(entry: Entry) -> bool:
    """Whether a tensor looks like codes: integers, bits or 8-bit floats of two or more axes."""
    dtype = entry.tensor.dtype
    whole = dtype.kind in ("int", "uint", "bits") or (dtype.kind == "float" and dtype.bits <= 8)
    return whole and len(entry.tensor.shape) >= 2 and not entry.opaque


def _training(table: _Table) -> Iterator[_Draft]:
    """All that optimizers, schedulers, scalers and random generators hold is one state."""
    names = layouts.training_state(table.entries, pickled=table.pickled)
    if table.pickled:
        # Bytes in a row in a pickle are the state of a generator, or of something as fragile.
        names |= {
            name
            for name, entry in table.entries.items()
            if entry.tensor.dtype.name in ("U8", "I8")
            and len(entry.tensor.shape) <= 1
            and entry.tensor.count > 1
            and layouts.key_of(name) not in layouts.QUANT_WORDS
        }
    names |= set(_twisters(table))
    if names:
        first = min(names & table.changed or names, key=natural_key)
        holds: Hold = "belongs" if table.pickled else "follows"
        label = "optimizer state" if layouts.has_optimizer(names) else "training state"
        yield _Draft("training", label, names, first, holds)


def _twisters(table: _Table) -> Iterator[str]:
    """The 624 words of a Mersenne Twister, whatever they are called, and the place in them."""
    for name, entry in table.entries.items():
        if entry.tensor.dtype.name == "U32" and entry.tensor.shape == (624,):
            yield name
            beside = table.modules[layouts.module_of(name)]
            yield from (one for one in beside if table.entries[one].tensor.count == 1)


def _sparse(table: _Table) -> Iterator[_Draft]:
    holds: Hold = "belongs" if table.pickled else ""
    for parent, names in layouts.sparse_parts(table.entries):
        first = min(names & table.changed or names, key=natural_key)
        yield _Draft("sparse", parent or "tensor", names, first, holds)


def _in_skeleton(table: _Table) -> Iterator[_Draft]:
    """Codes whose scales, or whose very type, the skeleton holds."""
    inner: set[str] = {
        name for name, one in table.entries.items() if one.tensor.dtype.name.startswith("Q")
    }
    if table.formats & _PARAMETERS_WITHIN:
        inner |= {name for name in table.codes if table.narrow(name)}
    blocks: set[str] = set()
    if "gguf" in table.formats:
        blocks = {name for name in table.codes if table.narrow(name)}
    if not table.skeleton_moved:
        yield from (_Draft("quantised", name, {name}, name) for name in (*inner, *blocks))
        return
    if inner & table.changed:
        first = min(inner & table.changed, key=natural_key)
        yield _Draft("quantised", "tensors and their scales", inner, first, "belongs")
    if blocks & table.changed:
        # The list of types stands in the skeleton, and blocks of several types are as long.
        first = min(blocks & table.changed, key=natural_key)
        holds: Hold = "belongs" if table.skeletons > 1 else "follows"
        label = "tensors and their types"
        yield _Draft("quantised", label, blocks & table.changed, first, holds)


def _factors(table: _Table) -> Iterator[_Draft]:
    for module, names in layouts.factor_sets(table.entries):
        if len(names) > 1:
            yield _Draft("factors", module, names, min(names, key=natural_key))


def _codes(table: _Table) -> Iterator[_Draft]:
    """Codes of every module, with what belongs to them there."""
    for module, names in table.modules.items():
        codes = [name for name in names if name in table.codes]
        flat = [name for name in names if _flat_codes(name, module, names, table)]
        if codes or flat:
            yield from _codes_of(module, names, [*codes, *flat], table)


def _flat_codes(name: str, module: str, names: Sequence[str], table: _Table) -> bool:
    """Codes of one axis, or of none: told by their names; narrow ones also by a scale nearby."""
    tensor = table.entries[name].tensor
    number = tensor.dtype.kind in ("int", "uint", "bits") and len(tensor.shape) < 2
    if not number or tensor.count < 2:
        return False
    beside = {*(names if module else ()), *table.below.get(name, ())} - {name}
    scaled = any(layouts.is_scale(one) for one in beside)
    return layouts.last_of(name) in layouts.CODE_WORDS or (scaled and table.narrow(name))


def _codes_of(
    module: str, names: Sequence[str], codes: Sequence[str], table: _Table
) -> Iterator[_Draft]:
    """The groups of one module: one for each stem that codes in it have."""
    by_key: dict[str, list[str]] = {}
    for name in codes:
        by_key.setdefault(layouts.key_of(name, root=not module), []).append(name)
    alike: dict[str, set[str]] = {key: set(mine) for key, mine in by_key.items()}
    loose: list[str] = []
    every = set(codes)
    for name in names:
        key = layouts.key_of(name, root=not module)
        # A bias of a code's own stem means something by itself.
        if key in alike and (name in every or not layouts.is_plain(name)):
            alike[key].add(name)
        elif name not in every:
            loose.append(name)
    scales = [name for name in loose if layouts.is_scale(name)]
    for key in sorted(by_key):
        lone = len(by_key) == 1
        near = _Near(module, loose, scales, crowded=not module or not lone)
        below = table.below.get(f"{module}.", set()) if lone else set()
        yield _module_group(key, by_key[key], alike[key] | below, near, table)


@dataclass(frozen=True, slots=True)
class _Near:
    """Tensors of a module that have no stem of codes; `crowded`: too many share that place."""

    module: str
    loose: Sequence[str]
    scales: Sequence[str]
    crowded: bool


def _module_group(
    key: str, codes: Sequence[str], alike: set[str], near: _Near, table: _Table
) -> _Draft:
    """The codes of one module, with the scales and tensors that give them their meaning."""
    for name in codes:
        alike |= table.below.get(name, set())
    found = any(_is_partner(name, codes, table) for name in alike)
    # A place that many share ties nothing to codes that have found their scales.
    close = [] if near.crowded and found else near.loose
    scales = [] if near.crowded and found else near.scales
    scaled = found or bool(scales)
    members = {*alike, *scales, *_by_place(close, codes, table)}
    if not table.changed.intersection(codes):
        members = {name for name in members if _scaling(name, codes, table)}
    if "gguf" in table.formats:
        members = {name for name in members if name in codes or layouts.is_scale(name)}
    narrow = all(table.narrow(name) for name in codes)
    within = narrow and not scaled and table.skeleton_moved and "gguf" not in table.formats
    label = near.module if not key or not near.module else layouts.joined(near.module, key)
    first = min(codes, key=natural_key)
    kind: Kind = "quantised" if narrow or scaled else "integers"
    return _Draft(kind, label or first, members, first, "belongs" if within else "")


def _is_partner(name: str, codes: Sequence[str], table: _Table) -> bool:
    """Whether a tensor may be the scale of codes: by its name, or as the only numbers there."""
    real = table.entries[name].tensor.dtype.kind in ("float", "complex") and name not in codes
    return layouts.is_scale(name) or real


def _by_place(loose: Iterable[str], codes: Sequence[str], table: _Table) -> Iterator[str]:
    """Tensors of the codes' module that nothing but their place and time ties to them."""
    movers = frozenset[int]().union(*(table.changed_by[name] for name in codes))
    module = layouts.module_of(codes[0])
    certain = any(table.certain(name) for name in codes)
    if not module and not any(table.narrow(name) for name in codes):
        return
    # Integers that some side changed, and in whose module no weight stands, stand for one.
    close = certain or not (module in table.weighted or table.changed.isdisjoint(codes))
    for name in loose:
        if movers & table.changed_by[name] or (close and not layouts.is_plain(name)):
            yield name


def _scaling(name: str, codes: Sequence[str], table: _Table) -> bool:
    """Whether a tensor belongs to codes that no side changed: by its name, or, in doubt, too."""
    if layouts.is_scale(name) or name in codes:
        return True
    return any(table.certain(one) for one in codes) and not layouts.is_plain(name)


def _joined(drafts: Sequence[_Draft]) -> Iterator[_Draft]:
    """Drafts without a tensor, or the skeleton, in common."""
    owner: dict[str, _Draft] = {}
    skeleton: _Draft | None = None
    for draft in drafts:
        others = {id(one): one for name in draft.names if (one := owner.get(name)) is not None}
        if draft.holds and skeleton is not None:
            others[id(skeleton)] = skeleton
        kept = draft
        owner.update(dict.fromkeys(draft.names, draft))
        for other in others.values():
            kept, gone = sorted((kept, other), key=lambda one: -len(one.names))
            _absorb(kept, gone)
            owner.update(dict.fromkeys(gone.names, kept))
        if draft.holds or (skeleton is not None and id(skeleton) in others):
            skeleton = kept
    yield from {id(one): one for one in owner.values()}.values()


_TELLING: tuple[Kind, ...] = ("model", "training", "sparse", "factors", "quantised", "renamed",
                              "integers")  # fmt: skip
"""Kinds, that which says most of a group first."""


def _absorb(kept: _Draft, gone: _Draft) -> None:
    kept.names |= gone.names
    kept.holds = "belongs" if "belongs" in (kept.holds, gone.holds) else kept.holds or gone.holds
    if _TELLING.index(gone.kind) < _TELLING.index(kept.kind):
        kept.kind, kept.label, kept.first = gone.kind, gone.label, gone.first


def _finished(draft: _Draft, table: _Table) -> Group:
    changed = sorted(draft.names & table.changed, key=natural_key)
    first = draft.first if draft.first in changed else changed[0]
    members = (first, *(name for name in changed if name != first))
    return Group(draft.kind, draft.label, members, draft.holds)


def joined_groups(groups: Sequence[Group], more: Iterable[Group]) -> tuple[Group, ...]:
    """Groups, and more of them that each take in those with which they share a tensor."""
    found = list(groups)
    for group in more:
        names = dict.fromkeys(group.members)
        shared = [one for one in found if not names.keys().isdisjoint(one.members)]
        holds: Hold = next((one.holds for one in shared if one.holds), "")
        names.update(dict.fromkeys(name for one in shared for name in one.members))
        found = [one for one in found if one not in shared]
        found.append(Group(group.kind, group.label, tuple(names), holds))
    return tuple(found)
