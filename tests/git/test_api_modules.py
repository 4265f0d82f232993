"""Checkpoints into modules and tensors into commits, with stand-ins for torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import git_theta_ext as theta
from git_theta_ext.core.errors import UsageError
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.stand_ins import DataParallel, Module, Tensor, torch

FILE = "m.safetensors"
WANTED = np.arange(20, dtype=np.float32).reshape(5, 4)


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch())


def put(repo: Repo, tensors: dict[str, Any]) -> None:
    def make() -> None:
        repo.write(FILE, safetensors(tensors))
        repo.commit("Add the model")

    repo.once(make, *(f"{name}{value.dtype}{value.sum()}" for name, value in tensors.items()))


def linear(**others: Any) -> Module:
    return Module({"weight": Tensor(np.zeros((5, 4), np.float32), **others)})


def tied() -> Module:
    weight = Tensor(np.zeros((5, 4), np.float32))
    return Module({}, embed=Module({"weight": weight}), head=Module({"weight": weight}))


def load(repo: Repo, module: Any, **options: Any) -> list[str]:
    return theta.load_into(module, FILE, repository=repo.path, **options)


def test_tied_weights_need_one_name_and_must_not_differ(repo: Repo) -> None:
    put(repo, {"embed.weight": WANTED})
    module = tied()
    assert load(repo, module) == []
    assert np.array_equal(module.parts["head"]._parameters["weight"].array, WANTED)
    repo.write(FILE, safetensors({"embed.weight": WANTED, "head.weight": WANTED + 1}))
    repo.commit()
    module = tied()
    with pytest.raises(UsageError, match="are tied in the module and differ"):
        load(repo, module)
    assert not module.parts["head"]._parameters["weight"].array.any()


def test_a_module_on_meta_is_filled_or_refused(repo: Repo) -> None:
    put(repo, {"weight": WANTED})
    module = linear(meta=True)
    assert load(repo, module) == []
    found = module._parameters["weight"]
    assert not found.is_meta
    assert np.array_equal(found.array, WANTED)
    module = linear(meta=True)
    module._parameters["bias"] = Tensor(np.zeros(5, np.float32), meta=True)
    with pytest.raises(UsageError, match="'bias' of the module is on the meta device"):
        load(repo, module, strict=False)
    assert module._parameters["weight"].is_meta


@pytest.mark.parametrize("strict", [True, False])
def test_nested_weights_are_found_by_their_prefix(repo: Repo, strict: bool) -> None:
    put(repo, {"model.weight": WANTED, "optimizer.step": np.ones(1, np.float32)})
    with pytest.raises(UsageError, match=r"it has the module's names under 'model\.'") as error:
        load(repo, linear(), strict=strict)
    assert error.value.hint == "prefix='model.'"
    module = linear()
    assert load(repo, module, strict=strict, prefix="model") == []
    assert np.array_equal(module._parameters["weight"].array, WANTED)
    with pytest.raises(UsageError, match="no tensor whose name begins with 'none\\.'") as error:
        load(repo, linear(), prefix="none")
    assert "'model.', 'optimizer.'" in str(error.value.hint)


def test_names_that_are_missing_are_returned_and_nothing_at_all_is_an_error(repo: Repo) -> None:
    put(repo, {"weight": WANTED})
    module = linear()
    module._parameters["bias"] = Tensor(np.zeros(5, np.float32))
    with pytest.raises(UsageError, match="missing \\['bias'\\]"):
        load(repo, module)
    assert load(repo, module, strict=False) == ["bias"]
    with pytest.raises(UsageError, match="no name does: missing \\['other'\\]"):
        load(repo, Module({"other": Tensor(WANTED)}), strict=False)
    with pytest.raises(UsageError, match="fits the module's part 'inner'"):
        load(repo, Module({}, inner=linear()), strict=False)


def test_wrappers_are_looked_through_and_peft_is_refused(repo: Repo) -> None:
    put(repo, {"weight": WANTED})
    module = linear()
    assert load(repo, DataParallel(module)) == []
    assert np.array_equal(module._parameters["weight"].array, WANTED)
    layer = type("Linear", (Module,), {"__module__": "peft.tuners.lora.layer"})
    with pytest.raises(UsageError, match="wrapped by PEFT"):
        load(repo, Module({}, q=layer({"base_layer": Tensor(WANTED)})), strict=False)
    flat = type("FullyShardedDataParallel", (Module,), {})
    with pytest.raises(UsageError, match="FSDP1"):
        load(repo, flat({"weight": Tensor(WANTED)}))


def test_what_does_not_fit_leaves_the_module_as_it_is(repo: Repo) -> None:
    put(repo, {"a": WANTED, "z": np.ones(3, np.int8)})
    for other, message in (
        (np.ones(4, np.int8), r"is \[3\] in"),
        (np.ones(3, np.float32), "its values would not be the same"),
    ):
        module = Module({"a": Tensor(np.zeros((5, 4), np.float32)), "z": Tensor(other)})
        with pytest.raises(UsageError, match=message):
            load(repo, module)
        assert not module._parameters["a"].array.any()


def test_tensors_of_torch_are_committed_and_odd_ones_refused(repo: Repo) -> None:
    theta.commit({"w": Tensor(WANTED.T)}, FILE, message="x", repository=repo.path)
    found = theta.open(Path(FILE), repository=repo.path)["w"]
    assert np.array_equal(found, WANTED.T)
    head = repo.git("rev-parse", "HEAD")
    quantised = Tensor(WANTED)
    quantised.is_quantized = True
    for value, message in (
        (Tensor(WANTED, layout="torch.sparse_coo"), "of layout torch.sparse_coo"),
        (Tensor(WANTED, meta=True), "on the meta device"),
        (quantised, "quantised"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), "masked array"),
        (np.array(["text"]), "cannot be stored"),
    ):
        with pytest.raises(UsageError, match=message):
            theta.commit({"odd": value}, FILE, message="x", repository=repo.path)
    assert repo.git("rev-parse", "HEAD") == head


def test_metadata_that_would_be_lost_are_refused(repo: Repo) -> None:
    tensors = {"w": WANTED}
    for path, metadata, message in (
        ("m.npz", {"step": "1"}, "has no place for metadata"),
        (FILE, {"step": 1}, "metadata maps text to text"),
    ):
        with pytest.raises(UsageError, match=message):
            theta.commit(tensors, path, message="x", metadata=metadata, repository=repo.path)
