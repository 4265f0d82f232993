"""`git theta receive-check` as the pre-receive hook of a bare repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from git_theta_ext.core import limits
from git_theta_ext.core.errors import ManifestError, ProtocolError
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects import received
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, model, safetensors
from tests.scenarios.objects import damage
from tests.scenarios.remotes import bare, guard, history, objects_of, push
from tests.scenarios.repositories import Repo


@pytest.fixture
def remote(repo: Repo) -> Path:
    """A bare repository that refuses what it has no objects for."""
    path = bare(repo)
    guard(path)
    return path


def test_a_push_without_objects_is_refused_and_mended_as_it_says(repo: Repo, remote: Path) -> None:
    history(repo, 2)
    said = push(repo, ok=1)
    assert "pre-receive hook declined" in said
    assert repo.git("ls-remote", str(remote)) == ""
    assert f"remote: {NAME}: " in said.replace("remote:   ", "remote: ")
    assert objects_of(repo, f"HEAD:{NAME}")[0].oid in said
    assert "2 versions of checkpoints need objects" in said
    do(repo, only(said, "theta push"), REMOTE="origin")
    push(repo)
    assert "refs/heads/main" in repo.git("ls-remote", str(remote))
    do(repo, only(said, "install"))
    history(repo, 1, start=2)
    repo.git("push", "-q", "origin", "main")


def test_a_push_with_the_hook_passes(repo: Repo, remote: Path) -> None:
    history(repo, 2)
    repo.git("push", "-q", "origin", "main")
    history(repo, 1, start=2)
    repo.git("tag", "-a", "-m", "t", "v1")
    repo.git("push", "-q", "--follow-tags", "origin", "main")
    repo.git("push", "-q", "origin", ":v1", "main:refs/heads/again")


def test_tags_and_other_refs_count(repo: Repo, remote: Path) -> None:
    history(repo, 1)
    repo.git("tag", "-a", "-m", "t", "v1")
    for ref in ("v1", "main:refs/theta/mine", "main:refs/notes/x"):
        push(repo, "origin", ref, ok=1)
    repo.git("commit", "-q", "--allow-empty", "-m", "m")
    blob = repo.git("rev-parse", f"HEAD:{NAME}").strip()
    assert blob in push(repo, "origin", f"{blob}:refs/tags/blob", ok=1)


def test_what_is_committed_whole_is_refused_on_request(repo: Repo, remote: Path) -> None:
    """Also in a commit before the last; and what is not tracked, or is empty, may be whole."""
    guard(remote, "--refuse-whole")
    history(repo, 1)
    repo.git("push", "-q", "origin", "main")
    whole = ("-c", "filter.theta.process=", "-c", "filter.theta.required=false")
    repo.write("sub/é.safetensors", safetensors(model()))
    repo.write("empty.safetensors", b"")
    repo.write("notes.txt", b"not tracked")
    repo.git(*whole, "add", "sub", "empty.safetensors", "notes.txt")
    repo.git("commit", "-q", "-m", "whole")
    repo.git("commit", "-q", "--allow-empty", "-m", "after it")
    said = push(repo, ok=1)
    assert "1 checkpoint committed whole" in said
    assert "sub/" in said
    assert "empty" not in said
    for command in only(said, "migrate").split(" && "):
        do(repo, command)
    repo.git("push", "-q", "origin", "main")
    assert repo.blob("HEAD:sub/é.safetensors").startswith(b"git-theta ")


def test_an_object_of_the_wrong_size_is_missing(repo: Repo, remote: Path) -> None:
    history(repo, 1)
    repo.theta("push", "origin")
    item = objects_of(repo, f"HEAD:{NAME}")[0]
    path = remote / "lfs/objects" / item.oid[:2] / item.oid[2:4] / item.oid
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert item.oid in push(repo, ok=1)


@pytest.mark.parametrize("layout", ["git-lfs", "Gitea and GitLab", "lfs.storage"])
def test_other_stores(repo: Repo, remote: Path, tmp_path: Path, layout: str) -> None:
    history(repo, 1)
    repo.theta("push", "origin")
    store = tmp_path / "the store"
    shutil.move(remote / "lfs", store)
    if layout == "lfs.storage":
        repo.git("--git-dir", str(remote), "config", "lfs.storage", str(store))
    else:
        guard(remote, "--store", str(store))
    if layout == "Gitea and GitLab":
        for path in list(store.glob("objects/??/??/*")):
            two, one = path.parent.name, path.parent.parent.name
            (store / one / two).mkdir(parents=True, exist_ok=True)
            path.rename(store / one / two / path.name[4:])
    push(repo)
    guard(remote, "--store", str(tmp_path / "nowhere"))
    repo.git("commit", "-q", "--allow-empty", "-m", "m")
    assert "is no folder" in push(repo, ok=1)


def test_a_blob_that_only_looks_like_a_manifest_passes_with_a_word(
    repo: Repo, remote: Path
) -> None:
    repo.write("notes.txt", b"git-theta manifest v1\nand \x1b[31m then something else\n")
    repo.commit()
    said = push(repo)
    assert "warning: blob" in said
    assert "\x1b[31m" not in said


def test_evil_paths_are_escaped(repo: Repo, remote: Path) -> None:
    history(repo, 1)
    repo.git("mv", NAME, "\x1b[31mevil\u202e.safetensors")
    repo.commit()
    repo.git("checkout", "-q", "--orphan", "alone")
    repo.git("commit", "-q", "-m", "alone")
    said = push(repo, "origin", "alone", ok=1)
    assert "evil" in said
    assert "\x1b[31m" not in said
    assert "\u202e" not in said


def test_the_work_for_one_push_is_bounded(
    repo: Repo, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(repo, 2)
    repository = Repository.discover(repo.path)
    head = repository.resolve("HEAD")
    updates = [received.Update(None, head, "refs/heads/x")]
    repo.git("update-ref", "-d", "refs/heads/main")
    monkeypatch.setattr(limits, "RECEIVED_BYTES", 2000)
    with pytest.raises(ManifestError, match="more than 2000 bytes"):
        received.check(repository, updates, remote / "lfs")


@pytest.mark.parametrize("text", [b"one\n", b"a b refs/x\n", b"0" * 40 + b" --all refs/x\n"])
def test_lines_that_git_does_not_write_are_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        received.parse(text)


def test_damage_is_not_looked_for(repo: Repo, remote: Path) -> None:
    """Names and sizes are compared; `git theta fsck` on a clone reads the bytes."""
    history(repo, 1)
    repo.theta("push", "origin")
    item = objects_of(repo, f"HEAD:{NAME}")[0]
    damage(remote / "lfs/objects" / item.oid[:2] / item.oid[2:4] / item.oid)
    push(repo)
