"""The ref of pointer files, by the rules of the hosts that delete what no pointer file names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.transfer.pointers import REF
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo
from tests.servers.lfs import LfsServer, lfs_server

POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)


@pytest.fixture
def server() -> Iterator[LfsServer]:
    with lfs_server() as state:
        yield state


@pytest.fixture
def remote(sealed: Path, tmp_path: Path) -> Repo:
    path = tmp_path / "host.git"
    path.mkdir()
    repo = Repo(path)
    repo.git("init", "-q", "--bare")
    return repo


@pytest.fixture
def local(new_repo: Callable[..., Repo], remote: Repo, server: LfsServer) -> Repo:
    repo = new_repo()
    repo.git("remote", "add", "origin", str(remote.path))
    repo.git("config", "lfs.url", server.url)
    repo.write("m.safetensors", safetensors(model()))
    repo.commit()
    return repo


def objects(repo: Repo, spec: str = "HEAD:m.safetensors") -> set[str]:
    return {ref.oid for ref in parse_manifest(repo.blob(spec)).objects()}


def kept(remote: Repo) -> set[str]:
    """What a host keeps that looks for pointer files among all blobs that a ref reaches."""
    found = set()
    for line in remote.git("rev-list", "--objects", "--all").splitlines():
        oid = line.split()[0]
        if remote.git("cat-file", "-t", oid) == "blob\n":
            match = POINTER.fullmatch(remote.blob(oid))
            if match:
                found.add(match[1].decode())
    return found


def test_a_push_names_every_object(local: Repo, remote: Repo, server: LfsServer) -> None:
    local.git("push", "-q", "origin", "main")
    assert kept(remote) == objects(local) == set(server.objects)
    tree = remote.git("ls-tree", "-r", "--name-only", REF).split()
    assert set(tree) == {"README", *(f"{oid[:2]}/{oid}" for oid in objects(local))}


def test_git_lfs_takes_them_for_its_own(local: Repo, remote: Repo, server: LfsServer) -> None:
    local.git("push", "-q", "origin", "main")
    local.git("fetch", "-q", "origin", f"{REF}:refs/heads/seen")
    listed = {
        line.split()[0]
        for line in local.git("lfs", "ls-files", "--long", "refs/heads/seen").splitlines()
    }
    assert listed == objects(local)


def test_a_second_push_adds_and_one_without_changes_does_not(local: Repo, remote: Repo) -> None:
    local.git("push", "-q", "origin", "main")
    first = remote.git("rev-parse", REF)
    local.git("push", "-q", "origin", "main:again")
    assert remote.git("rev-parse", REF) == first
    before = objects(local)
    local.write("m.safetensors", safetensors(model(1)))
    local.commit()
    local.git("push", "-q", "origin", "main")
    assert kept(remote) == before | objects(local)
    assert remote.git("rev-parse", f"{REF}~1") == first


def test_pushers_that_do_not_know_each_other_are_united(
    local: Repo, remote: Repo, new_repo: Callable[..., Repo], server: LfsServer
) -> None:
    other = new_repo("other")
    other.git("remote", "add", "origin", str(remote.path))
    other.git("config", "lfs.url", server.url)
    other.write("m.safetensors", safetensors(model(7)))
    other.commit()
    local.git("push", "-q", "origin", "main")
    other.git("push", "-q", "origin", "main:theirs")
    assert kept(remote) == objects(local) | objects(other)


def test_one_who_was_overtaken_tries_again(local: Repo, remote: Repo) -> None:
    hook = remote.path / "hooks/update"
    hook.write_text(
        "#!/bin/sh\n"
        f'test "$1" = {REF} || exit 0\n'
        "test -e overtaken && exit 0\n"
        "touch overtaken\n"
        "echo >&2 'cannot lock ref'\n"
        "exit 1\n"
    )
    hook.chmod(0o755)
    done = local.run("git", "push", "-q", "origin", "main")
    assert b"warning" not in done.stderr
    assert kept(remote) == objects(local)


def test_the_ref_is_made_anew_after_somebody_deleted_it(local: Repo, remote: Repo) -> None:
    local.git("push", "-q", "origin", "main")
    before = objects(local)
    remote.git("update-ref", "-d", REF)
    local.write("m.safetensors", safetensors(model(1)))
    local.commit()
    local.git("push", "-q", "origin", "main")
    assert kept(remote) == before | objects(local)


def test_a_refusal_is_told_once_and_stops_nothing(
    local: Repo, remote: Repo, server: LfsServer
) -> None:
    hook = remote.path / "hooks/update"
    hook.write_text(f'#!/bin/sh\ntest "$1" != {REF}\n')
    hook.chmod(0o755)
    done = local.run("git", "push", "-q", "origin", "main")
    assert b"did not take refs/theta/pointers" in done.stderr
    silence = only(done.stderr.decode(), "pointerRef")
    assert remote.git("rev-parse", "main") == local.git("rev-parse", "main")
    assert set(server.objects) == objects(local)
    local.write("m.safetensors", safetensors(model(1)))
    local.commit()
    assert b"warning" not in local.run("git", "push", "-q", "origin", "main").stderr
    do(local, silence)
    assert local.git("config", "theta.pointerRef").strip() == "false"


def test_it_can_be_switched_off(local: Repo, remote: Repo) -> None:
    local.git("config", "theta.pointerRef", "false")
    local.git("push", "-q", "origin", "main")
    assert "theta" not in remote.git("for-each-ref")


def test_a_path_remote_needs_none(local: Repo, remote: Repo) -> None:
    local.git("config", "--unset", "lfs.url")
    local.git("push", "-q", "origin", "main")
    assert "theta" not in remote.git("for-each-ref")


def test_nothing_of_it_is_left_lying_about(local: Repo, remote: Repo) -> None:
    local.git("push", "-q", "origin", "main")
    refs = local.git("for-each-ref", "--format=%(refname)", "refs/theta").split()
    assert len(refs) == 1
    assert refs[0].startswith("refs/theta/known/")
    assert local.status() == ""
