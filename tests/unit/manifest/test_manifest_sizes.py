"""How long a manifest is: hosts that limit the size of a file limit how much one can stand for."""

from __future__ import annotations

import pytest

from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.manifest.model import Block, Entry, UpdateRef
from git_theta_ext.manifest.text import manifest_bytes
from tests.scenarios.manifests import hexdigest, manifest

HUB = 10 * 1024 * 1024


def size(tensors: int, shape: tuple[int, ...], updates: int) -> int:
    """Bytes of the manifest of a model of BF16, all of whose tensors were changed so many times."""
    entries = []
    for number in range(tensors):
        info = TensorInfo(f"model.layers.{number}.mlp.down_proj.weight", DTYPES["BF16"], shape)
        blocks = []
        for span in cut(info):
            oid = hexdigest((number, span.nbytes))
            chain = (
                UpdateRef("dense", oid, 7_340_032),
                *[UpdateRef("delta", oid, 489_335)] * updates,
            )
            blocks.append(Block(span.nbytes, oid, chain))
        entries.append(Entry(info, tuple(blocks)))
    return len(manifest_bytes(manifest(*entries)))


def test_what_one_tensor_block_and_update_take() -> None:
    """The figures of docs/hosts.md, each as the difference between two manifests."""
    small, large = (768, 2048), (4096, 14336)
    assert len(list(cut(TensorInfo("x", DTYPES["BF16"], large)))) == 8
    one = (size(300, small, 0) - size(200, small, 0)) / 100
    assert 215 < one < 240
    assert (size(100, small, 5) - size(100, small, 4)) / 100 == pytest.approx(87)
    assert 170 < (size(100, large, 0) - size(100, small, 0)) / 700 < 190
    # 20,000 tensors fit into what the Hub takes; not after each of them was changed four times.
    assert 20_000 * (one + 87) < HUB < 20_000 * (one + 4 * 87)
