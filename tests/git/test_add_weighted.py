"""`git theta add --update` with several adapters of LoRA, and with factors of experts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.adapters import adapter, lora
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

FILE = "model.safetensors"
QUERY = "encoder.layer.0.attention.query"


def folder(repo: Repo, name: str, seed: int, **config: object) -> str:
    """One of several adapters, in a folder of its own."""
    made = Path(adapter(repo, lora(seed=seed), **config))
    return str(made.rename(made.with_name(name)))


def tensor(repo: Repo, name: str) -> np.ndarray:
    """A float32 tensor of the file in the work tree."""
    data = (repo.path / FILE).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    one = json.loads(data[8:start])[name]
    first, last = one["data_offsets"]
    return np.frombuffer(data[start + first : start + last], np.float32).reshape(one["shape"])


def kind(repo: Repo, name: str) -> str:
    """The update of a tensor in the index."""
    entries = parse_manifest(repo.blob(f":{FILE}")).entries
    return next(e.blocks[0].chain[-1].kind for e in entries if e.tensor.name == name)


def change(seed: int) -> np.ndarray:
    """What the factors of a query add to it, but for alpha over rank."""
    factors = lora(seed=seed)
    stem = f"base_model.model.{QUERY}.lora_"
    product: np.ndarray = factors[f"{stem}B.weight"] @ factors[f"{stem}A.weight"]
    return product


def test_adapters_are_joined_with_weights(repo: Repo) -> None:
    repo.write(FILE, safetensors(model()))
    repo.commit("Add the model")
    a, b = folder(repo, "a", 3), folder(repo, "b", 4, lora_alpha=4)
    given = ["git", "theta", "add", FILE, "--update", a, "--update", b]
    said = repo.run(*given, ok=(2,)).stderr.decode()
    hint = "git theta add FILE --update A --update B --weights 1,1"
    assert hint in said
    assert repo.status() == ""
    before = tensor(repo, f"{QUERY}.weight").copy()
    places = {"FILE": FILE, "A": a, "B": b}
    repo.run(*(places.get(word, word) for word in hint.split()))
    wanted = before + 2 * change(3) + change(4)
    np.testing.assert_allclose(tensor(repo, f"{QUERY}.weight"), wanted, rtol=0, atol=1e-6)
    assert kind(repo, f"{QUERY}.weight") == "low-rank"
    repo.git("reset", "-q", "--hard")

    shown = json.loads(repo.run(*given, "--weights=-0.5,2", "--json").stdout)
    assert shown["update"].startswith("cat of 2 adapters: -0.5 × lora, 3 modules, rank 4; 2 × lora")
    wanted = before - change(3) + 2 * change(4)
    np.testing.assert_allclose(tensor(repo, f"{QUERY}.weight"), wanted, rtol=0, atol=1e-6)
    repo.git("commit", "-q", "-m", "Join two")
    assert repo.status() == ""

    for more, message in (
        (["--weights", "1"], "1 for 2 of --update"),
        (["--weights", "1,1", "--config", "x"], "each adapter is a LoRA with its own"),
        (["--combine", "linear"], "and no weights"),
    ):
        assert message in repo.run(*given, *more, ok=(2,)).stderr.decode()
    assert repo.status() == ""


def test_an_adapter_that_has_no_weight_is_applied_alone(repo: Repo) -> None:
    repo.write(FILE, safetensors(model()))
    repo.commit("Add the model")
    plain = folder(repo, "plain", 3)
    made = Path(adapter(repo, {
        **lora(seed=4),
        "base_model.model.encoder.layer.1.attention.query.bias": np.ones(64, np.float32),
    }))  # fmt: skip
    given = ["git", "theta", "add", FILE, "--update", str(made), "--update", plain]
    said = repo.run(*given, "--weights", "1,1", ok=(2,)).stderr.decode()
    assert "by more than the factors of a plain LoRA" in said
    hint = "git theta add FILE --update ADAPTER"
    assert f"({hint}), commit, and add the others to that" in said
    assert repo.status() == ""
    repo.run(*({"FILE": FILE, "ADAPTER": str(made)}.get(word, word) for word in hint.split()))
    repo.git("commit", "-q", "-m", "One")
    repo.theta("add", FILE, "--update", plain, "--weights", "0.5")
    assert repo.status() == f"M  {FILE}\n"


def test_factors_of_experts_are_stored_as_they_are(repo: Repo) -> None:
    random = np.random.default_rng(2)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, 0.1, shape).astype(np.float32)

    repo.write(FILE, safetensors({"m.experts.up": normal(3, 96, 64), "m.norm.weight": normal(64)}))
    repo.commit("Add the model")
    before = tensor(repo, "m.experts.up").copy()
    down, up = normal(6, 64), normal(96, 6)
    stem = "base_model.model.m.experts.lora_"
    factors = {f"{stem}A.weight": down, f"{stem}B.weight": up}
    made = adapter(repo, factors, r=2, lora_alpha=4, target_parameters=["experts.up"])
    assert "lora, 1 parameter, rank 2" in repo.theta("add", FILE, "--update", made)
    changes = np.einsum("ore,eri->eoi", up.reshape(96, 2, 3), down.reshape(3, 2, 64)) * 2
    np.testing.assert_allclose(tensor(repo, "m.experts.up"), before + changes, rtol=0, atol=1e-6)
    assert kind(repo, "m.experts.up") == "low-rank"
