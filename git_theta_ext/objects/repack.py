"""Small parameter files that many commits scattered, moved together into new packs.

Each commit puts what it adds into packs of its own. After many small ones a version needs a part
of each of many packs, and a fetch of it brings the rest of them too. Here the parts that one
version needs are copied, byte for byte, into as few packs as a first commit would have written. The
old ones stay in the store as long as anything in the history names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.manifest.model import Block, Chain, Link, Manifest, Place, Recipe, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.packs import PACK_BYTES, PACK_PARTS, pack, put_together
from git_theta_ext.objects.storing import PACK_BELOW

Group = tuple[UpdateRef, ...]
"""Parameter files that go into one object, in order."""


@dataclass(frozen=True, slots=True)
class Repack:
    """What moves, and what that costs: `groups` become an object each, in place of `scattered`.

    `needed` are the objects of the version as it is. Both are sizes in bytes by object id.
    """

    groups: tuple[Group, ...]
    scattered: Mapping[str, int]
    needed: Mapping[str, int]

    @property
    def after(self) -> int:
        """How many objects the version needs afterwards."""
        return len(self.needed) - len(self.scattered) + len(self.groups)

    @property
    def written(self) -> int:
        """Bytes of the new objects, which are written here and uploaded by the next push."""
        return sum(_length(group) for group in self.groups)

    @property
    def gains(self) -> bool:
        """Whether the version needs fewer objects afterwards, or half the bytes of them."""
        fewer = len(self.groups) < len(self.scattered)
        return fewer or 2 * self.written < sum(self.scattered.values())


def plan(manifest: Manifest) -> Repack:
    """Which small parameter files of a version to move; reads the manifest and nothing else."""
    files: dict[Place, UpdateRef] = {}
    by_object: dict[str, list[UpdateRef]] = {}
    for ref in _in_order(manifest):
        if ref.place not in files:
            files[ref.place] = ref
            by_object.setdefault(ref.oid, []).append(ref)
    needed = {ref.oid: ref.size for ref in files.values()}
    scattered = {
        oid: needed[oid] for oid, refs in by_object.items() if _is_scattered(needed[oid], refs)
    }
    moved = [ref for ref in files.values() if ref.oid in scattered]
    found = Repack(tuple(_grouped(moved)), scattered, needed)
    return found if found.gains else Repack((), {}, needed)


def carry_out(blocks: Blocks, manifest: Manifest, repack: Repack) -> Manifest:
    """Write the new packs, from the old ones; the version that names them, with the same content.

    Raises:
        MissingObjectError, TransferError: an object cannot be had.
        CorruptObjectError: one is damaged.
        StoreError: the store cannot be written.
    """
    store = blocks.store
    blocks.ensure(ref for group in repack.groups for ref in group)
    places: dict[Place, UpdateRef] = {}
    with store.gathering():
        for group in repack.groups:
            found = put_together(store, [_part(blocks, ref) for ref in group])
            places.update(zip((ref.place for ref in group), found, strict=True))
        store.flush()
    return _moved(manifest, places)


def _in_order(manifest: Manifest) -> Iterator[UpdateRef]:
    """Every parameter file of a version, in the order in which they are packed."""
    for entry in manifest.entries:
        for block in entry.blocks:
            yield from block.objects()
    yield from manifest.skeleton.objects()


def _is_scattered(size: int, refs: list[UpdateRef]) -> bool:
    """Whether an object holds small files alone, and few of them or mostly what is not needed."""
    used = sum(ref.nbytes for ref in refs)
    few = 4 * used < PACK_BYTES and 4 * len(refs) < PACK_PARTS
    return (few or 2 * used < size) and all(ref.nbytes < PACK_BELOW for ref in refs)


def _grouped(refs: Iterable[UpdateRef]) -> Iterator[Group]:
    """Files in packs that are as full as those of a commit."""
    group: list[UpdateRef] = []
    length = 0
    for ref in refs:
        group.append(ref)
        length += ref.nbytes
        if length >= PACK_BYTES or len(group) == PACK_PARTS:
            yield tuple(group)
            group, length = [], 0
    if group:
        yield tuple(group)


def _length(group: Group) -> int:
    """Bytes of the object that a group becomes."""
    if len(group) == 1:
        return group[0].nbytes
    return sum(map(len, pack([bytes(ref.nbytes) for ref in group])))


def _part(blocks: Blocks, ref: UpdateRef) -> bytes:
    """The bytes of a parameter file, of an object that has been compared with its hash."""
    if not blocks.store.sound(ref.oid, ref.size):
        raise CorruptObjectError(
            f"object {ref.oid} is damaged", hint="git theta fsck --repair   fetches it again"
        )
    return blocks.store.read(ref.oid, ref.size, ref.part)


def _moved(manifest: Manifest, places: Mapping[Place, UpdateRef]) -> Manifest:
    """A version with the new places of its parameter files, those of parents of merges too."""

    def of_files(chain: Iterable[UpdateRef]) -> tuple[UpdateRef, ...]:
        return tuple(
            ref if (to := places.get(ref.place)) is None
            else ref.moved(to)
            for ref in chain
        )  # fmt: skip

    def of_link(link: Link) -> Link:
        if isinstance(link, UpdateRef):
            return of_files([link])[0]
        parents = (replace(parent, chain=of_files(parent.chain)) for parent in link.parents)
        return Recipe(link.strategy, link.number, link.settings, tuple(parents))

    def of_block(block: Block) -> Block:
        chain: Chain = tuple(map(of_link, block.chain))
        return block if chain == block.chain else replace(block, chain=chain)

    entries = tuple(
        replace(entry, blocks=tuple(map(of_block, entry.blocks))) for entry in manifest.entries
    )
    return replace(manifest, skeleton=of_block(manifest.skeleton), entries=entries)
