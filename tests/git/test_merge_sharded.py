"""Merging sharded models: tensors that moved between shards have not changed."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.scenarios.advised import do, only, take
from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.sharded import (
    INDEX,
    PATTERN,
    arrays,
    read,
    same,
    sides,
    trained,
    write,
)


def test_shards_merge_by_themselves_where_nothing_moved(repo: Repo) -> None:
    ours, theirs = trained("layers.1.w", "layers.7.w"), trained("layers.2.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 6)))
    repo.git("merge", "-q", "-m", "merge", "side")
    assert same(read(repo)[0], ours, theirs)


@pytest.mark.parametrize(("resharding", "reverse"), [((0, 4), False), ((0, 3, 6, 9), True)])
def test_one_side_sharded_the_model_anew(
    repo: Repo, resharding: tuple[int, ...], reverse: bool
) -> None:
    ours = trained("layers.1.w", "layers.5.w", "layers.10.w")
    theirs = trained("layers.4.w", seed=2)
    if reverse:
        sides(repo, (theirs, resharding), (ours, (0, 6)))
    else:
        sides(repo, (ours, (0, 6)), (theirs, resharding))
    text = repo.theta("merge", "side")
    assert "all shards are merged as one model" in text
    found, places = read(repo)
    assert same(found, ours, theirs)
    assert len(set(places.values())) == len(resharding)
    assert repo.status() == ""
    assert repo.git("log", "-1", "--format=%P").count(" ") == 1
    repo.git("checkout", "-q", "HEAD~1")
    repo.git("checkout", "-q", "main")
    assert same(read(repo)[0], ours, theirs)


def test_what_collides_is_settled_by_a_strategy(repo: Repo) -> None:
    ours, theirs = trained("layers.5.w"), trained("layers.5.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4, 8)))
    evaluate = ("git", "theta", "merge", "side", "--tune", "echo {checkpoint} 1")
    do(repo, take(repo, *evaluate, has="--strategy average"))
    mean = (ours["layers.5.w"].astype(np.float64) + theirs["layers.5.w"]) / 2
    assert same(read(repo)[0], {"layers.5.w": mean.astype(np.float32)})
    assert repo.status() == ""


def test_a_conflict_is_resolved_for_the_whole_model(repo: Repo) -> None:
    ours = trained("layers.5.w", "layers.1.w")
    theirs = trained("layers.5.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4, 8)))
    text = repo.theta("merge", "side", ok=(1,))
    assert "layers.5.w: both sides changed 600 of 600 entries" in text
    assert "UU" in repo.status() or "AA" in repo.status() or "UA" in repo.status()
    assert same(read(repo)[0], ours)
    assert "1 part open" in repo.theta("resolve", PATTERN, ok=(1,))
    do(repo, only(text, "--strategy average"))
    assert not same(read(repo)[0], ours)
    repo.theta("resolve", INDEX, "--undo", ok=(1,))
    done = repo.theta("resolve", INDEX, "--strategy", "theirs")
    assert f"git add -A -- '{PATTERN}' {INDEX}" in done
    assert same(read(repo)[0], ours, theirs)
    repo.theta("resolve", INDEX, "--undo", ok=(1,))
    assert same(read(repo)[0], ours)
    repo.theta("resolve", PATTERN, "--strategy", "theirs")
    repo.git("add", "-A", "--", PATTERN, INDEX)
    repo.git("commit", "-q", "--no-edit")
    assert repo.status() == ""
    assert same(read(repo)[0], ours, theirs)


def test_gits_own_merge_says_what_to_do_and_is_resolved(repo: Repo) -> None:
    ours, theirs = trained("layers.5.w"), trained("layers.1.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4)))
    done = repo.run("git", "merge", "side", ok=(1,))
    assert f"git theta resolve '{PATTERN}'".encode() in done.stderr
    repo.theta("resolve", PATTERN, "--structure", "theirs")
    found, places = read(repo)
    assert same(found, ours, theirs)
    assert places["layers.5.w"] == "model-00002-of-00002.safetensors"


def test_both_sides_moved_tensors_and_one_of_them_is_chosen(repo: Repo) -> None:
    ours, theirs = trained("layers.5.w"), trained("layers.1.w", seed=2)
    sides(repo, (ours, (0, 3)), (theirs, (0, 4, 8)))
    text = repo.theta("merge", "side", ok=(1,))
    assert "choose with --structure ours or theirs" in text
    repo.theta("resolve", INDEX, "--structure", "theirs")
    found, places = read(repo)
    assert same(found, ours, theirs)
    assert len(set(places.values())) == 3


def test_a_cherry_pick_across_shardings(repo: Repo) -> None:
    ours, theirs = trained("layers.5.w"), trained("layers.1.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4, 8)))
    repo.run("git", "cherry-pick", "side", ok=(0, 1))
    repo.theta("resolve", PATTERN, "--strategy", "reapply")
    assert same(read(repo)[0], ours, theirs)


def test_a_tensor_added_beside_a_new_sharding(repo: Repo) -> None:
    ours = {**trained("layers.5.w"), "layers.12.w": np.ones((3, 3), np.float32)}
    sides(repo, (ours, (0, 6)), ({}, (0, 4, 8)))
    repo.theta("merge", "side")
    found, places = read(repo)
    assert same(found, ours)
    assert places["layers.12.w"] == "model-00003-of-00003.safetensors"


def test_mistakes(repo: Repo) -> None:
    ours, theirs = trained("layers.5.w"), trained("layers.1.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4, 8)))
    done = repo.run("git-theta", "resolve", PATTERN, ok=(2,))
    assert b"no merge, rebase, cherry-pick or revert is in progress" in done.stderr
    repo.run("git", "merge", "side", ok=(1,))
    done = repo.run("git-theta", "resolve", "llm/other-*-of-*.safetensors", ok=(2,))
    assert b"matches no tracked shards in HEAD" in done.stderr


def test_coupled_tensors_in_two_shards_are_one_conflict(repo: Repo) -> None:
    codes, scale = np.ones((20, 30), np.int8), np.ones((20, 1), np.float32)
    base = {"l.weight": codes, "l.weight_scale": scale, "norm": np.zeros(300, np.float32)}
    versions = {
        "base": base,
        "side": {**base, "l.weight_scale": scale * 2},
        "main": {**base, "l.weight": codes * 3},
    }
    for branch, tensors in versions.items():
        if branch == "side":
            repo.git("checkout", "-q", "-b", "side")
        if branch == "main":
            repo.git("checkout", "-q", "main")
        write(repo, tensors, 0, 1)
        repo.commit(branch)
    done = repo.run("git", "theta", "merge", "side", ok=(0, 1))
    assert done.returncode == 1
    assert b"the quantised l: take one side" in done.stdout
    shards = sorted((repo.path / "llm").glob("model-*.safetensors"))
    for side in ("theirs", "ours"):
        repo.git("theta", "resolve", PATTERN, "-t", "l.*", "--strategy", side)
        found = {name: value for path in shards for name, value in load_file(path).items()}
        wanted = versions["side" if side == "theirs" else "main"]
        assert all(np.array_equal(found[name], value) for name, value in wanted.items())


def test_unused_statistics_are_told_under_the_models_name(repo: Repo) -> None:
    repo.write("llm/model.fisher.safetensors", safetensors(arrays()))
    ours, theirs = trained("layers.0.w"), trained("layers.0.w", seed=2)
    sides(repo, (ours, (0, 6)), (theirs, (0, 4)))
    done = repo.run("git", "theta", "merge", "side", "--strategy", "average")
    told = "statistics of both sides are at hand, and fisher would use them"
    assert done.stderr.decode().count(told) == 1
