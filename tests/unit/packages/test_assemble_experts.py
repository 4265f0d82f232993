"""Experts in the layouts of real checkpoints, and the bytes of what is stacked, split and cast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, TensorInfo, cut
from git_theta_ext.core.values import values_dtype
from git_theta_ext.manifest.model import Entry
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from git_theta_ext.packages.assemble.experts import Experts, Layout, convert
from git_theta_ext.packages.assemble.given import Given
from git_theta_ext.packages.assemble.pieces import Reader, blocks_of

Arrays = dict[str, NDArray[np.float32]]
EXPERTS, WIDE, NARROW = 3, 6, 4


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    return Blocks(Store(tmp_path / "theta"))


def stored(blocks: Blocks, name: str, array: NDArray[np.float32]) -> Entry:
    info = TensorInfo(name, DTYPES["F32"], array.shape)
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
    found, start = [], 0
    for spec in cut(info):
        found.append(blocks.write(spec, flat[start : start + spec.count]))
        start += spec.count
    return Entry(info, tuple(found))


def read(blocks: Blocks, given: Given) -> NDArray[np.generic]:
    reader = Reader(blocks)
    parts = [reader.read(made) for made in blocks_of(given)]
    dtype = ml_dtypes.bfloat16 if given.info.dtype.name == "BF16" else np.float32
    return np.concatenate(parts).view(dtype).reshape(given.info.shape)


def matrices() -> dict[tuple[int, str], NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    shapes = {"gate": (WIDE, NARROW), "up": (WIDE, NARROW), "down": (NARROW, WIDE)}
    return {
        (number, role): rng.standard_normal(shape).astype(np.float32)
        for number in range(EXPERTS)
        for role, shape in shapes.items()
    }


def layout(name: Layout) -> Arrays:
    """The same experts, and a router, as a checkpoint of that layout has them."""
    found: Arrays = {"model.norm": np.ones(NARROW, np.float32)}
    top = "model.layers.0."
    if name == "stacked":
        own = matrices()
        both = [np.concatenate([own[n, "gate"], own[n, "up"]]) for n in range(EXPERTS)]
        found[f"{top}mlp.experts.gate_up_proj"] = np.stack(both)
        down = [own[n, "down"] for n in range(EXPERTS)]
        found[f"{top}mlp.experts.down_proj"] = np.stack(down)
    words = {"gate": "w1", "up": "w3", "down": "w2"} if name == "mixtral" else {}
    block = "block_sparse_moe" if name == "mixtral" else "mlp"
    if name != "stacked":
        for (number, role), array in matrices().items():
            word = words.get(role, f"{role}_proj")
            found[f"{top}{block}.experts.{number}.{word}.weight"] = array
    found[f"{top}{block}.gate.weight"] = np.full((EXPERTS, NARROW), 7, np.float32)
    return found


def given(blocks: Blocks, arrays: Mapping[str, NDArray[np.float32]]) -> list[Given]:
    return [Given.plain(stored(blocks, name, array)) for name, array in arrays.items()]


@pytest.mark.parametrize("source", ["mixtral", "qwen", "stacked"])
@pytest.mark.parametrize("target", ["mixtral", "deepseek", "stacked"])
def test_every_layout_becomes_every_other(blocks: Blocks, source: Layout, target: Layout) -> None:
    if source == target:
        with pytest.raises(ValueError, match="same layout"):
            Experts(source, target)
        return
    found = convert(Experts(source, target), given(blocks, layout(source)), "part p")
    wanted = layout(target)
    assert {one.name for one in found} == wanted.keys()
    for one in found:
        assert np.array_equal(read(blocks, one), wanted[one.name])
    assert all(one.is_plain for one in found) == ("stacked" not in (source, target))


def test_a_dense_mlp_becomes_experts(blocks: Blocks) -> None:
    rng = np.random.default_rng(4)
    dense = {f"l.0.mlp.{role}_proj.weight": rng.standard_normal((4, 4)).astype(np.float32)
             for role in ("gate", "up", "down")}  # fmt: skip
    tensors = given(blocks, dense)
    found = {one.name: one for one in convert(Experts("dense", "mixtral", (0, 2)), tensors, "p")}
    assert found.keys() == {
        f"l.0.block_sparse_moe.experts.{n}.{w}.weight" for n in (0, 2) for w in ("w1", "w2", "w3")
    }
    copy = found["l.0.block_sparse_moe.experts.2.w3.weight"]
    assert copy.is_plain
    assert copy.sources == ("l.0.mlp.up_proj.weight",)
    shared = convert(Experts("dense", "deepseek", (0,), shared=True), tensors, "p")
    assert "l.0.mlp.shared_experts.up_proj.weight" in {one.name for one in shared}
    (stack,) = (one for one in convert(Experts("dense", "stacked", (0, 1)), tensors, "p")
                if one.name.endswith("down_proj"))  # fmt: skip
    down = dense["l.0.mlp.down_proj.weight"]
    assert np.array_equal(read(blocks, stack), np.stack([down, down]))


def test_stacks_that_are_none_are_refused(blocks: Blocks) -> None:
    arrays = layout("qwen")
    lacking = {name: one for name, one in arrays.items() if "1.up_proj" not in name}
    with pytest.raises(UsageError, match="lacks the up matrix of expert 1 of 3"):
        convert(Experts("qwen", "stacked"), given(blocks, lacking), "p")
    other = {**arrays, "model.layers.0.mlp.experts.1.up_proj.weight": np.ones((5, 5), np.float32)}
    with pytest.raises(UsageError, match="they make no stack"):
        convert(Experts("qwen", "stacked"), given(blocks, other), "p")
    scaled = {**arrays, "model.layers.0.mlp.experts.1.up_proj.scale": np.ones(5, np.float32)}
    with pytest.raises(UsageError, match="has no place in a stack"):
        convert(Experts("qwen", "stacked"), given(blocks, scaled), "p")
    twice = {**arrays, "model.layers.0.mlp.experts.01.up_proj.weight": np.ones((6, 4), np.float32)}
    with pytest.raises(UsageError, match=r"are both expert 1"):
        convert(Experts("qwen", "stacked"), given(blocks, twice), "p")
    flat = {"mlp.experts.gate_up_proj": np.ones((3, 5, 2), np.float32)}
    with pytest.raises(UsageError, match="a stack is"):
        convert(Experts("stacked", "qwen"), given(blocks, flat), "p")


def test_pieces_of_large_tensors_are_read_block_by_block(blocks: Blocks) -> None:
    """A stack that is cut elsewhere than what it is made of, and a cast of the same."""
    rng = np.random.default_rng(5)
    parts = {
        f"mlp.experts.{n}.{role}_proj.weight": rng.integers(0, 9, (1500, 2048)).astype(np.float32)
        for n in range(2)
        for role in ("gate", "up", "down")
    }
    found = convert(Experts("qwen", "stacked"), given(blocks, parts), "p")
    (stack,) = (one for one in found if "gate_up" in one.name)
    assert len(list(blocks_of(stack))) > 1
    names = [f"mlp.experts.{n}.{role}_proj.weight" for n in range(2) for role in ("gate", "up")]
    wanted = np.stack([parts[name] for name in names]).reshape(stack.info.shape)
    assert np.array_equal(read(blocks, stack), wanted)
    assert np.array_equal(read(blocks, stack.cast("BF16")).astype(np.float32), wanted)


def test_a_cast_is_rounded_once_and_loses_no_number(blocks: Blocks) -> None:
    array = np.array([1 + 2**-9, 3e38, np.inf, np.nan, -0.0], np.float32)
    one = Given.plain(stored(blocks, "x", np.tile(array, 8)))
    values = read(blocks, one.cast("BF16"))[:5]
    assert np.array_equal(values, array.astype(ml_dtypes.bfloat16), equal_nan=True)
    with pytest.raises(UsageError, match="'x' as F16: 8 values would be infinite"):
        Reader(blocks).read(next(blocks_of(one.cast("F16"))))
    (made,) = blocks_of(one.cast("BF16"))
    assert made.exact is not None
    assert values_dtype(made.spec.dtype) == np.uint16
