"""Getting from odd places, from hostile ones, at once, and where it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import git_theta_ext as theta
from git_theta_ext.core.errors import StoreError
from git_theta_ext.objects import bounds
from git_theta_ext.packages.cache import Cache
from tests.scenarios.advised import do, take
from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.published import FIRST, SECOND, publish
from tests.scenarios.repositories import Repo
from tests.scenarios.warm import PREFIX

GET = (*PREFIX, "get")
COLD = (sys.executable, "-I", "-m", "git_theta_ext.cli.main", "get", "-q")


@pytest.fixture
def here(tmp_path: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A folder in no repository."""
    monkeypatch.setenv("GIT_THETA_CACHE", str(tmp_path / "cache"))
    folder = Repo(tmp_path / "product")
    folder.path.mkdir()
    return folder


def test_a_bundle_and_a_commit(
    here: Repo, new_repo: Callable[..., Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = new_repo("work")
    remote = publish(work)
    bundle = here.path / "hub.bundle"
    work.git("bundle", "create", "-q", str(bundle), "--all")
    done = here.run(*GET, "hub.bundle@v1", ok=(6,))
    assert b"has the manifests, but not all of the objects" in done.stderr
    assert b"git -c lfs.url=URL theta get" in done.stderr
    url = f"lfs.url={remote.as_uri()}"
    here.run("git", "-c", url, "theta", "get", "hub.bundle@v1", "-o", "advised")
    assert (here.path / "advised" / NAME).read_bytes() == FIRST
    here.theta("cache", "prune", "--all")
    first = work.git("rev-parse", "v1^{}").strip()
    monkeypatch.setenv("GIT_DIR", str(work.path / ".git"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(work.path / ".git/objects"))
    here.theta("get", f"{remote}@{first[:8]}")
    assert (here.path / "hub" / NAME).read_bytes() == FIRST
    here.theta("get", f"{remote}@v1", "-o", "tagged")
    assert (here.path / "tagged" / NAME).read_bytes() == FIRST
    assert b"moved" not in here.run(*GET, "--refresh", f"{remote}@v1", "-o", "tagged").stderr
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_OBJECT_DIRECTORY")
    # The objects are in the cache now, wherever they were from.
    here.theta("get", "hub.bundle@v1", "-o", "from-bundle")
    assert (here.path / "from-bundle" / NAME).read_bytes() == FIRST
    here.theta("get", f"{remote}@main:{NAME}", "-o", "main.safetensors")
    assert (here.path / "main.safetensors").read_bytes() == SECOND

    for repository in Cache.open().repositories():
        inside = Repo(repository.git_dir)
        assert b"theta.storage is set" in inside.run(*PREFIX, "prune", ok=(2,)).stderr
    here.theta("cache", "prune", str(remote))
    here.theta("get", "--offline", "hub.bundle@v1", "-o", "again")
    assert (here.path / "again" / NAME).read_bytes() == FIRST


def test_sha256(here: Repo, tmp_path: Path) -> None:
    work = Repo(tmp_path / "work")
    work.path.mkdir()
    work.git("init", "-q", "--object-format=sha256")
    work.theta("install", "--local")
    work.theta("track", "*.safetensors")
    work.write(NAME, FIRST)
    commit = work.commit()
    here.theta("get", f"{work.path}")
    assert (here.path / "work" / NAME).read_bytes() == FIRST
    here.theta("get", "--offline", f"{work.path}@{commit}", "-o", "copy")
    assert (here.path / "copy" / NAME).read_bytes() == FIRST


def test_a_hostile_tree(here: Repo, new_repo: Callable[..., Repo], tmp_path: Path) -> None:
    work = new_repo("evil")
    marker = tmp_path / "executed"
    work.write("ok.txt", b"fine\n")
    work.commit()
    work.git("config", "core.fsmonitor", f"touch {marker}")
    blob = work.git("hash-object", "-w", "--stdin", stdin=b"x").strip()

    def tree(*rows: tuple[str, str, str]) -> str:
        text = "".join(f"{mode} {kind} {oid}\t{name}\0" for mode, kind, oid, name in rows)
        return work.git("mktree", "-z", stdin=text.encode()).strip()

    def stored(kind: str, content: bytes) -> str:
        words = ("hash-object", "-t", kind, "-w", "--literally", "--stdin")
        return work.git(*words, stdin=content).strip()

    up = stored("tree", b"100644 ..\0" + bytes.fromhex(blob))
    evil = [
        ("040000", "tree", tree(("100644", "blob", blob, "config")), ".GIT "),
        ("040000", "tree", up, "a"),
        ("120000", "blob", stored("blob", b"/etc/passwd"), "link"),
    ]
    for number, row in enumerate(evil):
        commit = work.git("commit-tree", tree(row), "-m", "evil").strip()
        work.git("update-ref", f"refs/heads/evil{number}", commit)
        command = (*GET, f"{work.path}@evil{number}", "-o", f"out{number}")
        done = here.run(*command, ok=(2, 9, 10, 11))
        assert done.stderr.startswith(b"git theta: error: "), done.stderr
        out = here.path / f"out{number}"
        assert not out.exists() or not list(out.iterdir())
    done = here.run(*GET, f"ext::sh -c touch% {marker}", "-o", "never", ok=(9,))
    assert b"transport 'ext' not allowed" in done.stderr
    # A link that stands in the folder already leads nowhere.
    (here.path / "out").mkdir()
    (here.path / "out" / "sub").symlink_to(tmp_path)
    below = tree(("100644", "blob", blob, "f\nile"))
    commit = work.git("commit-tree", tree(("040000", "tree", below, "sub")), "-m", "odd").strip()
    work.git("update-ref", "refs/heads/odd", commit)
    here.run(*GET, f"{work.path}@odd", "-o", "out", ok=(11,))
    assert not (tmp_path / "f\nile").exists()
    here.theta("get", f"{work.path}@odd", "-o", "fine")
    assert (here.path / "fine" / "sub" / "f\nile").read_bytes() == b"x"
    assert not marker.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names of refs are bytes")
def test_a_line_end_in_the_name_of_a_ref(here: Repo, new_repo: Callable[..., Repo]) -> None:
    work = new_repo("odd", install=False)
    work.write("f", b"1")
    work.commit()
    for name in ("v1\u2028x", "v2\x85", "v3\udcff"):
        work.git("tag", name)
        here.theta("get", f"{work.path}@{name}")
    work.write("f", b"2")
    work.commit()
    here.theta("get", str(work.path))
    assert (here.path / "odd" / "f").read_bytes() == b"2"
    here.write("models.toml", b'[[model]]\nname = "odd"\nurl = "../odd"\ninto = "in"\n')
    here.theta("sync", "--offline")
    assert (here.path / "in" / "f").read_bytes() == b"2"


def test_a_cache_that_is_damaged(
    here: Repo, new_repo: Callable[..., Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = new_repo("work")
    work.write(NAME, safetensors({"x": np.ones(3, np.float32)}))
    work.commit()
    work.git("tag", "v1")
    get = ("get", "-q", f"{work.path}@v1", "-o")
    here.theta(*get, "before")
    cache = Cache.open()
    (repository,) = cache.repositories()
    place = repository.git_dir

    # Without its settings Git would look elsewhere; without its HEAD it is no repository.
    for name in ("config", "HEAD"):
        (place / name).write_bytes(b"")
        here.theta(*get, f"without-{name}")
    (place / "HEAD").unlink()
    assert f"what Git had of {place} was damaged: removed" in here.theta("cache", "verify", ok=(5,))
    assert not place.exists()
    here.theta(*get, "without-it")
    # An object that is no longer what its name says is fetched again.
    held = [one for one in (cache.store / "objects").rglob("*") if one.is_file()]
    for one in held:
        one.chmod(0o644)
        one.write_bytes(b"")
    assert "was damaged" in here.run(*PREFIX, *get, "without-objects").stderr.decode()
    for pack in (place / "objects").rglob("*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(b"")
    do(here, take(here, *PREFIX, *get, "after", has="verify"), ok=(5,))
    here.theta(*get, "after")
    for folder in ("without-config", "without-HEAD", "without-it", "without-objects", "after"):
        there, first = (here.path / one / NAME for one in (folder, "before"))
        assert there.read_bytes() == first.read_bytes()

    # Where it does not fit, what is advised to Git's users is of no use.
    monkeypatch.setattr(bounds, "free_space", lambda _: 10)
    with pytest.raises(StoreError, match="are free on its disk") as refused:
        theta.get(f"{work.path}@v1", here.path / "full")
    assert "what was fetched is kept" in str(refused.value)


@pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
def test_killed_at_once_and_without_room(
    here: Repo, new_repo: Callable[..., Repo], tmp_path: Path
) -> None:
    import resource

    work = new_repo("big")
    values = np.random.default_rng(0).normal(size=(8, 512, 1024)).astype(np.float32)
    content = safetensors({f"layer.{at}": one for at, one in enumerate(values)})
    work.write(NAME, content)
    work.commit()
    target = here.path / "big" / NAME

    # Killed at several moments: never half a file, and the next one goes on.
    for seconds in (0.35, 0.6, 0.9):
        process = subprocess.Popen([*COLD, str(work.path)], cwd=here.path, start_new_session=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not target.exists() or target.read_bytes() == content

    # Files that may not grow as long as they would have to be.
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(
        [*COLD, str(work.path), "-o", "small"], cwd=here.path, preexec_fn=limited,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 11
    assert b"error: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert not (here.path / "small" / NAME).exists()

    # Several at once on one cache, which is empty.
    here.theta("cache", "prune", "--all")
    many = [
        subprocess.Popen([*COLD, str(work.path), "-o", f"copy{at}"], cwd=here.path)
        for at in range(3)
    ]
    assert [one.wait() for one in many] == [0, 0, 0]
    for at in range(3):
        assert (here.path / f"copy{at}" / NAME).read_bytes() == content
        assert [one.name for one in (here.path / f"copy{at}").iterdir()] == [NAME]
    assert "0 problems" in here.theta("cache", "verify")
