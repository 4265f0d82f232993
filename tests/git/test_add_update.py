"""`git theta add FILE --update ADAPTER`, with adapters that PEFT itself saved and merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios import torchzip
from tests.scenarios.adapters import adapter, lora
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

GOLDEN = Path(__file__).parents[1] / "golden" / "peft"
FILE = "model.safetensors"


def kinds(repo: Repo, spec: str = f"HEAD:{FILE}") -> dict[str, str]:
    """The last update of every tensor."""
    entries = parse_manifest(repo.blob(spec)).entries
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


@pytest.mark.parametrize("case", ["lora-bf16", "lora-bias-fp16", "ia3-bf16", "ia3-conv"])
def test_the_result_is_to_the_bit_what_peft_merges(repo: Repo, case: str) -> None:
    begin(repo, (GOLDEN / case / "base.safetensors").read_bytes())
    repo.theta("add", FILE, "--update", str(GOLDEN / case))
    assert raw_tensors(repo.path / FILE) == raw_tensors(GOLDEN / case / "merged.safetensors")


def test_float32_products_agree_to_their_last_bits(repo: Repo) -> None:
    case = GOLDEN / "lora-fp32"
    begin(repo, (case / "base.safetensors").read_bytes())
    said = repo.theta("add", FILE, "--update", str(case))
    assert "values may differ in their last bits from a merge by PEFT" in said
    merged = raw_tensors(case / "merged.safetensors")
    for name, data in raw_tensors(repo.path / FILE).items():
        found, wanted = (np.frombuffer(side, np.float32) for side in (data, merged[name]))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    "case", ["lora-embeddings", "lora-bias-all", "lora-bias-only", "lora-tokens", "tokens"]
)
def test_every_tensor_of_the_adapter_takes_effect(repo: Repo, case: str) -> None:
    """Base layers beside their factors, biases, heads under several names, trained tokens."""
    folder = GOLDEN / case
    base, merged = (raw_tensors(folder / f"{name}.safetensors") for name in ("base", "merged"))
    begin(repo, (folder / "base.safetensors").read_bytes())
    repo.theta("add", FILE, "--update", str(folder))
    found = raw_tensors(repo.path / FILE)
    assert found.keys() == merged.keys() == base.keys()
    assert {name for name in base if merged[name] != base[name]} == {
        name for name in base if found[name] != base[name]
    }
    wide = ml_dtypes.bfloat16 if case == "lora-tokens" else np.float32
    for name, data in found.items():
        ours, theirs = (np.frombuffer(side, wide).astype(float) for side in (data, merged[name]))
        np.testing.assert_allclose(ours, theirs, rtol=8e-3 if case == "lora-tokens" else 0,
                                   atol=4e-7)  # fmt: skip


def embeddings(rank: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model with an untied head, and factors of its embedding and head, as PEFT names them."""
    random = np.random.default_rng(8)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, 1, shape).astype(np.float32)

    tensors = {"model.embed_tokens.weight": normal(24, 8), "lm_head.weight": normal(24, 8),
               "model.norm.weight": normal(8)}  # fmt: skip
    factors = {
        "base_model.model.model.embed_tokens.lora_embedding_A": normal(rank, 24),
        "base_model.model.model.embed_tokens.lora_embedding_B": normal(8, rank),
    }
    return tensors, factors


def test_a_new_base_layer_comes_first_and_its_factors_after(repo: Repo) -> None:
    tensors, factors = embeddings()
    new = tensors["model.embed_tokens.weight"] + 1
    factors["base_model.model.model.embed_tokens.base_layer.weight"] = new
    begin(repo, safetensors(tensors))
    repo.theta("add", FILE, "--update", adapter(repo, factors, r=2, lora_alpha=2))
    found = np.frombuffer(raw_tensors(repo.path / FILE)["model.embed_tokens.weight"], np.float32)
    down, up, _ = factors.values()
    np.testing.assert_allclose(found.reshape(24, 8), new + (up @ down).T, rtol=0, atol=2e-6)


def head(factors: dict[str, Any], other: bool = False) -> dict[str, Any]:
    """Factors of the head that are those of the embedding, or others."""
    down, up = list(factors.values())[:2]
    shift = np.float32(other)
    stem = "base_model.model.lm_head"
    return {f"{stem}.lora_A.weight": up.T.copy() + shift, f"{stem}.lora_B.weight": down.T.copy()}


@pytest.mark.parametrize("kept", ["lm_head.weight", "model.embed_tokens.weight"])
def test_tied_weights_are_changed_once_or_refused(repo: Repo, kept: str) -> None:
    tensors, factors = embeddings()
    there = {kept: tensors[kept], "model.norm.weight": tensors["model.norm.weight"]}
    begin(repo, safetensors(there))
    folder = adapter(repo, {**factors, **head(factors)}, r=2, lora_alpha=2)
    assert "are tied, one tensor here" in repo.theta("add", FILE, "--update", folder)
    down, up = factors.values()
    found = np.frombuffer(raw_tensors(repo.path / FILE)[kept], np.float32).reshape(24, 8)
    np.testing.assert_allclose(found, there[kept] + (up @ down).T, rtol=0, atol=2e-6)
    repo.git("reset", "-q", "--hard")
    alone = factors if kept == "lm_head.weight" else head(factors)
    for parts, message in (
        ({**factors, **head(factors, other=True)}, "in another way than what it is tied to"),
        (alone, "(they are tied): both would change"),
    ):
        done = repo.run("git", "theta", "add", FILE, "--update",
                        adapter(repo, parts, r=2, lora_alpha=2), ok=(2,))  # fmt: skip
        assert message in done.stderr.decode()
        assert repo.status() == ""


def test_parts_that_share_memory_are_not_left_out(repo: Repo) -> None:
    """Of two names of one storage a PyTorch file gives the first alone."""
    begin(repo, safetensors(model()))
    folder = Path(adapter(repo, {}))
    (folder / "adapter_model.safetensors").unlink()
    storage = torchzip.Storage("0", count=4 * 64)
    down, up = (torchzip.tensor(storage, shape) for shape in ((4, 64), (64, 4)))
    names = {f"{QUERY}.lora_A.weight": down, f"{QUERY}.lora_B.weight": up}
    data = torchzip.save(torchzip.state_dict(names), {"0": np.ones(256, np.float32).tobytes()})
    (folder / "adapter_model.bin").write_bytes(data)
    done = repo.run("git", "theta", "add", FILE, "--update", str(folder), ok=(2,))
    assert "shares its memory with" in done.stderr.decode()
    assert repo.status() == ""


def test_a_head_that_may_be_tied_is_told(repo: Repo) -> None:
    tensors, factors = embeddings()
    del tensors["lm_head.weight"]
    begin(repo, safetensors(tensors))
    said = repo.theta("add", FILE, "--update", adapter(repo, factors, r=2, lora_alpha=2))
    assert "ties its head to 'model.embed_tokens.weight', the head changes too" in said


def test_prompts_and_foreign_layouts_are_named(repo: Repo) -> None:
    begin(repo, safetensors(model()))
    for tensors, config, message in (
        ({"prompt_embeddings": np.ones((3, 8), np.float32)}, "PROMPT_TUNING", "(prompt tuning)"),
        ({"lora_unet_a.lora_down.weight": np.ones((3, 8), np.float32)}, None, "of kohya's"),
        ({"model.a.lora_a": np.ones((3, 8), np.float32)}, None, "of MLX"),
    ):
        folder = adapter(repo, tensors, peft_type=config)
        done = repo.run("git", "theta", "add", FILE, "--update", folder, ok=(2,))
        assert message in done.stderr.decode()


def test_a_head_of_the_same_bytes_that_stays_is_told(repo: Repo) -> None:
    tensors, factors = embeddings()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    begin(repo, safetensors(tensors))
    said = repo.theta("add", FILE, "--update", adapter(repo, factors, r=2, lora_alpha=2))
    assert "'lm_head.weight' has the bytes that 'model.embed_tokens.weight' had" in said


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "model-*-of-*.safetensors"])
def test_an_adapter_of_a_sharded_model_changes_every_shard(repo: Repo, name: str) -> None:
    tensors = model()
    names = sorted(tensors)
    parts = {f"model-0000{number}-of-00003.safetensors": names[number - 1 :: 3]
             for number in (1, 2, 3)}  # fmt: skip
    for file, held in parts.items():
        repo.write(file, safetensors({one: tensors[one] for one in held}))
    places = {one: file for file, held in parts.items() for one in held}
    repo.write("model.safetensors.index.json", json.dumps({"weight_map": places}).encode())
    repo.commit("Add the model")
    folder = adapter(repo, lora())
    first = next(iter(parts))
    done = repo.run("git", "theta", "add", first, "--update", folder, ok=(2,))
    assert f"{first} is one shard of a model" in done.stderr.decode()
    assert "git theta add 'model-*-of-*.safetensors'" in done.stderr.decode()
    assert repo.status() == ""
    assert "3 tensors changed" in repo.theta("add", name, "--update", folder)
    changed = {one for file, held in parts.items() for one in held
               if raw_tensors(repo.path / file)[one] != tensors[one].tobytes()}  # fmt: skip
    assert changed == {f"encoder.layer.{layer}.attention.query.weight" for layer in range(3)}
    staged = {places[one] for one in changed}
    assert repo.status() == "".join(f"M  {file}\n" for file in sorted(staged))
    repo.git("commit", "-q", "-m", "Tune")
    assert repo.status() == ""


def test_sums_that_leave_the_range_are_refused(repo: Repo) -> None:
    name = "encoder.layer.0.attention.query.weight"
    tensors = {key: value.astype(np.float16) if key == name else value
               for key, value in model().items()}  # fmt: skip
    tensors[name][3, 5] = 65504
    begin(repo, safetensors(tensors))
    factors = {key: value * 0 + 9 for key, value in lora().items()}
    done = repo.run("git", "theta", "add", FILE, "--update", adapter(repo, factors), ok=(2,))
    assert f"1 value of tensor '{name}' infinite or NaN (F16)" in done.stderr.decode()
    assert repo.status() == ""


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
    staged = parse_manifest(repo.blob(f":{FILE}")).entries
    sizes = [e.blocks[0].chain[-1].nbytes for e in staged if e.tensor.name.endswith("query.weight")]
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


def rows(count: int = 1) -> dict[str, Any]:
    name = "base_model.model.encoder.layer.0.attention.value.token_adapter.trainable_tokens_delta"
    return {name: np.ones((count, 64), np.float32)}


QUERY = "base_model.model.encoder.layer.0.attention.query"
SAVED = "base_model.model.encoder.layer.0.attention.value"
REFUSED = [
    ({"peft_type": "ROAD"}, {}, "(RoAd)"),
    ({"peft_type": "XLORA"}, {}, "(X-LoRA)"),
    ({"peft_type": "NEWEST"}, {}, "of type newest"),
    ({"peft_type": "IA3"}, {}, "of type ia3, not lora"),
    ({"alora_invocation_tokens": [1]}, {}, "alora_invocation_tokens is set"),
    ({"init_lora_weights": "newest"}, {}, "sets init_lora_weights to 'newest'"),
    ({"use_newest": True}, {}, "sets use_newest to True, which is not known here"),
    ({"bias": "newest"}, {}, "sets bias to 'newest'"),
    ({"r": 8}, {}, "factors of rank 4, and adapter_config.json says rank 8"),
    ({"rank_pattern": {"query": 2}}, {}, "says rank 2"),
    ({}, {f"{QUERY}.ia3_l": np.ones((64, 1), np.float32)}, "has ia3_l, which is not of"),
    ({}, {f"{QUERY}.lora_embedding_A": np.ones((4, 64), np.float32),
          f"{QUERY}.lora_embedding_B": np.ones((64, 4), np.float32)}, "factors of two kinds"),
    ({}, {f"{SAVED}.lora_A.one.weight": np.ones((4, 64), np.float32),
          f"{SAVED}.lora_B.two.weight": np.ones((64, 4), np.float32)}, "holds several adapters"),
    ({}, {f"{SAVED}.weight": np.ones((64, 64), np.float32),
          f"{SAVED}.modules_to_save.weight": np.zeros((64, 64), np.float32)}, "two versions of"),
    ({}, {f"{SAVED}.original_module.weight": np.ones((64, 64), np.float32)}, "no trained copy"),
    ({}, rows(), "do not say which"),
    ({"trainable_token_indices": [1, 1]}, rows(2), "twice"),
    ({"trainable_token_indices": [1, 2]}, rows(), "does not fit 2 tokens"),
    ({"trainable_token_indices": [1 << 20]}, rows(), "trains token 1048576"),
    ({"trainable_token_indices": {"other": [1]}}, rows(), "trainable_token_indices names 'other'"),
    ({"use_dora": True}, {}, "do not agree on whether it is DoRA"),
    ({}, {"base_model.model.x.lora_magnitude_vector": np.ones(4, np.float32)},
     "has no lora_A"),
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
