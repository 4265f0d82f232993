"""A model that somebody published, for those who get it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.remotes import bare
from tests.scenarios.repositories import Repo

QUERY = "encoder.layer.1.attention.query.weight"
"""The tensor that differs between the versions."""

FIRST = safetensors(model(), {"step": "1"})
SECOND = safetensors({**model(), QUERY: changed(model()[QUERY])}, {"step": "2"})
CONFIG = b'{"layers": 3}\n'
TOKENS = bytes(range(256)) * 40
"""What stands in a file that git-lfs keeps."""


def publish(repo: Repo) -> Path:
    """A bare repository `hub.git` with the versions v1 and model@v2.0.0, and its clone `repo`.

    Beside the checkpoint there are a configuration, a script and a file of git-lfs.
    """
    remote = bare(repo, "hub.git")

    def make() -> None:
        oid = hashlib.sha256(TOKENS).hexdigest()
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(TOKENS)}\n"
        )
        attributes = (repo.path / ".gitattributes").read_bytes()
        repo.write(".gitattributes", attributes + b"*.tokens filter=lfs -text\n")
        repo.write("vocabulary/all.tokens", pointer.encode())
        repo.write("config.json", CONFIG)
        repo.write("run.sh", b"#!/bin/sh\n").chmod(0o755)
        repo.git("add", "run.sh")
        repo.git("update-index", "--chmod=+x", "run.sh")
        repo.write(NAME, FIRST)
        repo.commit("first")
        repo.git("tag", "-a", "v1", "-m", "one")
        repo.write(NAME, SECOND)
        repo.commit("second")
        repo.git("tag", "model@v2.0.0")

    repo.once(make)
    repo.git("push", "-q", "origin", "main", "--tags")
    place = lfs_object(remote)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(TOKENS)
    return remote


def lfs_object(remote: Path) -> Path:
    """Where a path remote has the object of the file that git-lfs keeps."""
    oid = hashlib.sha256(TOKENS).hexdigest()
    return remote / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
