"""What `git theta status` and `track` say of files that are stored whole, or are in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from git_theta_ext.core.text import size
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

NAME = "sub folder/it's mine.safetensors"
CONTENT = safetensors(model())


def line(repo: Repo, has: str, folder: str = ".") -> str:
    """The line of the status that has a text."""
    (found,) = [one for one in do(repo, "git theta status", folder).splitlines() if has in one]
    return found


@pytest.mark.parametrize("folder", [".", "sub folder"])
def test_a_backup_of_mergetool_is_named(repo: Repo, folder: str) -> None:
    repo.write(NAME, CONTENT)
    repo.commit()
    assert "orig" not in repo.theta("status")
    repo.write(f"{NAME}.orig", CONTENT)
    repo.write("other.orig", b"of no checkpoint")
    found = line(repo, ".orig", folder)
    assert f"({size(len(CONTENT))})" in found
    do(repo, "rm " + found.partition("rm ")[2], folder)
    assert not (repo.path / f"{NAME}.orig").exists()
    assert (repo.path / "other.orig").exists()
    assert "orig" not in repo.theta("status")


def test_a_backup_that_was_added_is_taken_out_again(repo: Repo) -> None:
    repo.write(NAME, CONTENT)
    repo.write(f"{NAME}.orig", CONTENT)
    repo.git("add", ".")
    do(repo, "git rm" + line(repo, ".orig").partition("git rm")[2])
    assert ".orig" not in repo.git("ls-files")
    assert (repo.path / f"{NAME}.orig").exists()


def test_an_ignored_backup_is_not_named(repo: Repo) -> None:
    repo.write(NAME, CONTENT)
    repo.commit()
    repo.write(f"{NAME}.orig", CONTENT)
    repo.write(".gitignore", b"*.orig\n")
    assert ".orig" not in repo.theta("status")


@pytest.fixture
def lfs(new_repo: Callable[..., Repo], tmp_path: Path) -> Repo:
    """A repository with a checkpoint that git-lfs stores, pushed."""
    plain = new_repo("lfs", install=False)
    plain.git("lfs", "install", "--local")
    plain.git("lfs", "track", "*.safetensors")
    plain.write(NAME, CONTENT)
    plain.commit("with git-lfs")
    plain.git("init", "-q", "--bare", str(tmp_path / "host.git"))
    plain.git("remote", "add", "origin", str(tmp_path / "host.git"))
    plain.git("push", "-q", "origin", "main")
    plain.git("lfs", "untrack", "*.safetensors")
    return plain


def stored_by_tensor(repo: Repo) -> None:
    assert repo.blob(f":{NAME}").startswith(b"git-theta manifest")
    repo.git("commit", "-q", "-am", "by tensor")
    assert repo.status() == ""
    assert (repo.path / NAME).read_bytes() == CONTENT
    assert "git-lfs" not in repo.theta("status")


def test_what_git_lfs_stores_is_called_so(lfs: Repo) -> None:
    said = lfs.theta("track", "*.safetensors")
    assert "1 checkpoint already stored by git-lfs" in said
    assert "plain blob" not in said + lfs.theta("status")
    (row,) = json.loads(lfs.theta("status", "--json"))["files"]
    assert (row["stored_as"], row["raw_bytes"]) == ("stored by git-lfs", len(CONTENT))
    command = only(line(lfs, "them tensor by tensor"))
    assert command == only(said, "renormalize")
    do(lfs, command)
    stored_by_tensor(lfs)


def test_a_pointer_in_the_work_tree_is_fetched_first(lfs: Repo, tmp_path: Path) -> None:
    environment = {"GIT_LFS_SKIP_SMUDGE": "1"}
    lfs.run("git", "clone", "-q", str(tmp_path / "host.git"), str(tmp_path / "c"), env=environment)
    clone = Repo(tmp_path / "c")
    clone.git("lfs", "install", "--local")
    clone.git("lfs", "untrack", "*.safetensors")
    said = clone.theta("track", "*.safetensors")
    assert "kept exactly" not in said
    assert "git-lfs pointer in the work tree" in clone.theta("status")
    pull, _, store = said.partition("tensor by tensor: ")[2].strip().partition(", then: ")
    assert f"{pull}, then: {store}" in clone.theta("status")
    do(clone, pull)
    do(clone, store)
    stored_by_tensor(clone)


def test_a_work_tree_of_jujutsu_is_named_until_it_has_manifests(repo: Repo) -> None:
    repo.write(NAME, CONTENT)
    repo.commit()
    assert "Jujutsu" not in repo.theta("status")
    (repo.path / ".jj").mkdir()
    do(repo, line(repo, "Jujutsu").partition("work tree: ")[2].partition("  ")[0])
    (repo.path / NAME).unlink()
    repo.git("checkout", "--", NAME)
    assert (repo.path / NAME).read_bytes() == repo.blob(f":{NAME}")
    assert "Jujutsu" not in repo.theta("status")
