"""`git theta get` and what is below it: versions of other repositories, out of one cache."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import git_theta_ext as theta
from git_theta_ext.checkpoints.read import open_checkpoint
from git_theta_ext.core.errors import TransferError, UsageError
from git_theta_ext.objects.store.store import Store
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import fetch, marker_of, remote_refs
from git_theta_ext.packages.files import files_of
from git_theta_ext.packages.placing import place
from git_theta_ext.packages.trimming import total, versions
from tests.scenarios import sharded
from tests.scenarios.checkpoints import NAME, model
from tests.scenarios.published import CONFIG, FIRST, QUERY, SECOND, TOKENS, publish
from tests.scenarios.repositories import Repo
from tests.scenarios.warm import PREFIX


@pytest.fixture
def cache(tmp_path: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The cache of the commands of a test."""
    monkeypatch.setenv("GIT_THETA_CACHE", str(tmp_path / "cache"))
    return Cache.open()


@pytest.fixture
def published(new_repo: Callable[..., Repo]) -> Path:
    """A bare repository with two versions of a model; see `publish`."""
    return publish(new_repo("work"))


def test_a_version_is_fetched_once(cache: Cache, published: Path, tmp_path: Path) -> None:
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
        ("vocabulary/all.tokens", "lfs", "100644"),
    ]
    written = place(package, files, tmp_path / "model")
    assert (tmp_path / "model" / NAME).read_bytes() == FIRST
    assert (tmp_path / "model/vocabulary/all.tokens").read_bytes() == TOKENS
    assert os.name == "nt" or (tmp_path / "model" / "run.sh").stat().st_mode & 0o111
    assert [one.sha256 for one in written if one.path == NAME] == [
        hashlib.sha256(FIRST).hexdigest()
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


def test_get(cache: Cache, published: Path, tmp_path: Path) -> None:
    here = Repo(tmp_path / "product")
    here.path.mkdir()
    url = str(published)

    assert "hub: 4 files" in here.theta("get", f"{url}@v1")
    folder = here.path / "hub"
    assert (folder / NAME).read_bytes() == FIRST
    assert not (folder / ".gitattributes").exists()
    assert "there already" in here.theta("get", "--offline", f"{url}@v1")

    got = json.loads(here.theta("get", "--json", f"{url}@model@v2.0.0"))
    assert [row["path"] for row in got["files"] if row["new"]] == [NAME]
    assert (folder / NAME).read_bytes() == SECOND

    (folder / "config.json").write_bytes(b"mine")
    done = here.run(*PREFIX, "get", f"{url}@v1", ok=(2,))
    assert b"config.json" in done.stderr
    assert (folder / "config.json").read_bytes() == b"mine"
    assert (folder / NAME).read_bytes() == SECOND
    here.theta("get", "--force", f"{url}@v1")
    assert (folder / "config.json").read_bytes() == CONFIG

    here.theta("get", f"{url}@v1:{NAME}", "--tensors", "encoder.*", "-o", "encoder.npz")
    assert QUERY in np.load(here.path / "encoder.npz")
    done = here.run(*PREFIX, "get", f"{url}@v1:{NAME}", "-o", "whole.npz", "--dtype", "bf16")
    assert b"array.view(ml_dtypes.bfloat16)" in done.stderr
    assert np.load(here.path / "whole.npz")[QUERY].dtype == "V2"
    here.theta("get", f"{url}@v1:{NAME}", "-o", "converted.npz")
    assert np.load(here.path / "converted.npz")[QUERY].dtype == "f4"
    assert b"-o ./-" in here.run(*PREFIX, "get", f"{url}@v1:{NAME}", "-o", "-", ok=(2,)).stderr
    here.theta("get", f"{url}@HEAD:vocabulary", "-o", "words")
    assert [one.name for one in (here.path / "words").iterdir()] == ["all.tokens"]
    here.theta("get", f"{url}@v1:{NAME}", "-o", "copy.safetensors")
    assert (here.path / "copy.safetensors").read_bytes() == FIRST
    here.theta("get", f"{url}@v1", "--to", "pt", "--dtype", "f16", "-o", "half")
    assert {one.name for one in (here.path / "half").iterdir()} == {
        "config.json",
        "model.pt",
        "run.sh",
        "vocabulary",
    }

    listed = here.theta("cache", "list")
    assert "v1" in listed
    assert "model@v2.0.0" in listed
    assert "0 problems" in here.theta("cache", "verify")
    for pack in (cache.root / "repositories").rglob("*.pack"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)
    assert b"what Git had of" in here.run(*PREFIX, "cache", "verify", ok=(5,)).stdout
    here.theta("get", f"{url}@v1:{NAME}", "-o", "once-more.safetensors")
    assert (here.path / "once-more.safetensors").read_bytes() == FIRST
    here.theta("cache", "prune", "--all")
    assert "0 versions" in here.theta("cache", "list")


def test_python(
    cache: Cache, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "product").mkdir()
    monkeypatch.chdir(tmp_path / "product")
    name = f"{published}@v1:{NAME}"
    with theta.open(name) as checkpoint:
        assert checkpoint[QUERY].tobytes() == model()[QUERY].tobytes()
    published.rename(tmp_path / "gone.git")
    published.with_suffix("").mkdir()
    with theta.safe_open(name, offline=True) as handle:
        assert handle.get_tensor(QUERY).tobytes() == model()[QUERY].tobytes()
    whys = ("has no", "is a folder", "by git-lfs, not tensor by tensor\n.*git theta get", "whole")
    paths = ("model.safetensor", "vocabulary", "vocabulary/all.tokens", "config.json")
    with pytest.raises(UsageError, match="there is no repository"):
        theta.open(f"../nowhere@v1:{NAME}")
    for path, why in zip(paths, whys, strict=True):
        with pytest.raises(UsageError, match=why):
            theta.open(f"{published}@v1:{path}", offline=True)
    with pytest.raises(TransferError, match="offline"):
        theta.open(f"{published}@model@v2.0.0:{NAME}", offline=True)
    (tmp_path / "gone.git").rename(published)
    tokens = theta.get(f"{published}@v1:vocabulary/all.tokens", "all.tokens")
    assert tokens.read_bytes() == TOKENS
    path = theta.get(f"file://{published}@v1")
    assert path == Path("hub")
    assert (path / NAME).read_bytes() == FIRST
    assert (path / "config.json").exists()


def test_what_was_longest_not_used_leaves_first(
    cache: Cache, published: Path, tmp_path: Path, new_repo: Callable[..., Repo]
) -> None:
    here = Repo(tmp_path / "product")
    here.path.mkdir()
    mirror = tmp_path / "mirror.git"
    here.git("clone", "-q", "--mirror", str(published), str(mirror))
    (mirror / "lfs").symlink_to(published / "lfs")
    for at, url in enumerate((f"{published}@v1", f"{published}@model@v2.0.0", f"{mirror}@v1")):
        here.theta("get", url, "-o", f"out{at}")
    found = versions(cache)
    assert [one.url for one in found] == [str(mirror), str(published), str(published)]
    assert found[0].objects == found[2].objects, "the mirror's v1 is made of the same objects"
    for age, one in enumerate(found):
        moment = time.time() - (age + 1) * 24 * 3600
        os.utime(marker_of(one.repository, one.commit), (moment, moment))

    # The first version leaves; what it needs stays, for the mirror's needs the same.
    before = set(Store(cache.store).oids())
    done = json.loads(here.theta("cache", "prune", "--json", "--unused", "2.5"))
    assert [(row["url"], row["names"]) for row in done["versions"]] == [(str(published), ["v1"])]
    assert set(Store(cache.store).oids()) == before
    limit = str(total(cache) - 1)
    dry = json.loads(here.theta("cache", "prune", "--json", "--dry-run", "--limit", limit))
    assert set(Store(cache.store).oids()) == before
    done = json.loads(here.theta("cache", "prune", "--json", "--limit", limit))
    assert [row["names"] for row in done["versions"]] == [["model@v2.0.0"]]
    assert done == {**dry, "dry_run": False}
    assert done["left"] == total(cache) < int(limit)
    assert set(Store(cache.store).oids()) == set(found[0].objects) < before
    assert len(list((cache.root / "repositories").iterdir())) == 1

    # A limit that is set counts when a get has ended, but for what was just used.
    here.git("config", "--global", "theta.cacheLimit", "1 kB")
    here.theta("get", f"{published}@model@v2.0.0", "-o", "other")
    assert [one.url for one in versions(cache)] == [str(published)]


def test_a_sharded_model(cache: Cache, new_repo: Callable[..., Repo], tmp_path: Path) -> None:
    work = new_repo("work")
    sharded.write(work, model(), 0, 5, 9)
    work.commit()
    here = Repo(tmp_path / "product")
    here.path.mkdir()
    names = sorted(one.name for one in (work.path / "llm").iterdir())
    index = f"{work.path}:{sharded.INDEX}"
    for at, source in enumerate((index, f"{work.path}:{sharded.PATTERN}", f"{work.path}:llm")):
        here.theta("get", "-o", f"whole{at}", source)
        found = sorted(one.name for one in (here.path / f"whole{at}").iterdir())
        assert found == (names[:3] if at == 1 else names)
        for name in found:
            original = (work.path / "llm" / name).read_bytes()
            assert (here.path / f"whole{at}" / name).read_bytes() == original
    here.theta("get", index, "--tensors", QUERY, "-o", "one.safetensors")
    assert list(load_file(here.path / "one.safetensors")) == [QUERY]
    here.theta("get", str(work.path), "--tensors", "*.query.*", "-o", "part")
    assert [one.name for one in (here.path / "part/llm").iterdir()] == ["model.safetensors"]
    assert theta.open(index)[QUERY].tobytes() == model()[QUERY].tobytes()
