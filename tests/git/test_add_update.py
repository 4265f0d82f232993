"""`git theta add FILE --update ADAPTER`, with adapters that PEFT itself saved and merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.manifest import Manifest
from tests import torchzip
from tests.checkpoints import model, safetensors
from tests.conftest import Repo

GOLDEN = Path(__file__).parents[1] / "golden" / "peft"
FILE = "model.safetensors"


def kinds(repo: Repo, spec: str = f"HEAD:{FILE}") -> dict[str, str]:
    """The last update of every tensor."""
    entries = Manifest.parse(repo.blob(spec)).entries
    return {e.tensor.name: e.blocks[0].chain[-1].kind if e.blocks[0].chain else "inline"
            for e in entries}  # fmt: skip


def raw_tensors(path: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a safetensors file; NumPy has no bfloat16 of its own."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    spans = {name: one["data_offsets"] for name, one in header.items()}
    return {name: data[start + first : start + last] for name, (first, last) in spans.items()}


def begin(repo: Repo, data: bytes, name: str = FILE) -> None:
    def make() -> None:
        repo.write(name, data)
        repo.commit("Add the model")

    repo.once(make, data, name)


def lora(width: int = 64, rank: int = 4, seed: int = 3) -> dict[str, Any]:
    """Factors for every query of `tests.checkpoints.model`, named as PEFT names them."""
    random = np.random.default_rng(seed)
    found = {}
    for layer in range(3):
        stem = f"base_model.model.encoder.layer.{layer}.attention.query"
        found[f"{stem}.lora_A.weight"] = random.normal(0, 0.1, (rank, width)).astype(np.float32)
        found[f"{stem}.lora_B.weight"] = random.normal(0, 0.1, (width, rank)).astype(np.float32)
    return found


def adapter(repo: Repo, tensors: dict[str, Any], **config: object) -> str:
    """A PEFT folder outside the work tree; its path."""
    folder = repo.path.parent / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.parametrize("case", ["lora-bf16", "lora-bias-fp16", "ia3-bf16"])
def test_the_result_is_to_the_bit_what_peft_merges(repo: Repo, case: str) -> None:
    begin(repo, (GOLDEN / case / "base.safetensors").read_bytes())
    repo.theta("add", FILE, "--update", str(GOLDEN / case))
    assert raw_tensors(repo.path / FILE) == raw_tensors(GOLDEN / case / "merged.safetensors")


def test_float32_products_agree_to_their_last_bits(repo: Repo) -> None:
    case = GOLDEN / "lora-fp32"
    begin(repo, (case / "base.safetensors").read_bytes())
    said = repo.theta("add", FILE, "--update", str(case))
    assert "last bit of the product may differ" in said
    merged = raw_tensors(case / "merged.safetensors")
    for name, data in raw_tensors(repo.path / FILE).items():
        found, wanted = (np.frombuffer(side, np.float32) for side in (data, merged[name]))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-7)


def test_the_commit_stores_the_factors_and_git_finds_nothing_to_do(repo: Repo) -> None:
    begin(repo, safetensors(model()))
    said = repo.theta("add", FILE, "--update", adapter(repo, lora()))
    assert "lora, 3 modules, rank 4" in said
    assert repo.status() == f"M  {FILE}\n"
    repo.git("commit", "-q", "-m", "Tune")
    assert repo.status() == ""
    found = kinds(repo)
    for layer in range(3):
        assert found[f"encoder.layer.{layer}.attention.query.weight"] == "low-rank"
        assert found[f"encoder.layer.{layer}.attention.value.weight"] == "dense"
    updated = (repo.path / FILE).read_bytes()
    before = repo.blob(f"HEAD:{FILE}")
    (repo.path / FILE).touch()
    repo.git("add", FILE)
    assert repo.blob(f":{FILE}") == before
    repo.git("checkout", "-q", "HEAD~1")
    assert (repo.path / FILE).read_bytes() == safetensors(model())
    repo.git("checkout", "-q", "main")
    assert (repo.path / FILE).read_bytes() == updated


def test_a_change_far_below_an_ulp_is_kept_as_its_factors(repo: Repo) -> None:
    """Where nothing could be found in the values, the adapter still says what happened."""
    tensors = {name: value.astype(ml_dtypes.bfloat16) if value.dtype == np.float32 else value
               for name, value in model(width=128).items()}  # fmt: skip
    begin(repo, safetensors(tensors))
    small = {name: value * 0.1 for name, value in lora(128).items()}
    repo.theta("add", FILE, "--update", adapter(repo, small))
    assert kinds(repo, f":{FILE}")["encoder.layer.0.attention.query.weight"] == "low-rank"


def test_a_dry_run_prints_the_cost_of_every_tensor_and_changes_nothing(repo: Repo) -> None:
    begin(repo, safetensors(model()))
    store = repo.path / ".git" / "theta"

    def state() -> tuple[object, ...]:
        files = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
        return files, repo.blob(f":{FILE}"), (repo.path / FILE).stat().st_mtime_ns

    before = state()
    folder = adapter(repo, lora())
    said = repo.theta("add", FILE, "--update", folder, "--dry-run")
    assert "encoder.layer.2.attention.query.weight  F32 [64, 64]  low-rank  rank=4" in said
    assert "3 tensors would change" in said
    told = json.loads(repo.theta("add", FILE, "--update", folder, "-n", "--json"))
    assert [one["updates"] for one in told["tensors"]] == [["low-rank"]] * 3
    assert told["stored"] == sum(one["stored"] for one in told["tensors"])
    assert state() == before
    repo.theta("add", FILE, "--update", folder)
    staged = Manifest.parse(repo.blob(f":{FILE}")).entries
    sizes = [e.blocks[0].chain[-1].size for e in staged if e.tensor.name.endswith("query.weight")]
    assert sum(sizes) == told["stored"]


def test_scaling_follows_the_configuration(repo: Repo) -> None:
    tensors = model()
    name = "encoder.layer.1.attention.query.weight"
    factors = lora()
    stem = "base_model.model.encoder.layer.1.attention.query"
    product = factors[f"{stem}.lora_B.weight"].astype(np.float64) @ factors[f"{stem}.lora_A.weight"]
    begin(repo, safetensors(tensors))
    for config, scaling in [
        ({"lora_alpha": 6}, 1.5),
        ({"lora_alpha": 6, "use_rslora": True}, 3.0),
        ({"lora_alpha": 6, "alpha_pattern": {r"layer\.1\.attention\.query": 20}}, 5.0),
    ]:
        repo.theta("add", FILE, "--update", adapter(repo, factors, **config))
        found = np.frombuffer(raw_tensors(repo.path / FILE)[name], np.float32).reshape(64, 64)
        wanted = tensors[name] + product.astype(np.float32) * np.float32(scaling)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-7)
        repo.git("reset", "-q", "--hard")


def test_names_may_have_one_prefix_more_or_less(repo: Repo) -> None:
    begin(repo, safetensors({f"bert.{name}": value for name, value in model().items()}))
    repo.theta("add", FILE, "--update", adapter(repo, lora()))
    assert kinds(repo, f":{FILE}")["bert.encoder.layer.0.attention.query.weight"] == "low-rank"
    repo.git("reset", "-q", "--hard")
    longer = {name.replace("model.encoder", "model.wrapped.bert.encoder"): value
              for name, value in lora().items()}  # fmt: skip
    repo.theta("add", FILE, "--update", adapter(repo, longer))
    assert repo.status() == f"M  {FILE}\n"


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_sparse_updates_replace_or_add_entries(repo: Repo, mode: str) -> None:
    tensors = model()
    begin(repo, safetensors(tensors))
    name, bias = "encoder.layer.0.attention.query.weight", "encoder.layer.0.attention.query.bias"
    values = np.array([1.5, -2.0, 0.25], np.float32)
    update = {
        f"{name}.indices": np.array([[63, 1], [0, 5], [7, 7]], np.int64),
        f"{name}.values": values,
        f"{bias}.indices": np.array([9, 3], np.int32),
        f"{bias}.values": np.array([4, 5], np.float16),
    }
    path = repo.path.parent / "sparse.safetensors"
    path.write_bytes(safetensors(update, {"mode": mode}))
    repo.theta("add", FILE, "--update", str(path))
    wanted = {key: value.copy() for key, value in tensors.items()}
    for (row, column), value in zip(update[f"{name}.indices"], values, strict=True):
        wanted[name][row, column] = value + (wanted[name][row, column] if mode == "add" else 0)
    for place, number in ((9, 4), (3, 5)):
        wanted[bias][place] = number + (wanted[bias][place] if mode == "add" else 0)
    assert (repo.path / FILE).read_bytes() == safetensors(wanted)
    assert kinds(repo, f":{FILE}")[name] == "sparse"


def test_a_pytorch_file_is_updated_in_its_own_container(repo: Repo) -> None:
    def checkpoint(weight: np.ndarray) -> bytes:
        storage = torchzip.Storage("0", count=weight.size)
        value = torchzip.state_dict({"layer.weight": torchzip.tensor(storage, weight.shape)})
        return torchzip.save(value, {"0": weight.tobytes()})

    random = np.random.default_rng(0)
    weight = random.normal(0, 0.1, (64, 64)).astype(np.float32)
    down, up = (np.rint(random.normal(0, 4, shape)).astype(np.float32) / 64
                for shape in ((4, 64), (64, 4)))  # fmt: skip
    begin(repo, checkpoint(weight), "model.pt")
    folder = adapter(repo, {"base_model.model.layer.lora_A.weight": down,
                            "base_model.model.layer.lora_B.weight": up}, lora_alpha=4)  # fmt: skip
    repo.theta("add", "model.pt", "--update", folder)
    assert (repo.path / "model.pt").read_bytes() == checkpoint(weight + up @ down)


REFUSED = [
    ({"use_dora": True}, {}, "use_dora is set"),
    ({}, {"base_model.model.x.lora_magnitude_vector": np.ones(4, np.float32)}, "DoRA"),
    ({"init_lora_weights": "pissa_niter_4"}, {}, "also changed the base model"),
    ({"peft_type": "LOHA"}, {}, "of type loha"),
    ({"lora_alpha": None}, {}, "lora_alpha is None"),
    ({"alpha_pattern": {"(a)\\1$": 3}}, {}, "is not accepted"),
    ({}, {"base_model.model.nowhere.lora_A.weight": np.ones((4, 8), np.float32),
          "base_model.model.nowhere.lora_B.weight": np.ones((8, 4), np.float32)},
     "has no such tensor"),
    ({}, {"base_model.model.head.lora_A.weight": np.ones((4, 8), np.float32),
          "base_model.model.head.lora_B.weight": np.ones((8, 4), np.float32)}, "do not fit tensor"),
    ({}, {"base_model.model.head.lora_A.weight": np.ones((4, 64), np.float32)}, "has no lora_B"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "extra", "message"), REFUSED)
def test_what_cannot_be_applied_exactly_is_refused_and_nothing_changes(
    repo: Repo, config: dict[str, Any], extra: dict[str, Any], message: str
) -> None:
    begin(repo, safetensors(model()))
    folder = adapter(repo, {**lora(), **extra}, **config)
    done = repo.run("git", "theta", "add", FILE, "--update", folder, ok=(2,))
    assert message in done.stderr.decode()
    assert repo.status() == ""
    assert (repo.path / FILE).read_bytes() == safetensors(model())


def test_what_is_not_committed_is_never_overwritten(repo: Repo) -> None:
    folder = adapter(repo, lora())
    repo.write(FILE, safetensors(model()))
    done = repo.run("git", "theta", "add", FILE, "--update", folder, ok=(2,))
    assert "is not in HEAD" in done.stderr.decode()
    repo.commit("Add the model")
    edited = safetensors(model(seed=1))
    repo.write(FILE, edited)
    done = repo.run("git", "theta", "add", FILE, "--update", folder, ok=(2,))
    assert "not committed" in done.stderr.decode()
    assert (repo.path / FILE).read_bytes() == edited


def test_a_file_that_is_no_adapter_is_told(repo: Repo) -> None:
    begin(repo, safetensors(model()))
    other = repo.path.parent / "other.safetensors"
    other.write_bytes(safetensors(model(seed=1)))
    for path, message in [(other, "is no adapter"), (repo.path.parent / "none", "cannot be read"),
                          (repo.path.parent, "holds neither")]:  # fmt: skip
        done = repo.run("git", "theta", "add", FILE, "--update", str(path), ok=(2,))
        assert message in done.stderr.decode()
    zero = {name: np.zeros_like(value) for name, value in lora().items()}
    done = repo.run("git", "theta", "add", FILE, "--update", adapter(repo, zero), ok=(2,))
    assert "changes no byte" in done.stderr.decode()


SPARSE = [
    ({"indices": [5, 5], "values": [1, 2]}, "names an entry twice"),
    ({"indices": [4096], "values": [1]}, "outside shape"),
    ({"indices": [-1], "values": [1]}, "outside shape"),
    ({"indices": [1, 2], "values": [1]}, "2 indices and 1 values"),
]


@pytest.mark.parametrize(("update", "message"), SPARSE)
def test_sparse_updates_that_do_not_fit_are_refused(
    repo: Repo, update: dict[str, list[int]], message: str
) -> None:
    begin(repo, safetensors(model()))
    name = "encoder.layer.0.attention.query.weight"
    path = repo.path.parent / "sparse.safetensors"
    path.write_bytes(safetensors({
        f"{name}.indices": np.array(update["indices"], np.int64),
        f"{name}.values": np.array(update["values"], np.float32),
    }))  # fmt: skip
    done = repo.run("git", "theta", "add", FILE, "--update", str(path), ok=(2,))
    assert message in done.stderr.decode()
    assert repo.status() == ""
