"""An update made to fit another model of the same origin, by names, types and contents of tensors.

What becomes of a tensor is decided by a three-way merge of the base, what is here, and what the
patch makes of the base. The base need not be a version here: a tensor of it is found by its hash,
wherever in this repository, and then the update is read on top of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from git_theta_ext.core import limits
from git_theta_ext.core.names import natural_key
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.block_index import BlockIndex
from git_theta_ext.manifest.model import Block, Chain, Entry, Manifest, references
from git_theta_ext.merge.decide.decisions import content_of, entries_of, renamed
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.reachable import manifest_texts, reachable_ids
from git_theta_ext.packages.patches.rename import Renames, require_distinct

LOST = "an object of its update is neither in the patch nor here"
ELSEWHERE = "it is made from a version of the tensor that is nowhere here: sha256:{}"


@dataclass(frozen=True, slots=True)
class Update:
    """What a patch makes of a checkpoint: its versions before and after."""

    base: Manifest
    new: Manifest

    def reversed(self) -> Update:
        """The update that takes it back."""
        return Update(self.new, self.base)

    def renamed(self, renames: Renames) -> Update:
        """The same of a model whose tensors have other names.

        Raises:
            UsageError: two get one name.
        """
        if not renames.rules:
            return self
        return Update(_renamed(self.base, renames), _renamed(self.new, renames))


def _renamed(manifest: Manifest, renames: Renames) -> Manifest:
    require_distinct(renames, (entry.tensor.name for entry in manifest.entries))
    entries = [renamed(entry, renames.of(entry.tensor.name)) for entry in manifest.entries]
    return replace(manifest, entries=_ordered(entries))


def _ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: natural_key(entry.tensor.name)))


@dataclass
class Local:
    """Blocks of this repository, by their content."""

    repository: Repository
    blocks: Blocks

    def available(self, chain: Chain | Block) -> bool:
        """Whether all objects of a block are on this machine."""
        refs = references(chain.chain if isinstance(chain, Block) else chain)
        return all(self.blocks.store.has(ref.oid, ref.size) for ref in refs)

    def find(self, sha256: str, dtype: str) -> Block | None:
        """A block with this content, from the index or anything that is reachable."""
        return self._index.get((sha256, dtype))

    @cached_property
    def _index(self) -> BlockIndex:
        staged = [entry.oid for entry in self.repository.tracked()]
        oids = dict.fromkeys((*staged, *reachable_ids(self.repository)))
        texts = list(manifest_texts(self.repository, oids))
        known = dict(texts)
        return BlockIndex(texts, known.get)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The two versions of an update as a merge with what is here reads them.

    `changed` are the tensors that it changes; `unfit` says of others why they are left out.
    """

    base: Manifest
    theirs: Manifest
    changed: tuple[str, ...]
    unfit: Mapping[str, str] = field(default_factory=dict)


def fit(update: Update, ours: Manifest, local: Local, structures: Mapping[str, Block]) -> Fitted:
    """Fit an update to a checkpoint.

    Args:
        update: under the names that tensors have here.
        ours: the checkpoint.
        local: blocks of this repository, the objects of the patch among them.
        structures: blocks of skeletons that came with the patch, by their SHA-256.
    """
    then, now, here = entries_of(update.base), entries_of(update.new), entries_of(ours)
    unfit: dict[str, str] = {}
    old, new, changed = dict(here), dict(here), []
    for name in sorted({*then, *now}, key=natural_key):
        before, after = then.get(name), now.get(name)
        if _same(before, after):
            continue
        found = _fitted(before, after, here.get(name), local)
        if isinstance(found, str):
            unfit[name] = found
            continue
        changed.append(name)
        for table, entry in zip((old, new), found, strict=True):
            table.pop(name, None)
            if entry is not None:
                table[name] = entry
    base, theirs = (replace(ours, entries=_ordered(table.values())) for table in (old, new))
    skeletons = [structures.get(one.skeleton.sha256) for one in (update.base, update.new)]
    if all(skeletons) and update.base.format == update.new.format == ours.format:
        base, theirs = (
            one if block is None else replace(one, skeleton=block)
            for one, block in zip((base, theirs), skeletons, strict=True)
        )
    return Fitted(base, theirs, tuple(changed), unfit)


def _same(before: Entry | None, after: Entry | None) -> bool:
    if before is None or after is None:
        return before is after
    return content_of(before) == content_of(after)


Pair = tuple[Entry | None, Entry | None]


def _fitted(
    before: Entry | None, after: Entry | None, ours: Entry | None, local: Local
) -> Pair | str:
    """The two versions of a tensor, readable here; or why the update does not fit."""
    if before is None and after is not None:
        return (None, after) if _readable(after, local) else LOST
    if ours is None:
        return "no tensor of this name is here" if after is not None else (None, None)
    if before is None or after is None:
        return before, after
    problem = _unlike(before, ours)
    if problem:
        return problem
    return _on_what_is_here(before, after, ours, local)


def _readable(entry: Entry, local: Local) -> bool:
    return all(local.available(block) for block in entry.blocks)


def _unlike(before: Entry, ours: Entry) -> str:
    """Why a tensor here is not of the kind that the update is for; empty if it is."""
    a, b = before.tensor, ours.tensor
    if before.opaque or ours.opaque:
        return "" if content_of(before) == content_of(ours) else "bytes of unknown meaning differ"
    if a.shape != b.shape:
        return f"it is {b.dtype.name} {list(b.shape)} here, {a.dtype.name} {list(a.shape)} there"
    if a.order != b.order:
        return "the order of its axes in memory differs"
    if a.dtype != b.dtype and not a.dtype.kind == b.dtype.kind == "float":
        return f"it is {b.dtype.name} here, {a.dtype.name} there"
    return ""


def _on_what_is_here(before: Entry, after: Entry, ours: Entry, local: Local) -> Pair | str:
    """The two versions, with chains of which every object is here."""
    old, new = [], []
    paired = len(before.blocks) == len(after.blocks)
    for at, block in enumerate(before.blocks):
        found = _local(block, before, ours, at, local)
        if found is None:
            return ELSEWHERE.format(block.sha256)
        old.append(found)
    for at, block in enumerate(after.blocks):
        moved: Block | None = block
        if not local.available(block):
            moved = _moved(before.blocks[at], old[at], block, local) if paired else None
        if moved is None:
            same = paired and _on_base(before.blocks[at], block)
            known = before.blocks[at].sha256 if paired else before.blocks[0].sha256
            return LOST if same else ELSEWHERE.format(known)
        new.append(moved)
    return replace(before, blocks=tuple(old)), replace(after, blocks=tuple(new))


def _local(block: Block, before: Entry, ours: Entry, at: int, local: Local) -> Block | None:
    """A block of the base as it can be read here; None where nothing has its content."""
    if local.available(block):
        return block
    if at < len(ours.blocks) and ours.blocks[at].sha256 == block.sha256:
        return ours.blocks[at]
    return local.find(block.sha256, before.tensor.dtype.name)


def _on_base(base: Block, block: Block) -> bool:
    """Whether a block is made of its predecessor by further updates."""
    length = len(base.chain)
    return 0 < length < len(block.chain) and block.chain[:length] == base.chain


def _moved(base: Block, here: Block, block: Block, local: Local) -> Block | None:
    """A block of the new version on top of what stands for its predecessor here.

    None where it is not made of its predecessor by what the patch holds.
    """
    if block.sha256 == base.sha256:
        return here
    rest = block.chain[len(base.chain) :]
    if not _on_base(base, block) or not local.available(rest):
        return None
    if len(here.chain) + len(rest) > limits.CHAIN_LENGTH:
        return None
    return replace(block, chain=(*here.chain, *rest))
