"""What `git theta repack` would move, told from manifests alone."""

from __future__ import annotations

from dataclasses import replace

from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.manifest.model import Block, Entry, Manifest, Parent, Recipe, UpdateRef
from git_theta_ext.objects.packs import PACK_BYTES, PACK_PARTS
from git_theta_ext.objects.repack import plan
from git_theta_ext.objects.storing import PACK_BELOW
from tests.scenarios.manifests import hexdigest


def ref(pack: str, size: int, start: int | None = None, length: int = 1000) -> UpdateRef:
    part = None if start is None else (start, start + length)
    return UpdateRef("dense", hexdigest(pack), size, (), part)


def manifest(*refs: UpdateRef) -> Manifest:
    """A tensor for each parameter file; the skeleton is in a large object of its own."""
    blocks = [Block(4000, hexdigest(f"block {at}"), (one,)) for at, one in enumerate(refs)]
    entries = tuple(Entry(TensorInfo(f"t{at:05}", DTYPES["F32"], (1000,)), (block,))
                    for at, block in enumerate(blocks))  # fmt: skip
    return Manifest("safetensors", Block(9000, hexdigest("s"), (ref("s", PACK_BELOW),)), entries)


def test_parts_of_many_packs_become_one_in_the_order_of_the_file() -> None:
    refs = [ref("b", 5000, 900), ref("a", 5000, 900), ref("lone", 700), ref("b", 5000, 1900)]
    found = plan(manifest(*refs))
    assert found.groups == (tuple(refs),)
    assert (len(found.needed), len(found.scattered), found.after) == (4, 3, 2)
    assert 3700 < found.written < 4500


def test_one_pack_that_could_be_fuller_is_left_alone() -> None:
    assert not plan(manifest(*(ref("a", 5000, start) for start in (900, 1900, 2900)))).groups


def test_a_pack_that_is_mostly_of_other_versions_is_written_anew() -> None:
    large = [ref("a", 5 * PACK_BYTES // 4, 1000 * at) for at in range(1, 101)]
    found = plan(manifest(*large))
    assert [len(group) for group in found.groups] == [100]
    assert found.after == len(found.needed)


def test_full_packs_and_large_files_stay() -> None:
    half = PACK_BYTES // PACK_BELOW
    full = [ref("full", PACK_BYTES + 100, 100 + at * (PACK_BELOW - 1), PACK_BELOW - 1)
            for at in range(half)]  # fmt: skip
    beside = [ref("mixed", 400_000, 100, PACK_BELOW), ref("mixed", 400_000, 300_000)]
    scattered = [ref("a", 5000, 900), ref("b", 5000, 900)]
    found = plan(manifest(*full, *beside, *scattered, ref("whole", 3 * PACK_BELOW)))
    assert set(found.scattered) == {hexdigest("a"), hexdigest("b")}


def test_packs_are_as_full_as_those_of_a_commit() -> None:
    many = [ref(f"p{at // 100}", 200_000, 1000 * (at % 100)) for at in range(2 * PACK_PARTS)]
    found = plan(manifest(*many))
    sizes = [sum(one.nbytes for one in group) for group in found.groups]
    assert [len(group) for group in found.groups[:-1]] == [PACK_PARTS] * (len(sizes) - 1)
    wide = [ref(f"w{at}", 250_000) for at in range(40)]
    sizes = [sum(one.nbytes for one in group) for group in plan(manifest(*wide)).groups]
    assert all(PACK_BYTES <= size < PACK_BYTES + PACK_BELOW for size in sizes[:-1])
    assert sum(sizes) == 40 * 250_000


def test_what_a_merge_was_made_of_counts() -> None:
    base, ours = ref("base", 5000, 900), ref("ours", 5000, 900)
    recipe = Recipe("average", 1, (), (Parent("ours", (base, ours)), Parent("theirs", (base,))))
    made = manifest(ref("x", 700))
    entry = replace(made.entries[0], blocks=(replace(made.entries[0].blocks[0], chain=(recipe,)),))
    found = plan(replace(made, entries=(entry,)))
    assert found.groups == ((base, ours),)
