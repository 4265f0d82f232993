"""What `git theta get` and `cache` advise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from git_theta_ext.packages.cache import Cache
from tests.scenarios.advised import do, only, take
from tests.scenarios.checkpoints import NAME
from tests.scenarios.published import FIRST, TOKENS, lfs_object, publish
from tests.scenarios.repositories import Repo

GET = ("git", "theta", "get", "-q")


def test_what_is_suggested(
    new_repo: Callable[..., Repo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_THETA_CACHE", str(tmp_path / "cache"))
    work = new_repo("work")
    remote = publish(work)
    here = Repo(tmp_path / "product")
    here.path.mkdir()
    url = str(remote)

    assert "0 versions" in do(here, take(here, *GET, "--offline", f"{url}@v1", has="list"))
    do(here, take(here, *GET, str(tmp_path / "no one"), has="ls-remote"), ok=(128,))
    do(here, take(here, "git", "theta", "cache", "list", "--all"))
    assert "0 versions" in do(here, take(here, "git", "theta", "cache", "prune", url))

    (work.path / "link").symlink_to("/etc/passwd")
    work.commit("a link")
    work.git("push", "-q", "origin", "main")
    advice = take(here, *GET, url, has="PATH")
    do(here, advice, URL=url, VERSION="v1", PATH=NAME)
    assert (here.path / "hub" / NAME).read_bytes() == FIRST

    here.run(*GET, f"{url}@v1", "-o", "whole")
    oid = lfs_object(remote).name
    for place in (Cache.open().store / "objects").rglob(oid):
        place.chmod(0o644)
        place.write_bytes(TOKENS[::-1])
    do(here, take(here, *GET, f"{url}@v1", "-o", "again", has="verify"), ok=(5,))
    here.run(*GET, f"{url}@v1", "-o", "again")
    assert (here.path / "again/vocabulary/all.tokens").read_bytes() == TOKENS

    here.theta("cache", "prune", "--all")
    shutil.rmtree(remote / "lfs")
    done = here.run(*GET, f"{url}@v1:{NAME}", "-o", "third.safetensors", ok=(6,))
    said = done.stderr.decode()
    assert f"{NAME}: 13 of 14 tensors, and its structure" in said, said
    advice = only(said, "push").partition(" sends")[0]
    do(work, advice, REMOTE="origin")
    here.run(*GET, f"{url}@v1:{NAME}", "-o", "third.safetensors")
    assert (here.path / "third.safetensors").read_bytes() == FIRST

    (tmp_path / "taken").write_bytes(b"")
    monkeypatch.setenv("GIT_THETA_CACHE", str(tmp_path / "taken"))
    advice = take(here, *GET, f"{url}@v1:{NAME}", "-o", "fourth", has="theta.cache")
    monkeypatch.delenv("GIT_THETA_CACHE")
    do(here, advice.partition(", or")[0], FOLDER=str(tmp_path / "elsewhere"))
    here.run(*GET, f"{url}@v1:{NAME}", "-o", "fourth")
    assert (tmp_path / "elsewhere" / "repositories").is_dir()

    # A server that only the .lfsconfig of the default branch names is not trusted with anything.
    work.write(".lfsconfig", b"[lfs]\n\turl = http://127.0.0.1:1/lfs\n")
    work.commit("elsewhere")
    work.git("push", "-q", "--no-verify", "origin", "main")
    here.theta("cache", "prune", "--all")
    shutil.rmtree(remote / "lfs")
    done = here.run(*GET, f"{url}@v1:{NAME}", "-o", "none", ok=(6,))
    assert b"asked without credentials" in done.stderr
    do(here, only(done.stderr.decode(), "--global --add"))
    done = here.run(*GET, f"{url}@v1:{NAME}", "-o", "none", ok=(6,))
    assert b"git lfs fetch failed" in done.stderr
    assert b"without credentials" not in done.stderr
