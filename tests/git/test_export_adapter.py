"""`git theta export A..B --to peft|ia3|sparse|diff`: a commit leaves, and comes back."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.packages.base_file import parse_base
from git_theta_ext.packages.identity import identity_of
from git_theta_ext.packages.locking.lock_file import LockedModel, lock_text
from tests.scenarios.adapters import adapter
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, awkward, model, safetensors
from tests.scenarios.containers import gguf
from tests.scenarios.repositories import Repo

Arrays = dict[str, np.ndarray[Any, Any]]
PREFIX = "base_model.model."


def gpt() -> Arrays:
    """A layer of each kind that PEFT knows; one in bfloat16, and a norm."""
    random = np.random.default_rng(5)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return random.normal(0, 0.05, shape).astype(np.float32)

    return {
        "wte.weight": normal(96, 48),
        "h.0.attn.c_attn.weight": normal(48, 144),
        "h.0.attn.c_attn.bias": normal(144),
        "h.0.attn.c_proj.weight": normal(48, 48),
        "h.0.attn.c_proj.bias": normal(48),
        "h.0.mlp.up.weight": normal(96, 48).astype(ml_dtypes.bfloat16),
        "h.0.ln.weight": normal(48),
        "h.0.ln.bias": normal(48),
        "patch.weight": normal(40, 4, 3, 3),
    }


def factors(seed: int, rank: int = 3) -> Arrays:
    """What a trainer saves for these layers; inputs and outputs by PEFT's rules."""
    random = np.random.default_rng(seed)

    def pair(module: str, inputs: Any, outputs: Any, ends: tuple[str, str]) -> Arrays:
        down, up = (rank, *inputs), (outputs, rank, *(1 for _ in inputs[1:]))
        return {
            f"{PREFIX}{module}.{ends[0]}": random.normal(0, 0.05, down).astype(np.float32),
            f"{PREFIX}{module}.{ends[1]}": random.normal(0, 0.05, up).astype(np.float32),
        }

    linear = ("lora_A.weight", "lora_B.weight")
    return {
        **pair("h.0.attn.c_attn", (48,), 144, linear),
        **pair("h.0.attn.c_proj", (48,), 48, linear),
        **pair("h.0.mlp.up", (48,), 96, linear),
        **pair("patch", (4, 3, 3), 40, linear),
        **pair("wte", (96,), 48, ("lora_embedding_A", "lora_embedding_B")),
    }


def begin(repo: Repo, tensors: Arrays) -> None:
    repo.write(NAME, safetensors(tensors))
    repo.commit("Add the model")
    repo.git("tag", "v1")


def supply(repo: Repo, tag: str, tensors: Arrays, **config: object) -> None:
    repo.theta("add", NAME, "--update", adapter(repo, tensors, **config))
    repo.git("commit", "-q", "-m", tag)
    repo.git("tag", tag)


def trained(repo: Repo) -> None:
    begin(repo, gpt())
    manifest = parse_manifest(repo.blob(f"HEAD:{NAME}"))
    content = ((NAME, identity_of([manifest])),)
    locked = LockedModel("base", "https://host/base", "v1", None, (), "models/base", None, "0" * 40,
                         content)  # fmt: skip
    repo.write("theta.lock", lock_text([locked]))
    repo.commit("Lock")
    supply(repo, "v2", factors(1), r=3, lora_alpha=7, fan_in_fan_out=True)


def comes_back(repo: Repo, path: Path, base: str = "v1", wanted: str = "v2") -> str:
    """Apply what was exported to the old version: it must be the new one. What that says."""
    repo.git("checkout", "-q", base)
    said = repo.theta("add", NAME, "--update", str(path))
    staged = (repo.path / NAME).read_bytes()
    repo.git("reset", "-q", "--hard")
    repo.git("checkout", "-q", wanted)
    assert staged == (repo.path / NAME).read_bytes()
    # Of the same bytes the index has another manifest, which stays.
    (repo.path / NAME).touch()
    assert repo.git("diff", "--name-only") == ""
    return said


def test_a_trainer_s_adapter_comes_back_to_the_bit(repo: Repo) -> None:
    trained(repo)
    out = repo.path.parent / "out"
    said = repo.theta("export", "v1..v2", "--to", "peft", "-o", str(out), "--base-model", "org/gpt")
    assert "lora, 5 modules, rank 3" in said
    found, wanted = load_file(out / "adapter_model.safetensors"), factors(1)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        same = found[name].shape == array.shape and found[name].tobytes() == array.tobytes()
        assert same or ".up." in name, name  # of 16-bit weights in the precision that pays
    config = json.loads((out / "adapter_config.json").read_text())
    scaling = {config["lora_alpha"] / config["r"], *config["alpha_pattern"].values()}
    assert 7 / 3 in scaling
    assert config["fan_in_fan_out"] is True
    assert config["base_model_name_or_path"] == "org/gpt"
    base = parse_base((out / "theta_base.json").read_bytes())
    assert (base.version, base.path) == ("v1", NAME)
    assert base.identity == identity_of([parse_manifest(repo.blob(f"v1:{NAME}"))])
    said = repo.theta("export", "v1..v2", "--to", "peft", "-o", str(out), "--json")
    assert json.loads(said)["base_model"] == "models/base"  # the folder that theta.lock has it in
    assert config["target_modules"] == ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.up",
                                        "patch", "wte"]  # fmt: skip
    assert (out / "corrections.safetensors").exists()
    assert "entries are taken from corrections.safetensors" in comes_back(repo, out)
    # Factors that are not those, or another version: the entries would be wrong.
    repo.git("checkout", "-q", "v2")
    said = repo.theta("add", NAME, "--update", str(out), "--dry-run")
    assert "corrections.safetensors is for another version than this one: it is left out" in said
    model_file = out / "adapter_model.safetensors"
    model_file.write_bytes(model_file.read_bytes().replace(b'"pt"', b'"np"'))
    repo.git("checkout", "-q", "v1")
    said = repo.theta("add", NAME, "--update", str(out), "--dry-run")
    assert "corrections.safetensors is of another adapter, or this one was changed" in said


def test_commits_join_and_what_does_not_fit_is_refused_or_kept_whole(repo: Repo) -> None:
    begin(repo, gpt())
    supply(repo, "v2", factors(1), r=3, lora_alpha=7, fan_in_fan_out=True)
    supply(repo, "v3", factors(2, rank=2), r=2, lora_alpha=2, fan_in_fan_out=True)
    tensors = dict(load_bf16(repo))
    tensors["h.0.ln.weight"] = tensors["h.0.ln.weight"] + np.float32(1)
    tensors["h.0.ln.bias"] = tensors["h.0.ln.bias"] + np.float32(1)
    tensors["h.0.attn.c_proj.bias"] = tensors["h.0.attn.c_proj.bias"] * np.float32(2)
    random = np.random.default_rng(9)
    tensors["wte.weight"] = random.normal(0, 0.05, (96, 48)).astype(np.float32)
    repo.write(NAME, safetensors(tensors))
    repo.commit("Train on")
    repo.git("tag", "v4")
    out = repo.path.parent / "out"
    said = repo.theta("export", "v1..v3", "--to", "peft", "-o", str(out))
    assert "rank 5" in said
    ask = ("export", "v1..v4", "--to", "peft", "-o", str(out))
    refused = repo.run("git", "theta", *ask, ok=(2,)).stderr.decode()
    assert "2 changed tensors cannot be in a LoRA" in refused
    assert "h.0.ln.weight: it is no weight of a linear layer" in refused
    assert "wte.weight: its update is not of low rank" in refused
    assert "--rank 16" in refused
    assert "--rest modules-to-save" in refused
    every = repo.path.parent / "FILE"
    do(repo, only(refused, "--to sparse"), FILE=str(every))
    comes_back(repo, every, wanted="v4")
    near = repo.run("git", "theta", *ask, "--tolerance", "0.01", ok=(2,)).stderr.decode()
    assert "no factors are within 0.01" in near
    said = repo.theta(*ask, "--rest", "modules-to-save", "--json")
    record = json.loads(said)
    assert record["modules_to_save"] == ["h.0.ln", "wte"]
    assert record["biases"] == ["h.0.attn.c_proj.bias"]
    ranks = {one["name"]: one["rank"] for one in record["modules"]}
    assert ranks == dict.fromkeys(("h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.up", "patch"), 5)
    assert all(one["relative"] < 0.05 for one in record["modules"])
    held = load_file(out / "adapter_model.safetensors")
    assert np.array_equal(held[f"{PREFIX}h.0.ln.weight"], tensors["h.0.ln.weight"])
    assert f"{PREFIX}h.0.attn.c_proj.base_layer.bias" in held
    print("STATUS", repo.status(), repo.git("diff", "--stat"), repo.theta("diff"))
    repo.git("checkout", "-q", "v1")
    repo.theta("add", NAME, "--update", str(out))
    for name, array in load_bf16(repo).items():
        np.testing.assert_allclose(array.astype(float), tensors[name].astype(float), atol=1e-3)


def load_bf16(repo: Repo) -> Arrays:
    """The tensors of the work tree's checkpoint."""
    return dict(load_file(repo.path / NAME))


def test_a_full_rank_change_is_fitted_to_the_rank_that_is_asked_for(repo: Repo) -> None:
    tensors = model()
    begin(repo, tensors)
    name = "encoder.layer.0.attention.query.weight"
    random = np.random.default_rng(1)
    left, _, right = np.linalg.svd(random.normal(0, 1, (64, 64)))
    values = np.full(64, 0.01)
    change = (left * values) @ right
    repo.write(NAME, safetensors({**tensors, name: (tensors[name] + change).astype(np.float32)}))
    repo.commit("Train")
    repo.git("tag", "v2")
    out = str(repo.path.parent / "out")
    for option, value, rank in (("--tolerance", "0.9", 13), ("--rank", "2", 2)):
        ask = ("export", "v1..v2", "--to", "peft", "-o", out, option, value, "--json")
        (one,) = json.loads(repo.theta(*ask))["modules"]
        assert one["rank"] == rank
        assert one["factors"] == "fitted"
        energy = np.sqrt(np.square(change - (left[:, :rank] * values[:rank]) @ right[:rank]).sum())
        assert one["relative"] == pytest.approx(energy / np.sqrt(np.square(change).sum()), rel=0.05)


def altered(tensors: Arrays, seed: int = 3) -> Arrays:
    """Some entries of every tensor become others: any bits."""
    random = np.random.default_rng(seed)
    found = {}
    for name, array in tensors.items():
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).copy()
        if array.dtype == np.bool_:
            flat[:2] ^= 1
        elif len(flat):
            where = random.integers(0, len(flat), max(1, len(flat) // 7))
            flat[where] = random.integers(0, 256, len(where))
            flat[0] ^= 1
        found[name] = flat.view(array.dtype).reshape(array.shape)
    return found


@pytest.mark.parametrize("kind", ["sparse", "diff"])
def test_any_change_comes_back_from_entries_and_differences(repo: Repo, kind: str) -> None:
    def make() -> None:
        begin(repo, {**awkward(), **model()})
        repo.write(NAME, safetensors(altered({**awkward(), **model()})))
        repo.commit("Change everything")
        repo.git("tag", "v2")

    repo.once(make)
    out = repo.path.parent / "out.safetensors"
    said = repo.theta("export", "v1..v2", "--to", kind, "-o", str(out))
    assert said.rstrip().endswith("exact")
    comes_back(repo, out)
    if kind == "diff":
        with safe_open(out, "numpy") as held:
            assert held.get_tensor("encoder.layer.0.attention.query.weight").dtype == np.float32
            assert held.get_tensor("scalar").dtype == np.float64
            assert "ids" not in list(held.keys())
    if kind == "sparse":
        repo.write(NAME, safetensors({**awkward(), **model()}, metadata={"step": "2"}))
        repo.write("config.json", b"{}")
        repo.commit("More than tensors")
        command = ("git", "theta", "export", "v2..HEAD", "--to", kind, "--json", "-o", str(out))
        assert (
            repo.run(*command)
            .stderr.decode()
            .endswith(
                "git-theta: differs, too, and is not in it: the metadata or structure of the file, "
                "config.json\n"
            )
        )


def test_scaled_rows_and_columns_come_back_as_ia3(repo: Repo) -> None:
    tensors = gpt()
    begin(repo, tensors)
    random = np.random.default_rng(2)
    vectors = {f"{PREFIX}{name}.ia3_l": (1 + random.normal(0, 0.1, shape)).astype(np.float32)
               for name, shape in (("h.0.attn.c_attn", (144, 1)), ("h.0.mlp.up", (1, 48)),
                                   ("patch", (1, 40, 1, 1)))}  # fmt: skip
    config = {"peft_type": "IA3", "feedforward_modules": ["up"], "fan_in_fan_out": True,
              "r": None, "lora_alpha": None}  # fmt: skip
    supply(repo, "v2", vectors, **config)
    out = repo.path.parent / "out"
    said = repo.theta("export", "v1..v2", "--to", "ia3", "-o", str(out))
    assert "ia3, 3 modules" in said
    found = load_file(out / "adapter_model.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in vectors.items()
    }
    settings = json.loads((out / "adapter_config.json").read_text())
    assert settings["feedforward_modules"] == ["h.0.mlp.up"]
    comes_back(repo, out)
    supply(repo, "v3", factors(1), r=3, lora_alpha=7, fan_in_fan_out=True)
    refused = repo.run("git", "theta", "export", "v2..v3", "--to", "ia3", "-o", str(out), ok=(2,))
    text = refused.stderr.decode()
    assert "wte.weight: its rows or columns were not multiplied by a vector" in text
    fitted = repo.path.parent / "FOLDER"
    do(repo, only(text, "--rank 16").replace("   fits a LoRA", ""), FOLDER=str(fitted))
    assert (fitted / "adapter_config.json").exists()


def test_what_cannot_be_exported_is_said(repo: Repo) -> None:
    trained(repo)
    out = str(repo.path.parent / "out")

    def said(*words: str) -> str:
        return repo.run("git", "theta", "export", *words, "-o", out, ok=(2,)).stderr.decode()

    one = said("v2", "--to", "peft")
    assert "'v2' is one version" in one
    do(repo, only(one, "export v1..v2"), FOLDER=out)
    assert "there is no revision 'v9' here" in said("v1..v9", "--to", "peft")
    assert "no checkpoint differs" in said("v2..v2", "--to", "sparse")
    do(repo, only(said("v1..v2")), FOLDER=out)
    assert "--rank has no meaning for --to sparse" in said(
        "v1..v2", "--to", "sparse", "--rank", "3"
    )
    assert "--rank has no meaning for a file of one version" in said("v2", "--rank", "3")
    (Path(out) / "notes.txt").write_text("mine")
    assert "out has notes.txt, which is no part of an adapter" in said("v1..v2", "--to", "peft")
    assert "no tensor has such a name" in said("v1..v2", "--to", "peft", "--conv1d", "nope")
    repo.write("other.safetensors", safetensors(model()))
    repo.commit("Another")
    repo.write("other.safetensors", safetensors(altered(model())))
    repo.git("tag", "v3")
    repo.commit("And change it")
    several = said("v1..HEAD", "--to", "peft")
    assert "2 checkpoints differ" in several
    every = str(repo.path.parent / "FILE")
    do(repo, f"{only(several, 'export v1..HEAD:')} --to sparse -o {every}")
    gone = said("v1..HEAD:other.safetensors", "--to", "peft")
    assert "other.safetensors is not stored by tensor in both versions" in gone
    assert "other.safetensors" in do(repo, only(gone, "git theta diff"))
    repo.git("checkout", "-q", "--detach", "v1")
    repo.write(NAME, safetensors({**gpt(), "h.0.ln.weight": np.ones(48, np.float32)}))
    repo.commit("Only a norm")
    only_norm = said("v1..HEAD", "--to", "peft", "--rest", "modules-to-save")
    assert "no layer changes between the versions" in only_norm
    do(repo, only(only_norm, "--to sparse"), FILE=every)
    repo.write(NAME, safetensors({**gpt(), "h.0.new": np.ones(48, np.float32)}))
    repo.commit("A new tensor, which no kind takes")
    assert "--to sparse" not in said("v1..HEAD", "--to", "peft")


def test_a_gguf_model_s_update_leaves_as_a_lora_for_llama_cpp(repo: Repo) -> None:
    """Also one with the names of Transformers, whose queries and keys llama.cpp turns."""
    random = np.random.default_rng(6)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return random.normal(0, 0.05, shape).astype(np.float32)

    shapes = {"token_embd": (64, 48), "blk.0.attn_q": (96, 48), "blk.0.attn_k": (48, 48)}
    base = {f"{name}.weight": normal(*shape) for name, shape in shapes.items()}
    turned = {"model.embed_tokens": "token_embd", "model.layers.0.self_attn.q_proj": "blk.0.attn_q",
              "model.layers.0.self_attn.k_proj": "blk.0.attn_k"}  # fmt: skip
    hf = {f"{name}.weight": base[f"{other}.weight"] for name, other in turned.items()}
    heads = {"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 4}
    repo.write("config.json", json.dumps(heads).encode())
    out = repo.path.parent / "lora.gguf"
    kind = ("general.architecture", 8, struct.pack("<Q", 5) + b"llama")
    held = {name: (0, array.shape, array.tobytes()) for name, array in base.items()}
    llama = gguf(held, [kind])
    for name, data, names in (
        ("m.gguf", llama, {one: one for one in shapes}),
        ("hf.safetensors", safetensors(hf), turned),
    ):
        repo.git("theta", "track", name)
        repo.write(name, data)
        before = repo.commit("base")
        parts = {}
        for module, other in names.items():
            rows, columns = shapes[other]
            ends = ("lora_A.weight", "lora_B.weight")
            if other == "token_embd":
                ends, rows, columns = ("lora_embedding_A", "lora_embedding_B"), columns, rows
            parts[f"{PREFIX}{module}.{ends[0]}"] = normal(3, columns)
            parts[f"{PREFIX}{module}.{ends[1]}"] = normal(rows, 3)
        repo.theta("add", name, "--update", adapter(repo, parts, r=3, lora_alpha=7))
        repo.git("commit", "-q", "-m", "tuned")
        said = repo.theta("export", f"{before}..HEAD", "--to", "gguf-lora", "-o", str(out))
        assert "lora for llama.cpp (llama), 3 modules" in said
        data = out.read_bytes()
        for key, value in (("general.type", b"adapter"), ("adapter.type", b"lora")):
            assert key.encode() + struct.pack("<IQ", 8, len(value)) + value in data
        assert b"adapter.lora.alpha" + struct.pack("<If", 6, 7.0) in data
        with TensorFile(out) as file:
            found = {one: file.read(one) for one in file}
        for module, other in names.items():
            down, up = (parts[one] for one in parts if one.startswith(f"{PREFIX}{module}."))
            if module.endswith(("q_proj", "k_proj")):
                many = heads["num_attention_heads" if "q_" in module else "num_key_value_heads"]
                up = np.stack([up.reshape(many, 2, -1, 3)[:, half] for half in (0, 1)], axis=2)
            down = down.T if other == "token_embd" else down
            assert np.array_equal(found[f"{other}.weight.lora_a"], down)
            assert np.array_equal(found[f"{other}.weight.lora_b"], up.reshape(-1, 3))
    repo.write("hf.safetensors", safetensors({**hf, "model.norm.weight": normal(48)}))
    repo.commit("a norm")
    repo.write("hf.safetensors", safetensors({**hf, "model.norm.weight": normal(48)}))
    repo.commit("another norm")
    ask = ("export", "HEAD~1..HEAD", "--to", "gguf-lora", "-o", str(out))
    refused = repo.run("git", "theta", *ask, ok=(2,)).stderr.decode()
    assert "model.norm.weight: it is no weight of a linear layer" in refused
    assert "--rest" not in refused
