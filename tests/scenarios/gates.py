"""Repositories with gates, and results as an evaluation would have left them."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch

import numpy as np

from git_theta_ext.evaluation.config import parse
from git_theta_ext.evaluation.content import content_of
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.results import Examples, Result, Score
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.repositories import Repo

TOML = """
[[evaluation]]
name = "glue"
path = "model.safetensors"
command = "python evaluate.py {checkpoint} --out {results}"

[[gate]]
evaluation = "glue"
task = "rte"
metric = "acc"
min = 0.5
max_drop = 0.01
"""
COMMAND = parse(TOML.encode()).evaluations[0].definition


def version(number: float) -> bytes:
    """A model of two tensors, the second of which nobody changes."""
    return safetensors(
        {"head.weight": np.full(300, number, np.float32), "stem.weight": np.ones(300, "f4")}
    )


def score(
    right: int, count: int = 1000, task: str = "rte", *, seed: int = 0, **more: object
) -> Score:
    """The accuracy of `right` of `count` examples; another seed has other ones right."""
    order = np.random.default_rng(seed).permutation(count)
    values = {f"q{at:06}": float(place < right) for at, place in enumerate(order)}
    examples = Examples.of(values, "right")
    fields: dict[str, object] = {"examples": examples, "ids_hash": examples.ids_hash, **more}
    return Score(task, "acc", right / count, count=count, **fields)  # type: ignore[arg-type]


def result(content: str, *scores: Score, when: int = 1, **more: object) -> Result:
    """A result of `glue` as Ada measured it."""
    fields: dict[str, object] = {
        "evaluation": "glue", "definition": COMMAND, "examples_hash": None, "beside": None,
        "origin": "measured", "by": "Ada <ada@example.org>", "rev": "", "path": NAME,
        "source": "a test", **more,
    }  # fmt: skip
    return Result(content=content, when=when, scores=scores, **fields)  # type: ignore[arg-type]


def measured(
    repo: Repo, revision: str, *scores: Score, when: int = 1, path: str = NAME, **more: object
) -> None:
    """Keep a result for a revision of the model, or of all files that a pattern stands for."""
    names = repo.git("ls-tree", "-r", "--name-only", revision).splitlines()
    blobs = [repo.blob(f"{revision}:{name}") for name in names if fnmatch(name, path)]
    content = content_of(map(parse_manifest, blobs))
    Kept(Repository.discover(repo.path)).add([result(content, *scores, when=when, **more)])


def gated(repo: Repo, toml: str = TOML, branches: Mapping[str, float] | None = None) -> Repo:
    """`main` has a model and gates; each branch changes the model."""
    repo.write(".theta.toml", toml.encode())
    repo.write(NAME, version(1))
    repo.commit("base")
    for branch, number in (branches or {"update": 2.0}).items():
        repo.git("switch", "-q", "-c", branch, "main")
        repo.write(NAME, version(number))
        repo.commit(branch)
    return repo
