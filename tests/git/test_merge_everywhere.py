"""More of the ways in which Git merges, and merges that cannot be done."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.scenarios.checkpoints import NAME, changed
from tests.scenarios.diverged import APART, BASE, LONE, OURS, THEIRS
from tests.scenarios.merges import QUERY, VALUE, branches, content, st
from tests.scenarios.repositories import Repo

MEAN = {QUERY: ((OURS[QUERY].astype(np.float64) + THEIRS[QUERY]) / 2).astype(np.float32)}


def plus(ours: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """ours + (new − old), rounded once."""
    return (ours.astype(np.float64) + (new.astype(np.float64) - old)).astype(np.float32)


def test_the_resolve_strategy_of_git(apart: Repo) -> None:
    apart.git("merge", "-q", "-s", "resolve", "-m", "merge", "side")
    assert content(apart) == st(BASE, OURS, APART)
    assert apart.status() == ""


def test_the_recursive_strategy_of_git_which_looks_at_what_it_wrote(repo: Repo) -> None:
    """It cleans the merged file before it writes the index; Git before 2.34 merges like this."""
    half = {
        name: value.astype(ml_dtypes.bfloat16) if value.dtype == np.float32 else value
        for name, value in BASE.items()
    }
    branches(repo, st(BASE), st(half), st(BASE, OURS))
    repo.git("merge", "-q", "-s", "recursive", "-m", "merge", "side")
    assert content(repo) == st(half, {QUERY: OURS[QUERY].astype(ml_dtypes.bfloat16)})
    assert repo.status() == ""


def test_the_resolve_strategy_of_git_with_a_collision(collided: Repo) -> None:
    collided.run("git", "merge", "-s", "resolve", "side", ok=(1,))
    collided.theta("resolve", NAME, "--strategy", "average")
    collided.commit("merged", NAME)
    assert content(collided) == st(BASE, MEAN)


def test_an_interactive_rebase_that_squashes_by_itself(repo: Repo) -> None:
    steps = [changed(BASE[QUERY], seed=1)]
    steps.append(changed(steps[0], seed=2))
    repo.write(NAME, st(BASE))
    repo.commit("base")
    repo.write(NAME, st(BASE, {QUERY: steps[0]}))
    repo.commit("train")
    repo.write(NAME, st(BASE, {QUERY: steps[0]}, APART))
    repo.commit("other")
    repo.write(NAME, st(BASE, {QUERY: steps[1]}, APART))
    repo.commit("fixup! train")
    repo.git("rebase", "-q", "-i", "--autosquash", "HEAD~3", env={"GIT_SEQUENCE_EDITOR": "true"})
    assert repo.git("log", "--format=%s").split("\n")[:2] == ["other", "train"]
    assert content(repo) == st(BASE, {QUERY: steps[1]}, APART)
    assert repo.status() == ""
    repo.git("checkout", "-q", "HEAD~1")
    assert content(repo) == st(BASE, {QUERY: steps[1]})


def test_pull_with_rebase(collided: Repo) -> None:
    clone = Repo(collided.path.parent / "clone")
    collided.git("branch", "shared", "side")
    collided.git("clone", "-q", str(collided.path), str(clone.path), "-b", "main")
    clone.theta("install", "--local")
    clone.theta("pull")
    clone.git("pull", "-q", "--rebase", "origin", "shared")
    assert content(clone) == st(BASE, {QUERY: plus(THEIRS[QUERY], BASE[QUERY], OURS[QUERY])})
    assert clone.status() == ""


def test_checkout_with_merge_and_a_collision_is_resolved(apart: Repo) -> None:
    apart.git("checkout", "-q", "side")
    local = changed(APART[VALUE], seed=8)
    apart.write(NAME, st(BASE, {VALUE: local}))
    apart.run("git", "checkout", "-m", "main", ok=(0, 1))
    # Only the local work changed the tensor against main's version: nothing collides.
    assert content(apart) == st(BASE, OURS, {VALUE: local}) or "UU" in apart.status()


@pytest.mark.parametrize("style", ["merge", pytest.param("zdiff3", marks=pytest.mark.git("2.35"))])
def test_conflict_styles_make_no_difference(collided: Repo, style: str) -> None:
    collided.git("config", "merge.conflictStyle", style)
    collided.run("git", "merge", "side", ok=(1,))
    assert content(collided) == st(BASE, OURS)
    # Git makes the conflict anew, in any style: ours stands again, still a checkpoint.
    collided.theta("resolve", NAME, "--strategy", "theirs")
    collided.run("git", "checkout", f"--conflict={style}", "--", NAME)
    assert content(collided) == st(BASE, OURS)
    collided.git("checkout", "-q", "-m", "--", NAME)
    assert content(collided) == st(BASE, OURS)
    collided.theta("resolve", NAME, "--strategy", "average")
    collided.commit("merged", NAME)
    assert content(collided) == st(BASE, MEAN)


def test_a_criss_cross_whose_ancestors_collide(collided: Repo) -> None:
    collided.git("branch", "old-main")
    for branch, other, chosen in (("main", "side", "ours"), ("side", "old-main", "theirs")):
        collided.git("checkout", "-q", branch)
        env = {"GIT_THETA_MERGE": chosen}
        collided.run("git", "merge", "-q", "-m", f"into {branch}", other, env=env)
        lone = {LONE: changed(BASE[LONE])} if branch == "main" else APART
        collided.write(NAME, st(BASE, OURS, lone))
        collided.commit(f"more of {branch}")
    collided.git("checkout", "-q", "main")
    assert len(collided.git("merge-base", "--all", "main", "side").split()) == 2
    collided.run("git", "merge", "-q", "-m", "last", "side", ok=(0, 1))
    assert content(collided) == st(BASE, OURS, APART, {LONE: changed(BASE[LONE])})


def test_a_stash_in_conflict_is_resolved(collided: Repo) -> None:
    local = changed(OURS[QUERY], seed=9)
    collided.write(NAME, st(BASE, {QUERY: local}))
    collided.git("stash", "-q")
    collided.git("checkout", "-q", "side")
    collided.run("git", "stash", "pop", ok=(1,))
    assert content(collided) == st(BASE, THEIRS)
    collided.theta("resolve", NAME, "--strategy", "reapply")
    assert content(collided) == st(BASE, {QUERY: plus(THEIRS[QUERY], OURS[QUERY], local)})
    collided.git("add", NAME)
    collided.git("stash", "drop", "-q")
    collided.commit("went on")
    assert collided.status() == ""


def test_another_work_tree_merges_and_resolves_for_itself(collided: Repo) -> None:
    other = Repo(collided.path.parent / "other")
    collided.git("worktree", "add", "-q", str(other.path), "side")
    other.run("git", "merge", "main", ok=(1,))
    assert content(other) == st(BASE, THEIRS)
    assert "1 part open" in other.theta("status")
    other.theta("resolve", NAME, "--strategy", "average")
    other.commit("merged", NAME)
    assert content(other) == st(BASE, MEAN)
    assert collided.status() == ""
    assert content(collided) == st(BASE, OURS)


def test_aborting_brings_everything_back(collided: Repo) -> None:
    for begin, end in (("merge", "merge"), ("rebase", "rebase"), ("cherry-pick", "cherry-pick")):
        env = {"GIT_THETA_MERGE": "conflict"}
        collided.run("git", begin, "side", ok=(1,), env=env)
        collided.run("git", "theta", "resolve", NAME, "--strategy", "average", ok=(0,))
        collided.git(end, "--abort")
        assert content(collided) == st(BASE, OURS)
        assert collided.status() == ""


def _hide(repo: Repo) -> Path:
    """Move all objects of any length out of the store, as if they had never been fetched."""
    store, place = repo.path / ".git/theta/objects", repo.path.parent / "hidden"
    shutil.move(store, place)
    store.mkdir()
    return place


def test_objects_that_cannot_be_had_leave_a_merge_that_can_be_aborted(collided: Repo) -> None:
    hidden = _hide(collided)
    done = collided.run("git", "merge", "side", ok=(1, 2, 128), env={"GIT_THETA_MERGE": "average"})
    text = done.stderr.decode()
    assert "cannot merge" in text
    assert "object" in text
    shutil.rmtree(collided.path / ".git/theta/objects")
    shutil.move(hidden, collided.path / ".git/theta/objects")
    if (collided.path / ".git/MERGE_HEAD").exists():
        collided.theta("resolve", NAME, "--strategy", "average")
        assert content(collided) == st(BASE, MEAN)
        collided.git("merge", "--abort")
    assert content(collided) == st(BASE, OURS)
    assert collided.status() == ""


def test_a_strategy_without_its_statistics_stays_open_and_says_why(collided: Repo) -> None:
    for name in ("fisher", "regmean"):
        done = collided.run("git", "merge", "side", ok=(1,), env={"GIT_THETA_MERGE": name})
        kind = "gram" if name == "regmean" else "fisher"
        assert f"no {kind} statistics of both sides: see docs/merging.md".encode() in done.stderr
        assert content(collided) == st(BASE, OURS)
        collided.git("merge", "--abort")
        assert collided.status() == ""


def test_a_side_that_is_no_checkpoint_is_a_conflict_and_can_be_aborted(repo: Repo) -> None:
    repo.write(NAME, st(BASE))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"raw bytes").strip()
    repo.git("update-index", "--cacheinfo", f"100644,{blob},{NAME}")
    repo.git("commit", "-q", "-m", "committed without the extension")
    repo.git("checkout", "-q", "-f", "main")
    repo.write(NAME, st(BASE, OURS))
    repo.commit("ours")
    repo.run("git", "merge", "side", ok=(1,))
    repo.theta("resolve", NAME, "--strategy", "ours")
    assert content(repo) == st(BASE, OURS)
    repo.git("merge", "--abort")
    assert content(repo) == st(BASE, OURS)
    assert repo.status() == ""


def test_other_shapes_collide_and_a_side_is_taken(repo: Repo) -> None:
    ours = {QUERY: np.ones((32, 40), np.float32)}
    theirs = {QUERY: np.ones((8, 8), np.float32)}
    branches(repo, st(BASE), st(BASE, ours), st(BASE, theirs))
    done = repo.run("git", "merge", "side", ok=(1,), env={"GIT_THETA_MERGE": "average"})
    assert b"ours is F32 [32, 40], theirs is F32 [8, 8]" in done.stderr
    assert content(repo) == st(BASE, ours)
    repo.theta("resolve", NAME, "--strategy", "theirs")
    repo.commit("merged", NAME)
    assert content(repo) == st(BASE, theirs)


def test_a_recorded_resolution_serves_a_repeated_rebase(collided: Repo) -> None:
    collided.git("config", "rerere.enabled", "true")
    collided.git("config", "theta.rebase.strategy", "conflict")
    collided.git("checkout", "-q", "side")
    collided.run("git", "rebase", "main", ok=(1,))
    collided.theta("resolve", NAME, "--strategy", "average")
    collided.git("rebase", "--abort")
    done = collided.run("git", "rebase", "main", ok=(1,))
    assert b"resolved as recorded" in done.stderr
    assert content(collided) == st(BASE, MEAN)
