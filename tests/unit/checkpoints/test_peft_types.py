"""Types of PEFT that are no plain factors: what PEFT 0.21 merged in bfloat16, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from git_theta_ext.checkpoints.adapters import peft
from git_theta_ext.checkpoints.adapters.base import Adapter
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.adapters.types import bind as types
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import BlockSpec, TensorInfo
from git_theta_ext.core.values import values_dtype
from tests.scenarios.checkpoints import safetensors

GOLDEN = Path(__file__).parents[2] / "golden" / "peft"
CASES = {"dora": "lora", "adalora": "adalora", "loha": "loha", "loha-cores": "loha",
         "lokr": "lokr", "lokr-cores": "lokr", "vera": "vera",
         "ln-tuning": "ln_tuning"}  # fmt: skip


def bound(case: str, base: TensorFile, **settings: Any) -> Adapter:
    """An adapter's changes to the tensors of a file."""
    kind, folder = CASES[case], GOLDEN / case
    config = {**json.loads((folder / "adapter_config.json").read_text()), **settings}
    tensors = {name: base.info(name) for name in base}
    with TensorFile(folder / "adapter_model.safetensors") as file:
        if kind in types.KINDS:
            assert types.looks_like(file) == kind
            return types.bind(file, config, kind, tensors)
        assert types.looks_like(file) is None
        return peft.bind(file, config, kind, tensors)


def merged(adapter: Adapter, base: TensorFile) -> Mapping[str, bytes]:
    """Every tensor after the adapter."""
    found = {}
    for name in base:
        info = base.info(name)
        old = np.ascontiguousarray(base.read(name)).reshape(-1).view(values_dtype(info.dtype))
        change = adapter.changes.get(name)
        if change is None:
            found[name] = old.tobytes()
            continue
        # Two blocks, as of a large tensor, where the first axis can be cut.
        cut = info.shape[0] // 2 * (info.count // info.shape[0])
        if name in WHOLE or len(info.shape) < 2:
            cut = 0
        parts = [(0, old[:cut]), (cut, old[cut:])]
        news = [
            change.apply(BlockSpec(info.dtype, rows(info, part)), start, part.copy())
            for start, part in parts
            if len(part)
        ]
        found[name] = np.concatenate(news).tobytes()
    return found


WHOLE = {"emb.weight", "c_attn.weight", "c_proj.weight"}
"""Those whose columns have norms in DoRA: they must be one block."""


def rows(info: TensorInfo, part: np.ndarray[Any, Any]) -> tuple[int, ...]:
    if len(info.shape) < 2:
        return info.shape
    return (len(part) * info.shape[0] // info.count, *info.shape[1:])


@pytest.mark.parametrize("case", list(CASES))
def test_the_result_is_to_the_bit_what_peft_merges(case: str) -> None:
    with TensorFile(GOLDEN / case / "base.safetensors") as base:
        found = merged(bound(case, base), base)
        with TensorFile(GOLDEN / case / "merged.safetensors") as wanted:
            assert found == {name: wanted.read(name).tobytes() for name in wanted}
        assert found != {name: base.read(name).tobytes() for name in base}


@pytest.mark.parametrize(
    ("case", "settings", "message"),
    [
        ("adalora", {"init_r": None}, "init_r is None"),
        ("adalora", {"use_newest": True}, "sets use_newest to True"),
        ("loha", {"r": 4, "rank_pattern": {}}, "has factors of rank 3"),
        ("loha", {"alpha": None}, "lora_alpha is None"),
        ("lokr", {"r": 0}, "r is 0, which is no rank"),
        ("vera", {"peft_type": "LOHA"}, "is an adapter of type loha, not vera"),
        ("dora", {"use_dora": False}, "do not agree on whether it is DoRA"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    case: str, settings: dict[str, Any], message: str
) -> None:
    with TensorFile(GOLDEN / case / "base.safetensors") as base:
        with pytest.raises(UsageError) as error:
            bound(case, base, **settings)
        assert message in error.value.message


def test_files_that_lack_a_part_or_have_another_shape_are_refused(tmp_path: Path) -> None:
    for case, drop, message in (
        ("vera", "base_model.vera_A", "are not in the file"),
        ("adalora", "lora_E", "which are not the parts"),
        ("lokr", "lokr_w1", "which are not the parts"),
    ):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        with TensorFile(GOLDEN / case / "adapter_model.safetensors") as file:
            kept = {name: file.read(name) for name in file}
        gone = next(name for name in kept if name.endswith(drop))
        del kept[gone]
        (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(kept))
        config = json.loads((GOLDEN / case / "adapter_config.json").read_text())
        with (
            TensorFile(GOLDEN / case / "base.safetensors") as base,
            TensorFile(tmp_path / "adapter_model.safetensors") as file,
            pytest.raises(UsageError) as error,
        ):
            types.bind(file, config, CASES[case], {name: base.info(name) for name in base})
        assert message in error.value.message


def test_an_update_of_other_sides_than_the_weight_is_refused() -> None:
    with TensorFile(GOLDEN / "loha" / "base.safetensors") as base:
        tensors = {name: base.info(name) for name in base}
        info = tensors["lin.weight"]
        tensors["lin.weight"] = TensorInfo(info.name, info.dtype, (20, 25))
        config = json.loads((GOLDEN / "loha" / "adapter_config.json").read_text())
        with (
            TensorFile(GOLDEN / "loha" / "adapter_model.safetensors") as file,
            pytest.raises(UsageError) as error,
        ):
            types.bind(file, config, "loha", tensors)
        assert "does not fit tensor 'lin.weight'" in error.value.message
