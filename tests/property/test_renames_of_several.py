"""Sides that rename and train at random: one name for each tensor, with its training, or open."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.combine.apply import merge
from git_theta_ext.merge.combine.several import merge_several
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store

PREFIXES = ("", "module.", "_orig_mod.")
SHAPES = {"l.0.weight": (20, 16), "l.0.bias": (4,), "l.1.weight": (20, 16), "l.1.bias": (4,)}


@dataclass(frozen=True)
class Side:
    """What a side put before all names, and the tensors that it trained."""

    prefix: str
    trained: frozenset[str]


SIDE = st.builds(
    Side, st.sampled_from(PREFIXES), st.frozensets(st.sampled_from(sorted(SHAPES)), max_size=3)
)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    return Blocks(Store(tmp_path_factory.mktemp("store")))


def values(name: str, number: int | None) -> np.ndarray:
    """A tensor of the base (None), or as a side trained it."""
    start = 1000 * sorted(SHAPES).index(name) + (0 if number is None else 0.25 * (number + 1))
    return (np.arange(np.prod(SHAPES[name])) + start).astype(np.float32)


def version(blocks: Blocks, side: Side, number: int | None) -> Manifest:
    entries = []
    for name, shape in SHAPES.items():
        info = TensorInfo(side.prefix + name, DTYPES["F32"], shape)
        bits = values(name, number if name in side.trained else None).view(np.uint32)
        (spec,) = cut(info)
        entries.append(Entry(info, (blocks.write(spec, bits),)))
    entries.sort(key=lambda one: natural_key(one.tensor.name))
    built = safetensors.build({one.tensor.name: one.tensor for one in entries})
    return Manifest("safetensors", blocks.write_bytes(skeleton.encode(built)), tuple(entries))


def plain(name: str) -> str:
    return next(name.removeprefix(one) for one in PREFIXES[::-1] if name.startswith(one))


@given(st.lists(SIDE, min_size=2, max_size=4), st.sampled_from(["conflict", "average", "ours",
                                                                "theirs"]))  # fmt: skip
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_a_merge_that_is_closed_has_one_name_for_each_tensor(
    blocks: Blocks, sides: list[Side], strategy: str
) -> None:
    base = version(blocks, Side("", frozenset()), None)
    versions = [version(blocks, side, number) for number, side in enumerate(sides)]
    if len(sides) == 2:
        merged = merge(base, versions[0], versions[1], blocks, lambda _: Choice(strategy))
    else:
        merged = merge_several(base, versions, blocks, lambda _: Choice(strategy))
    Smudger(merged.manifest, blocks).write(lambda data: None)
    if merged.open:
        assert len({side.prefix for side in sides}) > 1 or strategy == "conflict"
        return
    names = [entry.tensor.name for entry in merged.manifest.entries]
    assert sorted(map(plain, names)) == sorted(SHAPES)
    assert len({name.removesuffix(plain(name)) for name in names}) == 1
    if len({side.prefix for side in sides} - {""}) > 1:
        return  # one side's names, and with them that side's values
    for entry in merged.manifest.entries:
        name = plain(entry.tensor.name)
        trained = [number for number, side in enumerate(sides) if name in side.trained]
        if len(trained) < 2:
            expected = values(name, trained[0] if trained else None)
            (spec,) = cut(entry.tensor)
            assert np.array_equal(blocks.read(spec, entry.blocks[0]).view(np.float32), expected)
