"""Small blocks of one pack, read together: as they are read one by one, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints.elsewhere.far import rebuilt
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import values_dtype
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.objects import straight
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.packs import Packing
from git_theta_ext.objects.store.store import Store
from tests.scenarios.manifests import entry

RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Item:
    """A block of a checkpoint, or none."""

    spec: BlockSpec | None
    block: Block | None


def items(blocks: Blocks) -> list[Item]:
    """Blocks of one pack, in its order: floats bytes, what recurs, some short."""
    packing = Packing(blocks)
    floats = [RANDOM.normal(0, 0.02, 3000 + n).astype(np.float32) for n in range(3)]
    values = [
        *((BlockSpec(DTYPES["F32"], one.shape), one) for one in floats),
        (BlockSpec(DTYPES["F32"], (2000,)), np.tile(np.float32([1, 2]), 1000)),
        (BlockSpec(DTYPES["U8"], (9000,)), RANDOM.integers(0, 3, 9000, np.uint8)),
        (BlockSpec(DTYPES["BF16"], (5000,)), RANDOM.integers(0, 99, 5000, np.uint16)),
        (BlockSpec(DTYPES["F32"], (70_000,)), RANDOM.normal(0, 1, 70_000).astype(np.float32)),
        (BlockSpec(DTYPES["C64"], (800,)), RANDOM.normal(0, 1, 1600).astype(np.float32)),
        (BlockSpec(DTYPES["F32"], (40,)), RANDOM.normal(0, 1, 40).astype(np.float32)),
    ]
    made = [
        packing.take(packing.write(spec, one.view(values_dtype(spec.dtype))))
        for spec, one in values
    ]
    example = entry("w", 1)
    packed = packing.packed(
        Manifest("made", packing.write_bytes(b"x"), (Entry(example.tensor, tuple(made)),))
    )
    blocks.store.flush()
    specs = [spec for spec, _ in values]
    return [Item(*pair) for pair in zip(specs, packed.entries[0].blocks, strict=True)]


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(Store(tmp_path / "theta"))


def read(blocks: Blocks, run: list[tuple[BlockSpec, Block]]) -> memoryview | None:
    return straight.read_run(blocks.store, run, lambda work, objects: None)


def pairs(run: list[Item]) -> list[tuple[BlockSpec, Block]]:
    return [(one.spec, one.block) for one in run if one.spec and one.block]


def test_what_is_read_together_is_what_is_read_one_by_one(blocks: Blocks) -> None:
    found = items(blocks)
    together = list(straight.runs([found[0], *found, Item(None, None), *found[4:0:-1]]))
    assert [one for run in together for one in run] == [
        found[0], *found, Item(None, None), *found[4:0:-1]
    ]  # fmt: skip
    lengths = [len(run) for run in together]
    assert lengths == [1, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]  # by dtype, and only forwards
    for run in together:
        if run[0].block is not None:
            plain = b"".join(rebuilt(blocks, "w", *pair) for pair in pairs(run))
            inline = run[0].block.inline is not None
            assert (plain if inline else read(blocks, pairs(run))) == plain


def test_a_run_is_of_few_bytes(blocks: Blocks) -> None:
    first = items(blocks)[0]
    assert first.block is not None
    (ref,) = first.block.chain
    assert isinstance(ref, UpdateRef)
    many = []
    for number in range(100):
        part = (1000 + number * ref.nbytes, 1000 + (number + 1) * ref.nbytes)
        moved = UpdateRef(ref.kind, ref.oid, 10**9, (), part)
        many.append(Item(first.spec, Block(first.block.nbytes, first.block.sha256, (moved,))))
    weights = [sum(one.nbytes for _, one in pairs(run)) for run in straight.runs(many)]
    assert max(weights) <= straight.RUN_BYTES < 2 * min(weights[:-1])


def test_what_is_damaged_is_left_to_the_plain_way(blocks: Blocks) -> None:
    """Every byte of a run is flipped once: it is not read, or read as it should be."""
    run = next(run for run in straight.runs(items(blocks)) if len(run) > 1)
    right = read(blocks, pairs(run))
    first = pairs(run)[0][1].chain[0]
    assert isinstance(first, UpdateRef)
    path = blocks.store.path(first.oid)
    data = path.read_bytes()
    path.chmod(0o644)
    start, stop = first.part or (0, 0)
    wrong = 0
    for at in [*range(start, start + 400), *range(start + 400, stop, 97)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = read(blocks, pairs(run))
        wrong += found is None
        assert found is None or found == right
    assert wrong > 400
    with pytest.raises(CorruptObjectError, match="object"):
        rebuilt(blocks, "w", *pairs(run)[0])
    path.unlink()
    assert read(blocks, pairs(run)) is None
