"""Every way in which Git brings two versions together: with a driver, and what follows it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.scenarios.checkpoints import NAME, changed
from tests.scenarios.collisions import again
from tests.scenarios.diverged import APART, BASE, LONE, OURS, THEIRS
from tests.scenarios.merges import QUERY, branches, content, st
from tests.scenarios.repositories import Repo


def test_squash(apart: Repo) -> None:
    apart.git("merge", "-q", "--squash", "side")
    assert content(apart) == st(BASE, OURS, APART)
    apart.commit("squashed")
    assert apart.status() == ""


def test_rebase_reapplies_what_collides(collided: Repo) -> None:
    collided.git("checkout", "-q", "side")
    done = collided.run("git", "rebase", "main")
    assert b"reapply: 1 tensor," in done.stderr
    assert content(collided) == st(BASE, {QUERY: again(QUERY, OURS[QUERY], THEIRS[QUERY])})
    assert collided.status() == ""


def test_rebase_in_three_commits_gives_what_one_gives(repo: Repo) -> None:
    steps = [BASE[QUERY]]
    for seed in (11, 12, 13):
        steps.append(changed(steps[-1], seed=seed))
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, {QUERY: steps[1]}))
    repo.git("checkout", "-q", "side")
    for step in steps[2:]:
        repo.write(NAME, st(BASE, {QUERY: step}))
        repo.commit("step")
    repo.git("rebase", "-q", "main")
    found = np.frombuffer(content(repo), np.uint8)
    once = st(BASE, {QUERY: again(QUERY, OURS[QUERY], steps[3])})
    assert len(found) == len(once)
    start = once.index(again(QUERY, OURS[QUERY], steps[3]).tobytes())
    values = np.frombuffer(content(repo)[start : start + BASE[QUERY].nbytes], np.float32)
    expected = again(QUERY, OURS[QUERY], steps[3]).ravel()
    assert np.max(np.abs(values - expected)) < 1e-7


def test_rebase_told_to_leave_conflicts(collided: Repo) -> None:
    collided.git("config", "theta.rebase.strategy", "conflict")
    collided.git("checkout", "-q", "side")
    collided.run("git", "rebase", "main", ok=(1,))
    collided.theta("resolve", NAME, "--strategy", "average")
    collided.git("add", NAME)
    collided.git("-c", "core.editor=true", "rebase", "--continue")
    assert collided.status() == ""


def test_a_merge_strategy_does_not_touch_rebases(collided: Repo) -> None:
    collided.git("config", "theta.merge.strategy", "average")
    collided.git("checkout", "-q", "side")
    collided.git("rebase", "-q", "main")
    assert content(collided) == st(BASE, {QUERY: again(QUERY, OURS[QUERY], THEIRS[QUERY])})


def test_rebase_by_applying_patches(apart: Repo) -> None:
    apart.git("checkout", "-q", "side")
    apart.git("rebase", "-q", "--apply", "main")
    assert content(apart) == st(BASE, OURS, APART)


def test_cherry_pick_reapplies(collided: Repo) -> None:
    collided.git("cherry-pick", "side")
    assert content(collided) == st(BASE, {QUERY: again(QUERY, OURS[QUERY], THEIRS[QUERY])})
    assert collided.status() == ""


def test_cherry_pick_with_the_environment_overruled(collided: Repo) -> None:
    collided.run("git", "cherry-pick", "side", env={"GIT_THETA_MERGE": "theirs"}, ok=(0, 1))
    assert content(collided) == st(BASE, THEIRS)


def test_revert_of_what_collides_with_later_work_says_so(repo: Repo) -> None:
    first, second = changed(BASE[QUERY], seed=1), changed(BASE[QUERY], seed=2)
    versions = [st(BASE), st(BASE, {QUERY: first}), st(BASE, {QUERY: second})]
    for version in versions:
        repo.write(NAME, version)
        repo.commit("version")
    done = repo.run("git", "revert", "--no-edit", "HEAD~1")
    assert b"most entries changed on both sides" in done.stderr
    undone = second.astype(np.float64) + (BASE[QUERY].astype(np.float64) - first)
    assert content(repo) == st(BASE, {QUERY: undone.astype(np.float32)})


def test_revert_of_what_stands_alone_is_exact(apart: Repo) -> None:
    apart.git("merge", "-q", "-m", "merge", "side")
    apart.git("revert", "--no-edit", "-m", "1", "HEAD")
    assert content(apart) == st(BASE, OURS)


def test_stash_pop_merges_and_a_collision_is_a_conflict(apart: Repo) -> None:
    apart.write(NAME, st(BASE, OURS, APART))
    apart.git("stash", "-q")
    apart.write(NAME, st(BASE, OURS, {LONE: changed(BASE[LONE])}))
    apart.commit("other")
    apart.git("stash", "pop", "-q")
    assert content(apart) == st(BASE, OURS, APART, {LONE: changed(BASE[LONE])})
    apart.git("checkout", "-q", "--", NAME, ok=(0, 1))
    apart.git("reset", "-q", "--hard")
    apart.write(NAME, st(BASE, THEIRS))
    apart.git("stash", "-q")
    apart.write(NAME, st(BASE, {QUERY: changed(BASE[QUERY], seed=9)}))
    apart.commit("collides")
    done = apart.run("git", "stash", "pop", ok=(1,))
    assert b"both sides changed" in done.stderr


def test_octopus_leaves_a_checkpoint(repo: Repo) -> None:
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, APART))
    repo.git("checkout", "-q", "-b", "third", "main~1")
    repo.write(NAME, st(BASE, {LONE: changed(BASE[LONE])}))
    repo.commit("third")
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "-m", "octopus", "side", "third")
    assert content(repo) == st(BASE, OURS, APART, {LONE: changed(BASE[LONE])})
    assert repo.status() == ""


def test_a_checkpoint_that_was_renamed_on_one_side(repo: Repo) -> None:
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, APART))
    repo.git("mv", NAME, "moved.safetensors")
    repo.commit("moved")
    repo.git("merge", "-q", "-m", "merge", "side")
    assert (repo.path / "moved.safetensors").read_bytes() == st(BASE, OURS, APART)
    assert repo.status() == ""


def test_a_renamed_checkpoint_in_conflict_is_resolved(repo: Repo) -> None:
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS))
    repo.git("mv", NAME, "moved.safetensors")
    repo.commit("moved")
    repo.run("git", "merge", "side", ok=(1,))
    repo.theta("resolve", "moved.safetensors", "--strategy", "theirs")
    assert (repo.path / "moved.safetensors").read_bytes() == st(BASE, THEIRS)


def test_criss_cross_histories_merge(repo: Repo) -> None:
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, APART))
    repo.git("branch", "old-main")
    repo.git("merge", "-q", "-m", "one", "side")
    repo.git("checkout", "-q", "side")
    repo.git("merge", "-q", "-m", "other", "old-main")
    repo.write(NAME, st(BASE, OURS, APART, {LONE: changed(BASE[LONE])}))
    repo.commit("more")
    repo.git("checkout", "-q", "main")
    head = "head.weight"
    bias = {head: (BASE[head].astype(np.float32) + 1).astype(BASE[head].dtype)}
    repo.write(NAME, st(BASE, OURS, APART, bias))
    repo.commit("more too")
    repo.git("merge", "-q", "-m", "last", "side")
    assert content(repo) == st(BASE, OURS, APART, bias, {LONE: changed(BASE[LONE])})


@pytest.mark.git("2.38")  # --write-tree
def test_merge_tree_writes_nothing_into_the_work_tree(collided: Repo) -> None:
    before = collided.status()
    done = collided.run("git", "merge-tree", "--write-tree", "main", "side", ok=(1,))
    assert NAME.encode() in done.stdout
    assert collided.status() == before
    assert content(collided) == st(BASE, OURS)


@pytest.mark.git("2.38")  # --write-tree
def test_merging_reads_no_tensor_that_one_side_changed(apart: Repo) -> None:
    store = apart.path / ".git" / "theta" / "objects"
    weights = [path for path in store.rglob("*") if path.is_file() and path.stat().st_size > 2000]
    assert weights
    for path in weights:
        path.rename(path.with_name("hidden" + path.name))
    # Without a single tensor in the store, the merge itself still succeeds.
    done = apart.run("git", "merge-tree", "--write-tree", "main", "side")
    assert len(done.stdout.split()[0]) == 40
