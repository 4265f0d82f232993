"""The example in `docs/manifest.md` is exactly what the code writes."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.manifest.model import Block, Entry, Manifest, Parent, Recipe, UpdateRef
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from tests.scenarios.manifests import hexdigest

DOCUMENT = Path(__file__).parents[2] / "docs" / "manifest.md"


def _ref(kind: str, size: int, label: str, **info: str) -> UpdateRef:
    return UpdateRef(kind, hexdigest(label), size, tuple(info.items()))


def _example() -> Manifest:
    query = TensorInfo("encoder.layer.0.attention.self.query.weight", DTYPES["F32"], (384, 384))
    rank = _ref("low-rank", 24832, "query.1", rank="8", change="0.9%")
    count = TensorInfo("encoder.layer.0.bn.num_batches_tracked", DTYPES["I64"], ())
    steps = (1000).to_bytes(8, "little")
    embed = TensorInfo("embed.weight", DTYPES["BF16"], (10240, 4096), (1, 0))
    parts = [
        Block(spec.nbytes, hexdigest(f"embed {at}"), (_ref("dense", 22_000_000, f"embed.{at}"),))
        for at, spec in enumerate(cut(embed))
    ]
    chunks = (
        Block(523412, hexdigest("chunk 0"), (_ref("dense", 1234, "chunk.0"),)),
        Block(20, sha256(b"end of the last file").hexdigest(), (), b"end of the last file"),
    )
    bias = TensorInfo("encoder.layer.0.attention.self.query.bias", DTYPES["F32"], (384,))
    packed = UpdateRef("dense", hexdigest("pack"), 3_145_912, (), (2432, 4016))
    old = _ref("dense", 1_900_000, "pooler.0")
    ours = _ref("delta", 1_200_000, "pooler.1", change="1.2%")
    theirs = _ref("low-rank", 24_832, "pooler.2", rank="8", change="0.9%")
    recipe = Recipe(
        "average",
        1,
        (("weights", "0.75,0.25"),),
        (Parent("base", (old,)), Parent("ours", (old, ours)), Parent("theirs", (old, theirs))),
    )
    pooler = TensorInfo("pooler.weight", DTYPES["F32"], (768, 768))
    return Manifest(
        "safetensors",
        Block(11264, hexdigest("header"), (_ref("dense", 1200, "s.0"), _ref("patch", 300, "s.1"))),
        (
            Entry(TensorInfo("content", DTYPES["U8"], (523432,)), chunks, opaque=True),
            Entry(embed, tuple(parts)),
            Entry(bias, (Block(1536, hexdigest("bias"), (packed,)),)),
            Entry(
                query,
                (Block(589824, hexdigest("query"), (_ref("dense", 484120, "query.0"), rank)),),
            ),
            Entry(count, (Block(8, sha256(steps).hexdigest(), (), steps),)),
            Entry(
                TensorInfo("größe", DTYPES["F32"], (0, 4)),
                (Block(0, sha256().hexdigest(), (), b""),),
            ),
            Entry(pooler, (Block(2_359_296, hexdigest("pooler"), (recipe,)),)),
        ),
    )


def test_the_documented_example_is_what_is_written() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    match = re.search(r"```text\n(git-theta manifest v2\n.*?)```", text, re.DOTALL)
    assert match is not None
    assert match[1].encode() == manifest_bytes(_example())
    assert parse_manifest(match[1].encode()) == _example()
