"""Advice for teams that move to storage by tensor: raw blobs, git-lfs, links of a cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.scenarios.advised import advised, do, only, take
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.diverged import APART, BASE, OURS, THEIRS
from tests.scenarios.merges import st
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"


def link_of_a_cache(repo: Repo, name: str = NAME) -> bytes:
    """A checkpoint as the Hugging Face cache has it: a link to a file elsewhere."""
    content = safetensors(model())
    blob = repo.path.parent / "blobs" / "0123abcd"
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(content)
    (repo.path / name).parent.mkdir(parents=True, exist_ok=True)
    (repo.path / name).symlink_to(blob)
    return content


@pytest.mark.parametrize("name", [NAME, "it's mine/-my model.safetensors"])
@pytest.mark.parametrize("verb", [("status",), ("track", "*.safetensors")])
def test_a_link_becomes_the_checkpoint(repo: Repo, name: str, verb: tuple[str, ...]) -> None:
    content = link_of_a_cache(repo, name)
    do(repo, take(repo, "git", "theta", *verb, has="cp -L"))
    assert not (repo.path / name).is_symlink()
    assert (repo.path / name).read_bytes() == content
    assert repo.blob(f":{name}").startswith(b"git-theta ")
    assert "symbolic link" not in repo.theta("status")


def test_a_link_is_named_from_the_folder_of_the_user(repo: Repo) -> None:
    content = link_of_a_cache(repo, "sub folder/model.safetensors")
    do(repo, take(repo, "git", "theta", "status", has="cp -L", folder="sub folder"), "sub folder")
    assert (repo.path / "sub folder/model.safetensors").read_bytes() == content
    assert repo.blob(":sub folder/model.safetensors").startswith(b"git-theta ")


def test_a_folder_of_links_becomes_files(repo: Repo) -> None:
    content = link_of_a_cache(repo, "snapshot/a.safetensors")
    link_of_a_cache(repo, "snapshot/b.safetensors")
    do(repo, take(repo, "git", "theta", "status", has="cp -rL"), FOLDER="snapshot", COPY="whole")
    for name in ("a", "b"):
        assert not (repo.path / f"whole/{name}.safetensors").is_symlink()
        assert (repo.path / f"whole/{name}.safetensors").read_bytes() == content


def lfs(repo: Repo) -> None:
    """Track with git-lfs, in a repository that did not track this with anything."""
    repo.git("lfs", "install", "--local", "--skip-repo")
    (repo.path / ".gitattributes").unlink()
    repo.git("lfs", "track", "*.safetensors")


@pytest.fixture
def moving(repo: Repo) -> Repo:
    """`main` has moved to storage by tensor, `side` is still on git-lfs; both changed the model."""
    lfs(repo)
    repo.write(NAME, st(BASE))
    repo.commit("base, with git-lfs")
    repo.git("checkout", "-q", "-b", "side")
    repo.write(NAME, st(BASE, APART))
    repo.commit("theirs, with git-lfs")
    repo.git("checkout", "-q", "main")
    repo.theta("track", "*.safetensors")
    repo.write(NAME, st(BASE, OURS))
    repo.commit("ours, by tensor")
    assert repo.blob(f"side:{NAME}").startswith(b"version https://git-lfs")
    assert repo.blob(f"main:{NAME}").startswith(b"git-theta ")
    return repo


def test_a_branch_that_is_still_on_git_lfs_is_merged(moving: Repo) -> None:
    moving.git("merge", "-q", "-m", "merge", "side")
    assert (moving.path / NAME).read_bytes() == st(BASE, OURS, APART)
    assert moving.status() == ""
    moving.theta("fsck")


def test_it_is_merged_once_its_objects_are_here(moving: Repo, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    moving.git("clone", "-q", "--bare", str(moving.path), str(bare))
    moving.git("remote", "add", "origin", bare.as_uri())
    moving.git("lfs", "push", "--all", "origin")
    moving.git("push", "-q", "origin", "main", "side")
    moving.git("fetch", "-q", "origin")
    shutil.rmtree(moving.path / ".git/lfs")
    done = moving.run("git", "merge", "side", ok=(1, 2))
    said = done.stderr.decode()
    assert "stored by git-lfs" in said
    do(moving, only(said, "lfs fetch"))
    do(moving, "git merge --abort")
    assert "git merge --abort" in said
    moving.git("merge", "-q", "-m", "merge", "side")
    assert (moving.path / NAME).read_bytes() == st(BASE, OURS, APART)


def test_a_branch_with_raw_checkpoints_is_merged(repo: Repo) -> None:
    without = ("process=", "clean=cat", "smudge=cat", "required=false")
    raw = [word for one in without for word in ("-c", f"filter.theta.{one}")]
    repo.write(NAME, st(BASE))
    repo.git(*raw, "add", NAME)
    repo.git(*raw, "commit", "-q", "-m", "base")
    repo.git("checkout", "-q", "-b", "side")
    repo.write(NAME, st(BASE, APART))
    repo.git(*raw, "add", NAME)
    repo.git(*raw, "commit", "-q", "-m", "theirs")
    repo.git("checkout", "-q", "main")
    repo.write(NAME, st(BASE, OURS))
    repo.commit("ours, by tensor")
    repo.git("merge", "-q", "-m", "merge", "side")
    assert (repo.path / NAME).read_bytes() == st(BASE, OURS, APART)
    assert repo.blob(f"HEAD:{NAME}").startswith(b"git-theta ")


def test_what_git_lfs_tracked_before_can_be_untracked(repo: Repo) -> None:
    lfs(repo)
    command = take(repo, "git", "theta", "track", "*.safetensors", has="lfs untrack")
    do(repo, command)
    text = (repo.path / ".gitattributes").read_text()
    assert "lfs" not in text
    assert "filter=theta" in text


def test_untrack_gives_the_pattern_back_to_git_lfs(repo: Repo) -> None:
    lfs(repo)
    repo.write(NAME, st(BASE))
    repo.theta("track", "*.safetensors")
    repo.commit("by tensor")
    text = repo.theta("untrack", "*.safetensors")
    assert "in Git again" not in text
    do(repo, only(text, "renormalize") + " .")  # this end was taken for that of a sentence
    assert repo.blob(f":{NAME}").startswith(b"version https://git-lfs")


def test_track_advises_what_stages_the_patterns(repo: Repo) -> None:
    do(repo, take(repo, "git", "theta", "track", "*.onnx", has="git add"))
    assert b"*.onnx filter=theta" in repo.blob(":.gitattributes")
    do(repo, take(repo, "git", "theta", "untrack", "*.onnx", has="git add .git"))
    assert b"*.onnx" not in repo.blob(":.gitattributes")


def test_a_raw_blob_is_stored_by_tensor_from_any_folder(repo: Repo) -> None:
    (repo.path / "sub").mkdir()
    content = repo.write("sub/raw.onnx", b"\x08\x07" * 50).read_bytes()
    repo.commit("raw")
    said = repo.theta("track", "*.onnx")
    do(repo, only(said, "renormalize"), "sub")
    assert repo.blob(":sub/raw.onnx").startswith(b"git-theta ")
    assert (repo.path / "sub/raw.onnx").read_bytes() == content
    assert advised(said)


def test_both_sides_of_a_moved_team_conflict_in_the_tensor_alone(moving: Repo) -> None:
    moving.git("checkout", "-q", "-f", "side")
    moving.write(NAME, st(BASE, THEIRS))
    moving.commit("theirs in the same tensor")
    moving.git("checkout", "-q", "-f", "main")
    moving.run("git", "merge", "side", ok=(1,))
    moving.theta("resolve", NAME, "--strategy", "theirs")
    moving.git("add", NAME)
    moving.git("commit", "-q", "-m", "merge")
    assert (moving.path / NAME).read_bytes() == st(BASE, THEIRS)
