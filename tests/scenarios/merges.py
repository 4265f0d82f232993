"""Branches to merge: two versions of a checkpoint that came from one, and what judges them."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tests.scenarios.checkpoints import NAME, Tensors, safetensors
from tests.scenarios.repositories import Repo

QUERY = "encoder.layer.0.attention.query.weight"
VALUE = "encoder.layer.2.attention.value.weight"


def branches(repo: Repo, base: bytes | None, ours: bytes, theirs: bytes, name: str = NAME) -> None:
    """`main` and `side`, each with its version of a file."""

    def make() -> None:
        if base is not None:
            repo.write(name, base)
            repo.commit("base")
        repo.write(name, theirs)
        repo.commit("theirs")
        repo.git("branch", "side")
        # Back, without having the checkpoint written only to be replaced.
        repo.git("update-ref", "refs/heads/main", "main~1")
        repo.git("read-tree", "main")
        repo.write(name, ours)
        repo.commit("ours")

    repo.once(make, base, ours, theirs, name)


def st(base: Tensors, *updates: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of some tensors; later updates come before earlier ones."""
    merged = dict(base)
    for update in updates:
        merged.update(update)
    return safetensors(merged, metadata)


def content(repo: Repo) -> bytes:
    """The checkpoint in the work tree."""
    return (repo.path / NAME).read_bytes()


EVALUATE = """
import sys
from safetensors.numpy import load_file

value = float(load_file(sys.argv[1])["w"].mean())
print("loading", sys.argv[1])
print(1 - abs(value - {target}) / 10, {examples})
"""


def evaluation(repo: Repo, target: float, examples: int = 400) -> str:
    """A command that judges `w` by how near it is to `target`, as `--evaluate` takes it."""
    text = EVALUATE.replace("{target}", str(target)).replace("{examples}", str(examples))
    script = repo.path.parent / "evaluate.py"
    script.write_text(text)
    return f"'{sys.executable}' '{script}' {{checkpoint}}"
