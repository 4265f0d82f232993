"""Adapters of each type beside PEFT's own merges, on weights of three dtypes, in ulps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters import peft
from git_theta_ext.checkpoints.adapters.base import Adapter
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.adapters.types import bind as types
from git_theta_ext.checkpoints.adapters.types import weighted
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, BlockSpec, DType, TensorInfo
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.updates.arithmetic import narrow, widen
from tests.scenarios.checkpoints import safetensors

GOLDEN = Path(__file__).parents[2] / "golden" / "peft_dtypes"


def base(dtype: DType) -> tuple[dict[str, TensorInfo], dict[str, Values]]:
    """The tensors of the golden base in a dtype: what they are, and their bits."""
    infos, bits = {}, {}
    with TensorFile(GOLDEN / "base.safetensors") as file:
        for name in file:
            floats = file.read(name).astype(np.float32).ravel()
            infos[name] = TensorInfo(name, dtype, file.info(name).shape)
            bits[name] = narrow(dtype, floats, np.zeros(len(floats), values_dtype(dtype)))
    return infos, bits


def bound(folder: Path, infos: dict[str, TensorInfo], **settings: Any) -> Adapter:
    """An adapter, taken for what its tensors' names say."""
    config = {**peft.read_config(folder / peft.CONFIG), **settings}
    with TensorFile(folder / "adapter_model.safetensors") as file:
        kind = types.looks_like(file)
        if kind is not None:
            return types.bind(file, config, kind, infos)
        kind = peft.looks_like(file)
        assert kind is not None
        return peft.bind(file, config, kind, infos)


def steps(dtype: DType, ours: Values, theirs: Values) -> NDArray[np.int64]:
    """How many numbers of the dtype lie between two, entry by entry."""
    top = np.int64(1) << (dtype.bits - 1)
    sides = [np.where(one >= top, top - one, one) for one in
             (ours.astype(np.int64), theirs.astype(np.int64))]  # fmt: skip
    return np.asarray(np.abs(sides[0] - sides[1]), np.int64)


def compared(
    adapter: Adapter, dtype: DType, merged: Path
) -> Iterator[tuple[str, NDArray[np.int64], float]]:
    """Of each tensor the steps between ours and PEFT's, and the distance over the largest weight.

    Every tensor that PEFT changed must be changed, and no other.
    """
    infos, bits = base(dtype)
    with TensorFile(merged) as file:
        assert set(file) <= adapter.changes.keys()
        for name, change in adapter.changes.items():
            shape = infos[name].shape
            new = change.apply(BlockSpec(dtype, shape), 0, bits[name])
            # Two blocks, as of a large tensor, give the same.
            if len(shape) > 1 and "emb" not in name and "c_attn" not in name:
                first, rest = shape[0] // 2, new.size // shape[0]
                cut = first * rest
                halves = [
                    change.apply(BlockSpec(dtype, (rows, *shape[1:])), start, part)
                    for rows, start, part in (
                        (first, 0, bits[name][:cut]),
                        (shape[0] - first, cut, bits[name][cut:]),
                    )
                ]
                np.testing.assert_array_equal(np.concatenate(halves), new)
            if name not in file:
                np.testing.assert_array_equal(new, bits[name])
                continue
            theirs = file.read(name).reshape(-1).view(values_dtype(dtype))
            far = np.abs(widen(dtype, new) - widen(dtype, theirs)).max()
            yield name, steps(dtype, new, theirs), float(far / np.abs(widen(dtype, theirs)).max())


EXACT = {"ia3", "ln-tuning", "tokens", "lokr-whole"}
"""Where the order of all operations is fixed: no entry may differ."""
CASES = sorted(one.name for one in GOLDEN.iterdir() if one.is_dir() and one.name != "weighted")


def check(adapter: Adapter, dtype: DType, merged: Path, exact: bool) -> None:
    """In float32 the last bits of sums may differ; in 16 bits a sum that lies between two."""
    found = list(compared(adapter, dtype, merged))
    assert found
    apart = np.concatenate([steps for _, steps, _ in found])
    if exact:
        assert not apart.any()
    elif dtype.name == "F32":
        assert max(far for _, _, far in found) <= 4e-7
    else:
        assert apart.max() <= 1
        assert np.count_nonzero(apart) <= len(apart) // 500


@pytest.mark.parametrize("name", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("case", CASES)
def test_a_merge_is_that_of_peft(case: str, name: str) -> None:
    dtype = DTYPES[name]
    adapter = bound(GOLDEN / case, base(dtype)[0])
    check(adapter, dtype, GOLDEN / case / f"merged.{name}.safetensors", case in EXACT)


@pytest.mark.parametrize("name", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("how", weighted.KINDS)
def test_a_weighted_sum_is_that_of_peft(how: weighted.Kind, name: str) -> None:
    dtype = DTYPES[name]
    adapter = weighted.joined(several(dtype), how, base(dtype)[0])
    check(adapter, dtype, GOLDEN / "weighted" / how / f"merged.{name}.safetensors", False)


def several(dtype: DType, **settings: Any) -> list[weighted.Weighted]:
    """The three golden adapters of LoRA, and the weights that PEFT joined them with."""
    found = []
    for letter, weight in {"a": 0.7, "b": -0.3, "c": 1.25}.items():
        folder = GOLDEN / "weighted" / letter
        config = {**peft.read_config(folder / peft.CONFIG), **settings}
        adapter = bound(folder, base(dtype)[0], **settings)
        found.append(weighted.Weighted(folder, config, adapter, weight))
    return found


def test_weights_that_peft_does_not_apply_as_it_says_are_refused() -> None:
    dtype = DTYPES["F32"]
    infos = base(dtype)[0]
    with pytest.raises(UsageError, match="use_rslora is set"):
        weighted.joined(several(dtype, use_rslora=True), "cat", infos)
    other = several(dtype)
    mixed = [weighted.Weighted(GOLDEN, {**other[0].config, "r": 4}, other[0].adapter, 1), other[1]]
    with pytest.raises(UsageError, match="--combine linear needs adapters of one rank"):
        weighted.joined(mixed, "linear", infos)
    dora = weighted.Weighted(GOLDEN, {}, bound(GOLDEN / "dora", infos), 1)
    with pytest.raises(UsageError, match="by more than the factors of a plain LoRA"):
        weighted.joined([dora, other[1]], "cat", infos)
    double = {name: TensorInfo(name, DTYPES["F64"], info.shape) for name, info in infos.items()}
    with pytest.raises(UsageError, match="is F64: adapters are weighed for F32, BF16, F16"):
        weighted.joined(several(dtype), "cat", double)
    for text, message in (("1", "1 for 2"), ("1,x", "expected numbers"), ("1,nan", "finite")):
        with pytest.raises(UsageError, match=message):
            weighted.weights(text, 2)


@pytest.mark.parametrize(
    ("case", "settings", "message"),
    [
        ("oft", {"block_share": True}, "9 blocks of 4 do not fit 36 inputs"),
        ("oft", {"peft_version": "0.17.1"}, "that of PEFT before 0.18"),
        ("oft", {"oft_block_size_2": 3}, "sets oft_block_size_2 to 3"),
        ("coft", {"eps": "x"}, "eps is 'x'"),
        ("hra", {"r": 5}, "r is 5"),
        ("fourierft", {"random_loc_seed": None}, "random_loc_seed is None"),
        ("fourierft", {"scaling": True}, "scaling is True"),
        ("experts", {"target_parameters": "down_proj"}, "is no list of names"),
        ("experts", {"target_parameters": ["experts.down_proj"]}, "several adapters"),
        ("experts", {"use_dora": True}, "sets use_dora, which PEFT does not apply"),
        ("experts", {"rank_pattern": {}}, "its factors fit no parameters"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    case: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        bound(GOLDEN / case, base(DTYPES["F32"])[0], **settings)
    assert message in error.value.message


@pytest.mark.parametrize("case", ["oft", "boft"])
def test_blocks_that_overflow_are_refused(case: str, tmp_path: Path) -> None:
    """Else nothing would be left of the change: where a result is NaN, the old value stays."""
    shutil.copytree(GOLDEN / case, tmp_path, dirs_exist_ok=True)
    random = np.random.default_rng(0)
    with TensorFile(GOLDEN / case / "adapter_model.safetensors") as file:
        huge = {
            name: random.choice(np.array([3e38, -3e38], "f4"), file.info(name).shape)
            for name in file
        }
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(huge))
    with pytest.raises(UsageError, match="its blocks are not finite"):
        bound(tmp_path, base(DTYPES["F32"])[0])


def test_parameters_of_one_shape_cannot_be_told_apart(tmp_path: Path) -> None:
    """The file names none of them: PEFT goes by the order in which the model has them."""
    shutil.copytree(GOLDEN / "experts", tmp_path, dirs_exist_ok=True)
    random = np.random.default_rng(5)
    stems = ("m.experts", "m.experts.base_layer")
    factors = {
        f"base_model.model.{stem}.lora_{side}.weight": random.normal(0, 1, shape).astype("f4")
        for stem in stems
        for side, shape in (("A", (4, 8)), ("B", (8, 4)))
    }
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(factors))
    infos = {
        name: TensorInfo(name, DTYPES["F32"], (2, 8, 8)) for name in ("m.experts.x", "m.experts.y")
    }
    with pytest.raises(UsageError, match="it is not clear which factors are of which parameter"):
        bound(tmp_path, infos, target_parameters=["x", "y"])
    del infos["m.experts.y"]
    for name in [name for name in factors if "base_layer" in name]:
        del factors[name]
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(factors))
    with pytest.raises(UsageError, match="as many inputs as outputs"):
        bound(tmp_path, infos, target_parameters=["x", "y"])


def test_blocks_may_end_within_an_expert_and_within_a_row() -> None:
    dtype = DTYPES["F32"]
    infos, bits = base(dtype)
    change = bound(GOLDEN / "experts", infos).changes["experts.gate_up_proj"]
    old = bits["experts.gate_up_proj"]
    whole = change.apply(BlockSpec(dtype, infos["experts.gate_up_proj"].shape), 0, old)
    parts = [
        change.apply(BlockSpec(dtype, (len(part),)), start, part)
        for start in range(0, len(old), 101)
        for part in [old[start : start + 101]]
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(whole, old)
