"""Adapters that add products or rotate: stored as their numbers, and they go where others go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.adapters import SHAPE, structured, written
from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.objects import grow_old
from tests.scenarios.repositories import PREFIX, Repo

MODULES = ("wide", "half")
KINDS = {"LOKR": "kronecker", "LOHA": "hadamard", "BOFT": "orthogonal"}


def base() -> dict[str, Any]:
    random = np.random.default_rng(30)
    wide, half = (random.normal(0, 0.3, SHAPE).astype(np.float32) for _ in MODULES)
    return {"wide.weight": wide, "half.weight": half.astype(ml_dtypes.bfloat16),
            "other": random.normal(0, 1, 3000).astype(np.float32)}  # fmt: skip


def kinds(repo: Repo, name: str, revision: str = "HEAD") -> list[str]:
    entry = parse_manifest(repo.blob(f"{revision}:{NAME}")).by_name()[name]
    return [link.kind for link in entry.blocks[0].chain]


def test_supplied_products_and_rotations_from_add_to_prune(
    new_repo: Callable[..., Repo], tmp_path: Path
) -> None:
    repo = new_repo("sender")
    repo.write(NAME, safetensors(base()))
    repo.commit("base")
    repo.git("branch", "other")
    repo.git("branch", "start")
    versions = [(repo.path / NAME).read_bytes()]
    adapters = structured(MODULES)
    for kind in KINDS:
        config, tensors = adapters[kind]
        folder = written(repo, tensors, config)
        told = json.loads(repo.theta("add", NAME, "--update", folder, "--json"))
        # Its own numbers, exactly, and some settings of two small files.
        length = sum(value.nbytes for value in tensors.values())
        assert told["stored"] < length + 2 * 700, kind
        repo.git("commit", "-q", "-m", kind)
        versions.append((repo.path / NAME).read_bytes())
    for module in MODULES:
        assert kinds(repo, f"{module}.weight") == ["dense", *KINDS.values()]
    assert repo.status() == ""

    words = [
        "kronecker sides=8x8,20x16 rank=full,2", "hadamard rank=2",
        "orthogonal blocks=32x4 matrices=2",
    ]  # fmt: skip
    logged = repo.theta("log", NAME)
    assert all(f"{said} " in logged or f"{said}\n" in logged for said in words), logged
    assert words[-1] in repo.theta("blame", NAME)

    # Another branch changes other tensors, and these: what is merged is decoded first.
    repo.git("checkout", "-q", "other")
    tensors = base()
    tensors["other"] = tensors["other"] + np.float32(1)
    tensors["wide.weight"] = tensors["wide.weight"].copy()
    tensors["wide.weight"][0, :20] += np.float32(2)
    repo.write(NAME, safetensors(tensors))
    repo.commit("other")
    repo.git("merge", "-q", "main", ok=(1,))
    repo.theta("resolve", NAME, "--strategy", "average")
    repo.git("add", NAME)
    repo.git("commit", "-q", "-m", "both")
    assert kinds(repo, "half.weight") == ["dense", *KINDS.values()]
    (repo.path.parent / "theirs").write_bytes(versions[-1])
    theirs = load_file(repo.path.parent / "theirs")["wide.weight"].astype(float)
    mean = (theirs + tensors["wide.weight"]) / 2
    expected = np.where(np.arange(theirs.size).reshape(SHAPE) < 20, mean, theirs)
    found = load_file(repo.path / NAME)["wide.weight"]
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    repo.theta("fsck")

    # A patch carries them; whoever has the base gets the same commits.
    repo.git("checkout", "-q", "main")
    place = repo.path.parent / "kinds.patch"
    repo.theta("format-patch", "HEAD~3..HEAD", "-o", str(place))
    assert words[-1] in repo.theta("show", str(place))
    receiver = new_repo("receiver")
    receiver.git("remote", "add", "origin", str(repo.path))
    receiver.git("pull", "-q", "origin", "start")
    receiver.theta("am", str(place))
    assert receiver.git("rev-parse", "HEAD") == repo.git("rev-parse", "HEAD")
    assert (receiver.path / NAME).read_bytes() == versions[-1]

    # Factors of a LoRA are none of them, and an export says so.
    refused = repo.run(*PREFIX, "export", "HEAD~1..HEAD", "--to", "peft", "-o", "out", ok=(1, 2))
    assert b"its update is not of low rank" in refused.stderr

    # Objects are joined, and old ones go; every version comes back.
    receiver.theta("repack", "--yes")
    receiver.git("commit", "-q", "-m", "repacked")
    grow_old(receiver)
    receiver.theta("prune")
    receiver.theta("fsck")
    receiver.git("checkout", "-q", "main~1")
    assert (receiver.path / NAME).read_bytes() == versions[-1]
    for number, data in enumerate(reversed(versions)):
        repo.git("checkout", "-q", f"main~{number}")
        assert (repo.path / NAME).read_bytes() == data
