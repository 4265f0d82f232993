"""Blocks that are read straight to where they are wanted: the same bytes, verified all the same."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.core.arrays import room_for
from git_theta_ext.core.errors import CorruptObjectError, MissingObjectError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, TensorInfo
from git_theta_ext.core.values import Values
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.packs import Packing
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.storing import Chosen, Storing
from git_theta_ext.updates.parameter_file import build, only_part

SPEC = BlockSpec(DTYPES["F32"], (700, 500))


def weights(seed: int, spec: BlockSpec = SPEC) -> Values:
    return np.random.default_rng(seed).normal(0, 1, spec.count).astype(np.float32).view(np.uint32)


def storing(root: Path, *, compress: bool, below: int = 0) -> Blocks:
    blocks = Blocks(Store(root))
    blocks.chosen = Chosen(lambda: Storing(pack_below=below, compress=compress))
    return blocks


def read(blocks: Blocks, spec: BlockSpec, block: Block) -> bytes:
    """On the main thread and on another one, whose memory is used twice."""
    rooms = [room_for(spec.nbytes) for _ in range(3)]
    blocks.read_into(rooms[0], spec, block)

    def again() -> None:
        blocks.read_into(rooms[1], spec, block)
        blocks.read_into(rooms[2], spec, block)

    thread = threading.Thread(target=again)
    thread.start()
    thread.join()
    first, *others = (room.tobytes() for room in rooms)
    assert others == [first, first]
    return first


@pytest.mark.parametrize("compress", [True, False])
def test_every_way_of_storing_is_read(tmp_path: Path, compress: bool) -> None:
    blocks = storing(tmp_path, compress=compress)
    first = blocks.write(SPEC, weights(1))
    assert (first.chain[0].nbytes > SPEC.nbytes) != compress
    assert read(blocks, SPEC, first) == weights(1).tobytes()
    near = weights(1).copy()
    near[::9] += np.uint32(3)
    second = blocks.write(SPEC, near, predecessor=first)
    assert len(second.chain) == 2
    assert read(blocks, SPEC, second) == near.tobytes()
    grown = BlockSpec(DTYPES["F32"], (900, 500))
    more = np.concatenate([near, weights(3)[: 200 * 500]])
    third = blocks.write(grown, more, predecessor=second, predecessor_spec=SPEC)
    assert len(third.chain) == 3
    assert read(blocks, grown, third) == more.tobytes()
    few = BlockSpec(DTYPES["F32"], (3,))
    assert read(blocks, few, blocks.write(few, weights(4, few))) == weights(4, few).tobytes()


def test_a_part_of_a_pack_is_read(tmp_path: Path) -> None:
    blocks = storing(tmp_path, compress=False, below=1 << 20)
    small = BlockSpec(DTYPES["F32"], (60, 50))
    packing = Packing(blocks)
    entries = tuple(
        Entry(
            TensorInfo(name, small.dtype, small.shape),
            (packing.write(small, weights(seed, small)),),
        )
        for seed, name in ((1, "a"), (2, "b"))
    )
    packed = packing.packed(Manifest("safetensors", packing.write_bytes(b"x" * 99), entries))
    for seed, entry in zip((1, 2), packed.entries, strict=True):
        ref = entry.blocks[0].chain[0]
        assert isinstance(ref, UpdateRef)
        assert ref.part is not None
        assert read(blocks, small, entry.blocks[0]) == weights(seed, small).tobytes()


@pytest.mark.parametrize("compress", [True, False])
def test_what_is_damaged_or_absent_is_an_error(tmp_path: Path, compress: bool) -> None:
    blocks = storing(tmp_path, compress=compress)
    block = blocks.write(SPEC, weights(1))
    blocks.store.flush()
    ref = block.chain[0]
    assert isinstance(ref, UpdateRef)
    path = blocks.store.path(ref.oid)
    whole = path.read_bytes()
    path.chmod(0o644)
    for at in (3, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptObjectError, match=ref.oid):
            blocks.read_into(room_for(SPEC.nbytes), SPEC, block)
    path.unlink()
    with pytest.raises(MissingObjectError):
        blocks.read_into(room_for(SPEC.nbytes), SPEC, block)


def test_a_file_of_one_part_is_known_by_all_of_its_header() -> None:
    head, data = build("dense", {"coder": "raw"}, {"data": bytes(100)})
    length = len(head) + len(data)
    settings = {"coder": "raw", "kind": "dense", "v": 1}
    assert only_part(bytes(head), length) == (settings, len(head))
    assert only_part(bytes(head) + bytes(data), length) == (settings, len(head))
    other = bytes(build("dense", {"coder": "raw"}, {"data": bytes(90), "more": bytes(10)})[0])
    for wrong in (bytes(head)[:-1], b"", b"\xff" * 8, bytes(head).replace(b"100", b"101"), other):
        assert only_part(wrong, length) is None
    assert only_part(bytes(head), length + 1) is None
