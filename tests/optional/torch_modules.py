"""The Python interface with a real torch: modules that are filled, and tensors that are committed.

Not part of the default run, for torch takes 1 GB of packages: `.ci/optional` runs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_file, save_model

import git_theta_ext as theta
from git_theta_ext.core.errors import UsageError
from tests.scenarios.repositories import Repo

FILE = "m.safetensors"

# torch.compile loads parts of PyTorch that use what PyTorch 2.13 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is:DeprecationWarning")


def put(repo: Repo, tensors: dict[str, Any], name: str = FILE) -> None:
    """Commit a file that torch's own writers made."""
    if name.endswith(".safetensors"):
        save_file(tensors, repo.path / name)
    else:
        torch.save(tensors, repo.path / name)
    repo.commit("model")


class Tied(torch.nn.Module):
    """A head tied to its embedding, and a buffer that is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5, 4)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(3))


def test_tied_weights_are_filled_as_safetensors_loads_them(repo: Repo) -> None:
    source = Tied()
    save_model(source, str(repo.path / FILE))
    repo.commit("model")
    ours, theirs = Tied(), Tied()
    load_model(theirs, str(repo.path / FILE))
    assert theta.load_into(ours, FILE, repository=repo.path) == []
    for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert ours.head.weight is ours.embed.weight


def test_tied_weights_that_differ_in_the_file_are_refused(repo: Repo) -> None:
    put(repo, {"embed.weight": torch.ones(5, 4), "head.weight": torch.zeros(5, 4),
               "scale": torch.ones(3)})  # fmt: skip
    module = Tied()
    before = module.embed.weight.clone()
    with pytest.raises(UsageError, match="tied in the module and differ"):
        theta.load_into(module, FILE, repository=repo.path)
    assert torch.equal(module.embed.weight, before)


def test_a_tied_module_on_meta_is_filled_and_stays_tied(repo: Repo) -> None:
    source = Tied()
    put(repo, {"head.weight": source.head.weight.detach().clone(), "scale": source.scale})
    with torch.device("meta"):
        module = Tied()
    theta.load_into(module, FILE, repository=repo.path)
    assert module.head.weight is module.embed.weight
    assert torch.equal(module.embed.weight, source.embed.weight)
    assert isinstance(module.embed.weight, torch.nn.Parameter)
    assert module.embed.weight.requires_grad
    assert not module.scale.is_meta


@pytest.mark.parametrize("strict", [True, False])
def test_what_would_stay_on_meta_is_refused(repo: Repo, strict: bool) -> None:
    put(repo, {"weight": torch.ones(5, 4)} if not strict else
        {"weight": torch.ones(5, 4), "bias": torch.ones(5)})  # fmt: skip
    with torch.device("meta"):
        module = torch.nn.Linear(4, 5)
        if strict:
            module.register_buffer("rotary", torch.ones(2), persistent=False)
    with pytest.raises(UsageError, match=r"'rotary'|'bias'") as error:
        theta.load_into(module, FILE, strict=strict, repository=repo.path)
    assert "meta" in str(error.value)
    assert module.weight.is_meta


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("key", ["model", "state_dict", "module.model", "ema"])
def test_nested_weights(repo: Repo, key: str, strict: bool) -> None:
    source = torch.nn.Linear(4, 5)
    value: Any = source.state_dict()
    for part in reversed(key.split(".")):
        value = {part: value}
    put(repo, {**value, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        "c.pt")  # fmt: skip
    module = torch.nn.Linear(4, 5)
    with pytest.raises(UsageError) as error:
        theta.load_into(module, "c.pt", strict=strict, repository=repo.path)
    assert error.value.hint == f"prefix='{key}.'"
    for prefix in (key, f"{key}."):
        module = torch.nn.Linear(4, 5)
        assert theta.load_into(module, "c.pt", prefix=prefix, repository=repo.path) == []
        assert torch.equal(module.weight, source.weight)
    with pytest.raises(UsageError, match=r"begins with 'nowhere\.'"):
        theta.load_into(module, "c.pt", prefix="nowhere", repository=repo.path)


def test_a_part_of_the_module_that_fits_is_named(repo: Repo) -> None:
    put(repo, torch.nn.Linear(4, 5).state_dict())
    module = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 5))
    with pytest.raises(UsageError, match="fits the module's part '1'"):
        theta.load_into(module, FILE, strict=False, repository=repo.path)


WRAPPERS: list[tuple[str, Callable[[torch.nn.Module], torch.nn.Module]]] = [
    ("compile", torch.compile),
    ("compiled part", lambda one: torch.nn.Sequential(torch.compile(one[0]), one[1])),
    ("data parallel", torch.nn.DataParallel),
    ("both", lambda one: torch.compile(torch.nn.DataParallel(one))),
]


@pytest.mark.parametrize("wrap", [one for _, one in WRAPPERS], ids=[name for name, _ in WRAPPERS])
def test_wrappers_are_looked_through(
    repo: Repo, wrap: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:  # fmt: skip
    source = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 4))
    put(repo, source.state_dict())
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 4))
    theta.load_into(wrap(module), FILE, repository=repo.path)
    assert torch.equal(module[0].weight, source[0].weight)
    assert torch.equal(module[1].bias, source[1].bias)


def test_a_checkpoint_of_a_wrapper_fits_the_wrapper(repo: Repo) -> None:
    source = torch.nn.Linear(4, 5)
    put(repo, torch.compile(source).state_dict())
    module = torch.nn.Linear(4, 5)
    theta.load_into(torch.compile(module), FILE, repository=repo.path)
    assert torch.equal(module.weight, source.weight)
    with pytest.raises(UsageError) as error:
        theta.load_into(module, FILE, repository=repo.path)
    assert error.value.hint == "prefix='_orig_mod.'"


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_modules(repo: Repo) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    source = torch.nn.Linear(4, 5)
    put(repo, source.state_dict())
    module = torch.nn.Linear(4, 5)
    theta.load_into(torch.nn.parallel.DistributedDataParallel(module), FILE, repository=repo.path)
    assert torch.equal(module.weight, source.weight)
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    module = torch.nn.Linear(4, 5)
    fully_shard(module, mesh=mesh)
    theta.load_into(module, FILE, repository=repo.path)
    assert torch.equal(module.weight.full_tensor(), source.weight)
    with pytest.raises(UsageError, match="a DTensor"):
        theta.commit({"w": module.weight}, FILE, message="x", repository=repo.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flat = FullyShardedDataParallel(torch.nn.Linear(4, 5), device_id=torch.device("cpu"))
    with pytest.raises(UsageError, match="FSDP1"):
        theta.load_into(flat, FILE, repository=repo.path)


def test_peft_is_refused_by_name(repo: Repo) -> None:
    peft = pytest.importorskip("peft")
    base = torch.nn.Sequential(torch.nn.Linear(4, 5))
    put(repo, base.state_dict())
    wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"]))
    for module in (wrapped, wrapped.base_model.model):
        for strict in (True, False):
            with pytest.raises(UsageError, match="wrapped by PEFT"):
                theta.load_into(module, FILE, strict=strict, repository=repo.path)


def test_nothing_is_copied_where_something_does_not_fit(repo: Repo) -> None:
    put(repo, {"weight": torch.ones(5, 4), "bias": torch.ones(6)})
    module = torch.nn.Linear(4, 5)
    before = module.weight.clone()
    with pytest.raises(UsageError, match=r"is \[6\] in"):
        theta.load_into(module, FILE, repository=repo.path)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.complex64, torch.bool])
def test_codes_are_not_taken_for_values(repo: Repo, dtype: torch.dtype) -> None:
    put(repo, {"weight": torch.ones(5, 4, dtype=dtype), "bias": torch.ones(5)})
    with pytest.raises(UsageError, match="would not be the same"):
        theta.load_into(torch.nn.Linear(4, 5), FILE, repository=repo.path)


def test_modules_that_cannot_be_filled(repo: Repo) -> None:
    put(repo, {"weight": torch.ones(5, 4), "bias": torch.ones(5)})
    with pytest.raises(UsageError, match="lazy module"):
        theta.load_into(torch.nn.LazyLinear(5), FILE, repository=repo.path)
    with pytest.raises(UsageError, match="no torch module"):
        theta.load_into({"weight": torch.ones(5, 4)}, FILE, repository=repo.path)
    with pytest.raises(UsageError, match="no tensors"):
        theta.load_into(torch.nn.ReLU(), FILE, strict=False, repository=repo.path)


# -- commit ----------------------------------------------------------------------------------------

_NATIVE = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32,
    torch.uint64, torch.bool, torch.complex64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", _NATIVE, ids=str)
def test_every_dtype_is_committed_to_the_bit(repo: Repo, dtype: torch.dtype) -> None:
    bits = torch.arange(48, dtype=torch.uint8) % (2 if dtype == torch.bool else 251)
    tensor = bits.view(dtype).reshape(-1, 2)
    for value in (tensor, tensor.t(), tensor[::2], tensor[0, 0], tensor[:0]):
        theta.commit({"t": value}, FILE, message="x", repository=repo.path)
        with theta.safe_open(FILE, framework="pt", repository=repo.path) as file:
            found = file.get_tensor("t")
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        raw = [one.contiguous().reshape(-1).view(torch.uint8) for one in (found, value)]
        assert torch.equal(*raw)


def test_gradients_views_and_shared_storage_do_not_matter(repo: Repo) -> None:
    base = torch.randn(6, 4, requires_grad=True)
    wave = torch.randn(3, dtype=torch.complex64)
    tensors = {
        "parameter": torch.nn.Parameter(torch.randn(3)), "leaf": base, "result": base * 2,
        "turned": base.t(), "part": base[1:3, ::2], "shared": base, "wide": base[:1].expand(5, 4),
        "conj": wave.conj(), "neg": wave.conj().imag,
        "bf16": base.bfloat16().t(),
    }  # fmt: skip
    theta.commit(tensors, FILE, message="x", repository=repo.path)
    with theta.safe_open(FILE, framework="pt", repository=repo.path) as file:
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor.detach()), name


def odd_tensors() -> dict[str, Any]:
    """Tensors that are more, or less, than their values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        jagged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
        csr = torch.eye(3).to_sparse_csr()
        half = torch.ones(2, dtype=torch.complex32)
    return {
        "sparse_coo": torch.eye(3).to_sparse(), "sparse_csr": csr, "quint8": quantised,
        "meta": torch.ones(2, device="meta"), "nested": nested, "jagged": jagged,
        "complex32": half,
        "bits8": torch.zeros(2, dtype=torch.uint8).view(torch.bits8),
        "float4_e2m1fn_x2": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    }  # fmt: skip


@pytest.mark.parametrize("what", list(odd_tensors()))
def test_other_tensors_are_refused_by_name(repo: Repo, what: str) -> None:
    tensor = odd_tensors()[what]
    with pytest.raises(UsageError, match="'odd'"):
        theta.commit({"odd": tensor}, FILE, message="x", repository=repo.path)


# -- reading ---------------------------------------------------------------------------------------


def test_safe_open_is_that_of_safetensors(repo: Repo) -> None:
    tensors = {
        "layers.10.w": torch.randn(4, 6), "layers.2.w": torch.randn(4, 6).bfloat16(),
        "b": torch.arange(5), "a": torch.zeros(2, 0), "s": torch.tensor(1.5),
        "f8": torch.randn(8).to(torch.float8_e4m3fn),
    }  # fmt: skip
    put(repo, tensors)
    with (
        theta.safe_open(FILE, framework="pt", repository=repo.path) as ours,
        safe_open(repo.path / FILE, framework="pt") as theirs,
    ):
        assert {one for one in dir(theirs) if not one.startswith("_")} <= set(dir(ours))
        assert ours.keys() == theirs.keys()
        assert ours.offset_keys() == theirs.offset_keys()
        assert ours.metadata() == theirs.metadata()
        found, wanted = ours.get_tensors(), theirs.get_tensors()
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name].float(), value.float())
            part = ours.get_slice(name)
            assert part.get_shape() == theirs.get_slice(name).get_shape()
            assert part.get_dtype() == theirs.get_slice(name).get_dtype()
        for index in (np.s_[1:3], np.s_[:, ::2], np.s_[-1], np.s_[..., 0]):
            whole = theirs.get_slice("layers.2.w")[index]
            assert torch.equal(ours.get_slice("layers.2.w")[index], whole)
        assert torch.equal(ours.get_slice("b")[::-1], torch.arange(5).flip(0))
