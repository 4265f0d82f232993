"""Weights that were quantised: stored as what they were made of, and named for what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.updates.quantisers import QUANTISERS, quantise
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.containers import gguf
from tests.scenarios.repositories import Repo

GOLDEN = Path(__file__).parents[1] / "golden" / "quantised"


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_a_gguf_file_is_stored_as_a_quantisation_of_another(repo: Repo) -> None:
    """Of the one beside it, and of what its path held before; both come back, and travel alone."""
    repo.git("theta", "track", "*.gguf")
    repo.write("floats.gguf", golden("floats.gguf"))
    repo.write("model.gguf", golden("floats.gguf"))
    repo.commit("floats")
    for path in ("codes.gguf", "model.gguf"):
        repo.write(path, golden("codes.gguf"))
    repo.commit("codes")
    for path in ("codes.gguf", "model.gguf"):
        manifest = parse_manifest(repo.blob(f"HEAD:{path}"))
        kinds = [[link.kind for link in entry.blocks[0].chain] for entry in manifest.entries]
        assert kinds == [["dense", "quantise"]] * 5
    assert repo.status() == ""
    repo.git("rm", "-q", "codes.gguf", "model.gguf")
    repo.git("checkout", "-q", "HEAD", "--", ".")
    assert (repo.path / "codes.gguf").read_bytes() == golden("codes.gguf")
    assert (repo.path / "model.gguf").read_bytes() == golden("codes.gguf")
    repo.theta("fsck")


def test_new_floats_make_new_codes_and_other_codes_follow_the_old_ones(repo: Repo) -> None:
    random = np.random.default_rng(2)
    repo.git("theta", "track", "*.gguf")
    kinds = []
    for version in range(3):
        if version < 2:
            wide = random.normal(0, 0.02, (64, 256)).astype(np.float32)
            repo.write("f.gguf", gguf({"w": (0, (64, 256), wide.tobytes())}))
            repo.commit("floats")
        codes = quantise(QUANTISERS["Q8_0"], wide.reshape(-1, 32), fused=False)
        codes[::2, 5] += version == 2
        repo.write("q.gguf", gguf({"w": (8, (64, 256), codes.tobytes())}))
        repo.commit("codes")
        (entry,) = parse_manifest(repo.blob("HEAD:q.gguf")).entries
        kinds.append([link.kind for link in entry.blocks[0].chain])
    before = entry.blocks[0].chain[: len(kinds[1])]
    assert kinds[0] == ["dense", "quantise"]
    assert kinds[1][-1] == "quantise"
    assert kinds[2][: len(kinds[1])] == kinds[1]
    assert len(kinds[2]) == len(kinds[1]) + 1
    # Where the floats beside it became those of another model, the codes stay what they were.
    repo.write("f.gguf", gguf({"w": (0, (64, 256), np.roll(wide, 1, axis=0).tobytes())}))
    repo.commit("another model")
    codes[1::2, 5] += 1
    repo.write("q.gguf", gguf({"w": (8, (64, 256), codes.tobytes())}))
    repo.commit("codes")
    (entry,) = parse_manifest(repo.blob("HEAD:q.gguf")).entries
    assert entry.blocks[0].chain[: len(kinds[1])] == before
    assert repo.status() == ""


CONFIG = (GOLDEN / "mlx.json").read_bytes()


def test_what_became_of_quantised_weights_is_told_as_one_value_each(repo: Repo) -> None:
    """Quantised from floats, quantised anew, and left as they were: in each form of the report."""
    expected = np.load(GOLDEN / "expected-mlx.npz")
    floats = {name: expected[name] + np.float32(0.01) for name in expected.files}
    repo.git("theta", "track", "*.safetensors")
    repo.write("m/model.safetensors", safetensors(floats))
    repo.commit("floats")
    codes = golden("mlx.safetensors")
    repo.write("m/model.safetensors", codes)
    repo.write("m/config.json", CONFIG)
    repo.commit("quantised")
    # Scales and biases of one layer, and so all its numbers, by a half more.
    header = 8 + int.from_bytes(codes[:8], "little")
    scaled = bytearray(codes)
    for last in ("scales", "biases"):
        start, stop = json.loads(codes[8:header])[f"layers.4.64.{last}"]["data_offsets"]
        place = slice(header + start, header + stop)
        scaled[place] = (np.frombuffer(codes[place], np.float16) * np.float16(1.5)).tobytes()
    repo.write("m/model.safetensors", bytes(scaled))
    repo.commit("scaled")

    first = repo.theta("diff", "HEAD~2", "HEAD~")
    assert "  ≈ layers.4.64.weight" in first
    assert "F32 → MLX, 4-bit, groups of 64, quantised; error " in first
    assert "F32 → NVFP4, 4-bit, groups of 16, quantised; error " in first
    words = "MLX, 4-bit, groups of 64, re-quantised; dequantised change "
    second = repo.theta("diff", "HEAD~", "HEAD", "--", "m/model.safetensors")
    (line,) = (line for line in second.splitlines() if "≈" in line)
    assert line.startswith(f"  ≈ layers.4.64.weight  {words}")
    record = json.loads(repo.theta("diff", "HEAD~", "HEAD", "--format", "json"))["files"][0]
    (one,) = record["quantised"]
    assert one["what"] == "re-quantised"
    assert one["new"] == {
        "kind": "MLX", "bits": 4, "group": 64, "words": "MLX, 4-bit, groups of 64"
    }  # fmt: skip
    assert abs(one["change"] - 0.5) < 1e-3
    assert line.endswith(" 50 %")
    for form in ("html", "markdown"):
        assert words in repo.theta("diff", "HEAD~", "HEAD", "--format", form).replace("\\", "")
    blamed = repo.theta("blame", "m/model.safetensors", "layers.4.64.*")
    assert blamed.count("MLX, 4-bit, groups of 64") == 3
    # Without its configuration nobody can know.
    repo.git("rm", "-q", "m/config.json")
    repo.commit("no configuration")
    assert "MLX" not in repo.theta("blame", "m/model.safetensors", "layers.4.64.*")
