"""A model of twelve tensors in shards, and two branches that changed or sharded it anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.scenarios.checkpoints import changed, safetensors
from tests.scenarios.repositories import Repo

INDEX = "llm/model.safetensors.index.json"
PATTERN = "llm/model-*-of-*.safetensors"
Arrays = Mapping[str, NDArray[Any]]


def arrays() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    return {f"layers.{n}.w": random.normal(size=(20, 30)).astype(np.float32) for n in range(12)}


def trained(*names: str, seed: int = 1) -> dict[str, NDArray[Any]]:
    return {name: changed(arrays()[name], seed=seed) for name in names}


def write(repo: Repo, tensors: Arrays, *starts: int) -> None:
    """Write a model as shards that begin at these tensors, with its index, in place of others."""
    for old in (repo.path / "llm").glob("model-*.safetensors"):
        old.unlink()
    names, where = list(tensors), {}
    for number, start in enumerate(starts):
        file = f"model-{number + 1:05}-of-{len(starts):05}.safetensors"
        part = names[start : [*starts, len(names)][number + 1]]
        repo.write(f"llm/{file}", safetensors({name: tensors[name] for name in part}))
        where |= dict.fromkeys(part, file)
    size = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    repo.write(INDEX, json.dumps(index, indent=2).encode())


Side = tuple[Arrays, tuple[int, ...]]


def sides(repo: Repo, ours: Side, theirs: Side) -> None:
    """A base of two shards of six, and a branch for each side: changed tensors, shards."""
    write(repo, arrays(), 0, 6)
    repo.commit("base")
    for branch, (tensors, starts) in (("side", theirs), ("main", ours)):
        repo.git("checkout", "-q", "-B", branch, "main")
        write(repo, {**arrays(), **tensors}, *starts)
        repo.commit(branch)
        if branch == "side":
            repo.git("checkout", "-q", "main")


def read(repo: Repo) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """All tensors that the shards hold, none of them twice, and the file of each."""
    found: dict[str, NDArray[Any]] = {}
    places: dict[str, str] = {}
    for path in sorted((repo.path / "llm").glob("model-*.safetensors")):
        for name, value in load_file(path).items():
            assert name not in found
            found[name], places[name] = value, path.name
    index = json.loads((repo.path / INDEX).read_text())
    assert index["weight_map"] == places
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in found.values())
    return found, places


def same(found: Arrays, *expected: Arrays) -> bool:
    wanted = {**arrays()}
    for one in expected:
        wanted |= one
    return set(found) == set(wanted) and all(np.array_equal(found[n], wanted[n]) for n in wanted)
