"""Histories that are moved in and out: written by real git-lfs, or by plain Git."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
BELOW = "sub/other.safetensors"


def version(number: int) -> bytes:
    """A version of a small model: one tensor differs, by as many elements as the number says."""
    tensors = dict(model(layers=2))
    name = sorted(tensors)[0]
    value = np.array(tensors[name])
    value.reshape(-1)[: number + 1] *= 2
    return safetensors({**tensors, name: value})


def started(path: Path, *, lfs: bool) -> Repo:
    """An empty repository; git-lfs tracks checkpoints in it, or nobody does."""
    path.mkdir()
    repo = Repo(path)
    repo.git("init", "-q", "-b", "main")
    if lfs:
        repo.git("lfs", "install", "--local")
        lines = (f"*.{name} filter=lfs diff=lfs merge=lfs -text" for name in ("pt", "safetensors"))
        repo.write(".gitattributes", "\n".join(lines).encode())
    return repo


def history(path: Path, *, lfs: bool) -> Repo:
    """Three versions on `main`, one more on `side`, merged; tags, a note and a second file."""
    repo = started(path, lfs=lfs)
    repo.write("note.txt", b"before\n")
    repo.commit("no checkpoint yet")
    for number in range(3):
        repo.write(NAME, version(number))
        if number == 1:
            repo.write(BELOW, version(8))
        repo.commit(f"version {number}")
    repo.git("tag", "light", "main~1")
    repo.git("tag", "-a", "-m", "words", "heavy")
    repo.git("tag", "-a", "-m", "of a tag", "twice", "heavy")
    repo.git("notes", "add", "-m", "a note")
    repo.git("checkout", "-q", "-b", "side", "main~1")
    repo.write(NAME, version(5))
    repo.commit("on the side")
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "-s", "ours", "-m", "merged", "side")
    return repo


def refs(repo: Repo) -> dict[str, str]:
    """What each ref names."""
    rows = repo.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(row.split(" ") for row in rows)
