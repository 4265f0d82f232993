"""`git theta get` and what is below it: versions of other repositories, out of one cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.checkpoints.read import open_checkpoint
from git_theta_ext.core.errors import TransferError, UsageError
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import fetch, remote_refs
from git_theta_ext.packages.files import files_of
from git_theta_ext.packages.placing import place
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.remotes import bare
from tests.scenarios.repositories import Repo

QUERY = "encoder.layer.1.attention.query.weight"


@pytest.fixture
def cache(tmp_path: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The cache of the commands of a test."""
    monkeypatch.setenv("GIT_THETA_CACHE", str(tmp_path / "cache"))
    return Cache.open()


@pytest.fixture
def published(new_repo: Callable[..., Repo]) -> Path:
    """A bare repository with versions v1 and v2 of a checkpoint, a card, and a script."""
    repo = new_repo("work")
    remote = bare(repo, "hub.git")

    def make() -> None:
        repo.write("config.json", b'{"layers": 3}\n')
        repo.write("run.sh", b"#!/bin/sh\n").chmod(0o755)
        repo.write(NAME, safetensors(model(), {"step": "1"}))
        repo.commit("first")
        repo.git("tag", "-a", "v1", "-m", "one")
        repo.write(NAME, safetensors({**model(), QUERY: changed(model()[QUERY])}, {"step": "2"}))
        repo.commit("second")
        repo.git("tag", "model@v2.0.0")

    repo.once(make)
    repo.git("push", "-q", "origin", "main", "--tags")
    return remote


def test_a_version_is_fetched_once(cache: Cache, published: Path, tmp_path: Path) -> None:
    first = safetensors(model(), {"step": "1"})
    url = str(published)
    package = fetch(cache, url, "v1")
    assert package.ref == "refs/tags/v1"
    refs = remote_refs(cache, url)
    assert refs["refs/tags/v1"] == package.commit
    repository = package.repository
    objects = cache.store / "objects"
    assert not list(objects.rglob("*")), "only the commit, its trees and manifests travel"

    tensor = open_checkpoint(repository, f"{package.commit}:{NAME}")[QUERY]
    assert tensor.tobytes() == model()[QUERY].tobytes()
    assert len([one for one in objects.rglob("*") if one.is_file()]) == 1

    files = files_of(package, None)
    assert [(one.place, one.kind, one.mode) for one in files] == [
        ("config.json", "raw", "100644"),
        (NAME, "checkpoint", "100644"),
        ("run.sh", "raw", "100755"),
    ]
    written = place(package, files, tmp_path / "model")
    assert (tmp_path / "model" / NAME).read_bytes() == first
    assert (tmp_path / "model" / "run.sh").stat().st_mode & 0o111
    assert [one.sha256 for one in written if one.path == NAME] == [
        hashlib.sha256(first).hexdigest()
    ]

    place(package, files, tmp_path / "part", tensors=[QUERY], container="npz")
    assert list(np.load(tmp_path / "part" / "model.npz")) == [QUERY]
    assert (tmp_path / "part" / "config.json").exists()

    published.rename(tmp_path / "gone.git")
    assert fetch(cache, url, "v1").commit == package.commit
    with pytest.raises(TransferError):
        fetch(cache, url, "model@v2.0.0")
    with pytest.raises(TransferError, match="offline"):
        fetch(cache, url, "model@v2.0.0", offline=True)
    (tmp_path / "gone.git").rename(published)
    second = fetch(cache, url, "model@v2.0.0")
    assert second.ref == "refs/tags/model@v2.0.0"
    assert second.commit != package.commit
    assert fetch(cache, url, None).commit == fetch(cache, url, "main").commit == second.commit
    assert fetch(cache, url, package.commit[:9]).commit == package.commit
    with pytest.raises(UsageError, match="has no version 'v3'"):
        fetch(cache, url, "v3")
