"""Many objects cost no more waits for the disk, and no more scratch files, than a few."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from git_theta_ext.git.repository import Repository, scratch_objects
from git_theta_ext.objects.store import durable
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import lfs, pointers, transport
from git_theta_ext.objects.transfer.pointer_files import read_pointer, scratch_commit
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.objects import put
from tests.scenarios.repositories import Repo
from tests.servers.lfs import LfsServer, lfs_server

NAME = "m.safetensors"
SIZES = (30, 300)


def checkpoint(count: int) -> bytes:
    """A file of this many tensors, each an object of its own."""
    random = np.random.default_rng(count)
    return safetensors(
        {f"layer.{n}": random.normal(0, 1, (16, 16)).astype(np.float32) for n in range(count)}
    )


def waits(repo: Repo, *command: str) -> int:
    """How often a command, and what it starts, waits for the disk."""
    if sys.platform != "linux":
        pytest.skip("only Linux has strace")
    assert shutil.which("strace"), "strace is not installed; .ci/run installs it"
    whole = durable._file_system(str(repo.path))
    if whole is None:
        pytest.skip("this file system cannot be flushed as a whole")
    os.close(whole)
    trace = repo.path / ".git/waits"
    calls = "fsync,fdatasync,sync_file_range,syncfs,sync"
    repo.run("strace", "-f", "-qq", "-e", f"trace={calls}", "-o", str(trace), *command)
    return len(re.findall(r"\b(?:fsync|fdatasync|sync\w*)\(", trace.read_text("utf-8", "replace")))


def test_waits_do_not_grow_with_the_number_of_tensors(
    new_repo: Callable[..., Repo], tmp_path: Path
) -> None:
    counts: dict[str, list[int]] = {}
    for count in SIZES:
        repo = new_repo(f"repo-{count}")
        repo.git("config", "theta.packBelow", "0")
        server = tmp_path / f"server-{count}.git"
        repo.git("init", "-q", "--bare", str(server))
        repo.git("remote", "add", "origin", str(server))
        repo.write(NAME, checkpoint(count))
        counts.setdefault("add", []).append(waits(repo, "git", "add", NAME))
        repo.commit()
        push = waits(repo, "git", "push", "-q", "origin", "HEAD:refs/heads/main")
        counts.setdefault("push", []).append(push)
        objects = list((server / "lfs/objects").rglob("*"))
        assert len([path for path in objects if path.is_file()]) >= count
        shutil.rmtree(repo.path / ".git/theta")
        fetch = waits(repo, "git", "theta", "fetch", "origin")
        counts.setdefault("fetch", []).append(fetch)
        repo.theta("fsck")
        # Again, with everything written a moment ago: by whom, and was it flushed?
        repo.git("rm", "-q", "--cached", NAME)
        shutil.rmtree(repo.path / ".git/theta/memo", ignore_errors=True)
        counts.setdefault("again", []).append(waits(repo, "git", "add", NAME))
    for few, many in counts.values():
        assert many <= few + 2
        assert many <= 20


@pytest.fixture
def server() -> Iterator[LfsServer]:
    """An LFS server that runs."""
    with lfs_server() as state:
        yield state


@pytest.mark.parametrize("names", ["sha1", "sha256"])
def test_scratch_files_do_not_grow_with_the_number_of_objects(
    sealed: Path,
    tmp_path: Path,
    server: LfsServer,
    names: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    run = lfs._run

    def counting(repository: Repository, arguments: list[str], **options: Any) -> tuple[int, str]:
        if "fetch" in arguments:
            folder = store_of(repository).root / "lfs"
            seen.append(sum(path.is_file() for path in folder.rglob("*")))
        return run(repository, arguments, **options)

    monkeypatch.setattr(lfs, "_run", counting)
    for count in SIZES:
        place = tmp_path / f"{names}-{count}"
        place.mkdir()
        repo = Repo(place)
        repo.git("init", "-q", f"--object-format={names}")
        repo.git("config", "lfs.url", server.url)
        repo.git("config", "theta.pointerRef", "false")
        repo.git("remote", "add", "origin", "https://host.invalid/x.git")
        repository = Repository.discover(place)
        contents = [f"{names} {count} {number}".encode() for number in range(count)]
        refs = put(repository, *contents)
        transport.push(repository, "origin", "https://host.invalid/x.git", refs)
        shutil.rmtree(place / ".git/theta")
        there = Repository.discover(place)
        transport.fetch(there, refs)
        assert [store_of(there).read(ref.oid) for ref in refs] == contents
        assert repo.git("for-each-ref") == ""
    few, many = seen
    assert many == few


@pytest.mark.parametrize("names", ["sha1", "sha256"])
def test_a_scratch_commit_names_every_object_once(sealed: Path, tmp_path: Path, names: str) -> None:
    place = tmp_path / "repo"
    place.mkdir()
    repo = Repo(place)
    repo.git("init", "-q", f"--object-format={names}")
    repository = Repository.discover(place)
    refs = put(repository, *(f"{number}".encode() for number in range(150)))
    env = scratch_objects(repository, tmp_path / "scratch")
    commit = scratch_commit(repository, tmp_path / "holder", refs, env)
    listed = repository.git("ls-tree", "-r", "--object-only", commit, env=env).decode().split()
    found = {read_pointer(repository.git("cat-file", "blob", one, env=env)) for one in listed}
    assert {(ref.oid, ref.size) for ref in refs} == {(one.oid, one.size) for one in found if one}
    assert None not in found
    assert not list((place / ".git/objects").rglob("??/*"))
    assert repo.git("for-each-ref") == ""


def test_pointer_files_are_added_with_as_many_git_commands_for_many_objects(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, remote = tmp_path / "repo", tmp_path / "remote.git"
    place.mkdir()
    Repo(place).git("init", "-q")
    Repo(place).git("init", "-q", "--bare", str(remote))
    repository = Repository.discover(place)
    started: list[str] = []
    git = Repository.git

    def counting(self: Repository, *arguments: str, **options: Any) -> bytes:
        started.append(arguments[0])
        return git(self, *arguments, **options)

    monkeypatch.setattr(Repository, "git", counting)
    counts = []
    for count in (1, 5, 50):  # the first makes the ref
        started.clear()
        refs = put(repository, *(f"{count} {number}".encode() for number in range(count)))
        assert pointers.publish(repository, str(remote), refs, lambda: []) is None
        counts.append(len(started))
    assert counts[1] == counts[2]
    listed = Repo(remote).git("ls-tree", "-r", "--name-only", pointers.REF).split()
    assert len(listed) == 1 + 5 + 50 + 1
