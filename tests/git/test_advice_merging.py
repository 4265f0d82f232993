"""What a merge that stopped advises, from the folder that the user stands in."""

from __future__ import annotations

import numpy as np
import pytest

from tests.scenarios.advised import advised, do, only
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.diverged import APART, BASE, OURS, THEIRS
from tests.scenarios.merges import branches, st
from tests.scenarios.repositories import Repo

NAME = "sub folder/it's mine.safetensors"
LAST = "it's mine.safetensors"


@pytest.fixture
def stopped(repo: Repo) -> Repo:
    """Both branches changed one tensor of a checkpoint in a subfolder."""
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS), NAME)
    return repo


@pytest.mark.parametrize("folder", [".", "sub folder"])
def test_a_conflict(stopped: Repo, folder: str) -> None:
    words = ("sh", "-c", f'cd "{folder}" && git merge side')
    said = stopped.run(*words, ok=(1,)).stderr.decode()
    resolve, add = [one for one in advised(said) if "resolve" in one or "git add" in one]
    printed = do(stopped, resolve, folder)
    assert add in printed.replace("written", "")
    do(stopped, add, folder)
    stopped.git("commit", "-q", "-m", "merge")
    assert stopped.status() == ""


@pytest.mark.parametrize("folder", [".", "sub folder"])
def test_what_could_not_be_merged_is_merged_later(repo: Repo, folder: str) -> None:
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS), NAME)
    repo.git("config", "theta.merge.strategy", "avrage")
    words = ("sh", "-c", f'cd "{folder}" && git merge side')
    said = repo.run(*words, ok=(1,)).stderr.decode()
    resolve = only(said, "theta resolve")
    repo.git("config", "theta.merge.strategy", "theirs")
    do(repo, only(do(repo, resolve, folder), "git add"), folder)
    assert (repo.path / NAME).read_bytes() == st(BASE, THEIRS)
    repo.git("commit", "-q", "-m", "merge")


def test_what_is_open_is_listed_to_the_end(repo: Repo) -> None:
    names = [f"layer.{number}.weight" for number in range(40)]
    versions = [{name: np.full(300, float(n), np.float32) for name in names} for n in range(3)]
    base, ours, theirs = (safetensors(one) for one in versions)
    branches(repo, base, ours, theirs, NAME)
    said = repo.run("git", "merge", "side", ok=(1,)).stderr.decode()
    assert names[-1] + ":" not in said
    listed = do(repo, only(said, "theta status"))
    for name in names:
        assert f"{name}: " in listed


def test_resolve_without_a_strategy_says_how_to_take_it(stopped: Repo) -> None:
    stopped.run("git", "merge", "side", ok=(1,))
    stopped.theta("resolve", NAME, "--strategy", "theirs")
    said = stopped.run("sh", "-c", f'cd "sub folder" && git theta resolve "{LAST}"').stdout
    do(stopped, only(said.decode(), "git add"), "sub folder")
    assert (stopped.path / NAME).read_bytes() == st(BASE, THEIRS)
    assert "UU" not in stopped.status()
    words = ("git", "theta", "resolve", NAME, "--strategy", "ours")
    said = stopped.run(*words, ok=(2,)).stderr
    assert "Changes to be committed" in do(stopped, only(said.decode(), "git status"))


@pytest.mark.parametrize("others", [("third",), ("side", "third")])
def test_a_merge_does_not_begin_before_another_is_concluded(
    stopped: Repo, others: tuple[str, ...]
) -> None:
    stopped.git("branch", "third", "side~1")
    stopped.run("git", "merge", "side", ok=(1,))
    words = ("git", "theta", "merge", *others, "--strategy", "average")
    said = stopped.run(*words, ok=(10,)).stderr.decode()
    assert "git merge --abort" in do(stopped, only(said, "git status"))
    assert stopped.status() == f'UU "{NAME}"\n'
    stopped.theta("resolve", NAME, "--strategy", "theirs")
    stopped.git("add", NAME)
    stopped.run(*words, ok=(10,))  # settled, and not yet committed
    stopped.git("commit", "-q", "-m", "merge")
    assert stopped.git("rev-list", "--count", "--merges", "HEAD").strip() == "1"


@pytest.mark.parametrize("way", ["git add", "git rm"])
def test_deleted_on_one_side(repo: Repo, way: str) -> None:
    repo.write(NAME, st(BASE))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    repo.git("rm", "-q", NAME)
    repo.git("commit", "-q", "-m", "deleted")
    repo.git("checkout", "-q", "main")
    repo.write(NAME, st(BASE, OURS))
    repo.commit("ours")
    repo.run("git", "merge", "side", ok=(1,))
    words = ("sh", "-c", f'cd "sub folder" && git theta resolve "{LAST}" --strategy ours')
    said = repo.run(*words, ok=(2,)).stderr.decode()
    start = said.index(way)
    do(repo, said[start:].splitlines()[0].partition("   ")[0], "sub folder")
    repo.git("commit", "-q", "-m", "merge")
    assert (repo.path / NAME).exists() == (way == "git add")


def test_markers_of_a_merge_as_text(repo: Repo) -> None:
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS), NAME)
    repo.git("config", "merge.theta.driver", "git merge-file --marker-size=7 %A %O %B")
    said = repo.run("sh", "-c", 'cd "sub folder" && git merge side', ok=(1,)).stderr
    command = next(one for one in advised(said.decode()) if "--strategy S" in one)
    do(repo, command.replace("--strategy S", "--strategy theirs"), "sub folder")
    repo.git("add", NAME)
    assert (repo.path / NAME).read_bytes() == st(BASE, THEIRS)


def test_a_merge_without_the_driver_in_which_nothing_is_open(repo: Repo) -> None:
    """What stands in the work tree is ours alone: to take that would lose theirs."""
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, APART), NAME)
    repo.run("git", "-c", "merge.theta.driver=false", "merge", "side", ok=(1,))
    assert (repo.path / NAME).read_bytes() == st(BASE, OURS)
    do(repo, only(repo.theta("resolve", NAME), "git add"))
    assert (repo.path / NAME).read_bytes() == st(BASE, OURS, APART)
    repo.git("commit", "-q", "--no-edit")
    assert repo.status() == ""


def test_what_is_listed_as_open_says_how_to_go_on(stopped: Repo) -> None:
    stopped.run("git", "merge", "side", ok=(1,))
    listed = stopped.theta("resolve", NAME, ok=(1,))
    command = only(listed, "resolve")
    add = only(do(stopped, command.replace("average", "theirs")), "git add")
    do(stopped, add)
    assert (stopped.path / NAME).read_bytes() == st(BASE, THEIRS)


def test_a_branch_that_is_none(stopped: Repo) -> None:
    for words in (["nope"], ["nope", "side"]):
        said = stopped.run("git", "theta", "merge", *words, ok=(2,)).stderr.decode()
        assert "side" in do(stopped, only(said, "git branch"))


def test_status_of_what_is_not_on_both_sides(repo: Repo) -> None:
    """Renamed to two names: each of the three has its own way on, and none is a strategy."""
    repo.write(NAME, st(BASE))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    repo.git("mv", NAME, "b.safetensors")
    repo.git("commit", "-q", "-m", "theirs")
    repo.git("checkout", "-q", "main")
    repo.git("mv", NAME, "a.safetensors")
    repo.git("commit", "-q", "-m", "ours")
    repo.run("git", "merge", "side", ok=(1,))
    status = repo.theta("status")
    assert "--strategy" not in status
    for name, way in (("a.", "git add"), ("b.", "git rm"), ("mine.", "git rm")):
        (line,) = [one for one in status.splitlines() if "not on both" in one and name in one]
        do(repo, way + line.partition(way)[2].partition("   ")[0])
    repo.git("commit", "-q", "--no-edit")
    assert repo.status() == ""
    assert (repo.path / "a.safetensors").read_bytes() == st(BASE)
    assert not (repo.path / "b.safetensors").exists()


def test_a_conflict_outside_of_a_sparse_checkout(stopped: Repo) -> None:
    """Git writes such a file all the same, and then `git add` refuses it without its option."""
    stopped.write("small/m.safetensors", st(BASE))
    stopped.commit("another")
    stopped.git("sparse-checkout", "set", "small")
    pulled = stopped.theta("pull")
    assert "The checkpoint is in the work tree" in pulled
    assert f"not in the work tree: 1 checkpoint, such as {NAME}" in pulled
    said = stopped.run("git", "merge", "side", ok=(1,)).stderr.decode()
    resolve, add = [one for one in advised(said) if "resolve" in one or "git add" in one]
    assert only(do(stopped, resolve.replace("average", "theirs")), "git add") == add
    do(stopped, add)
    stopped.git("commit", "-q", "-m", "merge")
    stopped.git("sparse-checkout", "disable")
    assert (stopped.path / NAME).read_bytes() == st(BASE, THEIRS)
    assert stopped.status() == ""
