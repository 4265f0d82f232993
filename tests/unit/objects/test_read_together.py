"""Two versions of a block read together are what they are read alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec
from git_theta_ext.core.values import Values
from git_theta_ext.manifest.model import Block
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store

SPEC = BlockSpec(DTYPES["F32"], (50, 40))


def bits(values: np.ndarray) -> Values:
    return np.ascontiguousarray(values, np.float32).ravel().view(np.uint32)


@pytest.fixture
def chains(tmp_path: Path) -> tuple[Blocks, list[tuple[BlockSpec, Block]]]:
    """A first version, two that follow it, one after those, one with more rows, one of bf16."""
    random = np.random.default_rng(0)
    blocks = Blocks(Store(tmp_path))
    first = random.normal(0, 1, (50, 40)).astype(np.float32)
    arrays = [first, first + random.normal(0, 1e-4, first.shape), first.copy()]
    arrays[2][3, 7] = 1
    made = [blocks.write(SPEC, bits(arrays[0]))]
    made += [blocks.write(SPEC, bits(array), predecessor=made[0]) for array in arrays[1:]]
    later = arrays[2].copy()
    later[7, 3] = 1
    made.append(blocks.write(SPEC, bits(later), predecessor=made[2]))
    found = [(SPEC, block) for block in made]
    more = BlockSpec(DTYPES["F32"], (53, 40))
    grown = bits(np.concatenate([arrays[0], random.normal(0, 1, (3, 40))]))
    found.append(
        (more, blocks.write(more, grown, predecessor=made[0], predecessor_spec=SPEC))
    )  # fmt: skip
    half = BlockSpec(DTYPES["F16"], (50, 40))
    values = first.astype(np.float16).ravel().view(np.uint16)
    found.append((half, blocks.write(half, values, predecessor=made[0], predecessor_spec=SPEC)))
    return blocks, found


def test_every_pair(chains: tuple[Blocks, list[tuple[BlockSpec, Block]]]) -> None:
    blocks, versions = chains
    assert [len(block.chain) for _, block in versions] == [1, 2, 2, 3, 2, 2]
    for then_spec, then in versions:
        for now_spec, now in versions:
            both, _ = blocks.read_together([(then_spec, then), (now_spec, now)])
            alone = blocks.read(then_spec, then), blocks.read(now_spec, now)
            for found, expected in zip(both, alone, strict=True):
                assert found.dtype == expected.dtype
                assert found.tobytes() == expected.tobytes()


def test_what_is_shared_is_decoded_once(
    chains: tuple[Blocks, list[tuple[BlockSpec, Block]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, versions = chains
    read: list[str] = []
    original = Store.read

    def counted(self: Store, oid: str, *more: Any) -> bytes:
        read.append(oid)
        return original(self, oid, *more)

    monkeypatch.setattr(Store, "read", counted)
    blocks.read_together([versions[2], versions[3]])
    assert sorted(read) == sorted({*read})
    assert len(read) == 3


@pytest.mark.parametrize("which", [0, 1])
def test_both_are_verified(
    chains: tuple[Blocks, list[tuple[BlockSpec, Block]]], which: int
) -> None:
    blocks, versions = chains
    pair = [versions[1], versions[3]]
    spec, block = pair[which]
    pair[which] = (spec, Block(block.nbytes, "0" * 64, block.chain))
    with pytest.raises(CorruptObjectError):
        blocks.read_together(pair)
