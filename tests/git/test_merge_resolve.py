"""Choosing strategies, and settling conflicts: the driver, git theta resolve, git theta status."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.scenarios.advised import advised, do
from tests.scenarios.checkpoints import NAME, changed
from tests.scenarios.collisions import AVERAGE, BASE, LONE, OURS, THEIRS, mean
from tests.scenarios.merges import QUERY, VALUE, branches, content, st
from tests.scenarios.repositories import Repo


@pytest.fixture
def collided(repo: Repo) -> Repo:
    """`main` and `side` changed two tensors both, and `side` another one."""
    lone = {LONE: changed(BASE[LONE])}
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS, lone))
    return repo


def expected(**tensors: np.ndarray) -> bytes:
    return st(BASE, {LONE: changed(BASE[LONE])}, tensors)


def test_a_strategy_from_the_environment(collided: Repo) -> None:
    done = collided.run("git", "merge", "side", env={"GIT_THETA_MERGE": "average"})
    assert b"average: 2 tensors, 100 % of their entries changed on both sides" in done.stderr
    assert content(collided) == expected(**AVERAGE)
    assert collided.status() == ""


def test_a_strategy_from_git_config_and_one_with_parameters(collided: Repo) -> None:
    collided.git("config", "theta.merge.strategy", "average,weights=1:0")
    collided.git("merge", "-q", "side")
    assert content(collided) == expected(**OURS)


def test_strategies_by_tensor_from_the_committed_file(collided: Repo) -> None:
    rules = (
        '[merge]\nstrategy = "average"\n\n'
        f'[[merge.tensor]]\npattern = ["nothing", "{QUERY[:20]}*"]\nstrategy = "theirs"\n'
    )
    collided.write(".theta.toml", rules.encode())
    collided.commit("rules")
    collided.git("merge", "-q", "-m", "merge", "side")
    assert content(collided) == expected(**{QUERY: THEIRS[QUERY], VALUE: mean(VALUE)})


def test_a_mistake_in_the_committed_file_stops_the_merge_and_is_named(collided: Repo) -> None:
    collided.write(".theta.toml", b'[merge]\nstrategy = "avrage"\n')
    collided.commit("rules")
    done = collided.run("git", "merge", "side", ok=(1, 2))
    assert b".theta.toml, [merge]: unknown merge strategy 'avrage'" in done.stderr
    assert content(collided) == st(BASE, OURS)


def test_conflict_then_resolve_tensor_by_tensor(collided: Repo) -> None:
    done = collided.run("git", "merge", "side", ok=(1,))
    assert b"both sides changed 4,096 of 4,096 entries (cosine" in done.stderr
    assert content(collided) == expected(**OURS)
    stages = collided.git("ls-files", "-u")
    assert [line.split()[2] for line in stages.splitlines()] == ["1", "2", "3"]

    shown = json.loads(collided.theta("status", "--json"))["files"][0]
    assert set(shown["open"]) == {QUERY, VALUE}
    assert f"{QUERY}: both sides changed" in collided.theta("status")

    text = collided.theta("resolve", NAME, "--tensor", QUERY, "--strategy", "theirs", ok=(1,))
    assert "1 part open" in text
    assert content(collided) == expected(**{QUERY: THEIRS[QUERY], VALUE: OURS[VALUE]})
    text = collided.theta("resolve", NAME, "--strategy", "average")
    assert "nothing is open" in text
    both = expected(**{QUERY: THEIRS[QUERY], VALUE: mean(VALUE)})
    assert content(collided) == both

    collided.theta("resolve", NAME, "--undo", ok=(1,))
    assert content(collided) == expected(**{QUERY: THEIRS[QUERY], VALUE: OURS[VALUE]})
    collided.theta("resolve", NAME, "--abort", ok=(1,))
    assert content(collided) == expected(**OURS)

    ties = ("--strategy", "ties", "--set", "density=0.2", "--set", "lambda=0")
    collided.theta("resolve", NAME, *ties)
    assert content(collided) == expected(**{QUERY: BASE[QUERY], VALUE: BASE[VALUE]})
    collided.theta("resolve", NAME, "--tensor", "*", "--strategy", "average")
    assert content(collided) == expected(**AVERAGE)
    collided.git("add", NAME)
    collided.git("commit", "-q", "-m", "merged")
    assert collided.status() == ""
    assert content(collided) == expected(**AVERAGE)


def test_resolve_lists_what_is_open_and_changes_nothing(collided: Repo) -> None:
    collided.run("git", "merge", "side", ok=(1,))
    collided.write(NAME, b"something else")
    text = collided.theta("resolve", NAME, ok=(1,))
    assert "2 parts open" in text
    assert QUERY in text
    assert content(collided) == b"something else"


def test_resolve_from_a_folder_below(collided: Repo) -> None:
    collided.run("git", "merge", "side", ok=(1,))
    below = collided.path / "below"
    below.mkdir()
    Repo(below).theta("resolve", f"../{NAME}", "--strategy", "average")
    assert content(collided) == expected(**AVERAGE)


def test_mistakes_of_resolve(collided: Repo) -> None:
    for words, message in (
        ((NAME, "--strategy", "average"), "is not in conflict"),
        ((NAME, "--set", "density=1"), "is not in conflict"),
    ):
        assert message in _error(collided, *words)
    collided.run("git", "merge", "side", ok=(1,))
    for words, message in (
        ((NAME, "--strategy", "avrage"), "unknown merge strategy 'avrage'"),
        ((NAME, "--set", "density=1"), "--set gives a parameter to a strategy"),
        ((NAME, "--strategy", "ties", "--set", "density"), "--set takes NAME=VALUE"),
        ((NAME, "--undo"), "nothing was resolved yet"),
        ((NAME, "--tensor", "nope*", "--strategy", "ours"), "no tensor that both sides changed"),
        (("../out", "--strategy", "ours"), "is outside the work tree"),
    ):
        assert message in _error(collided, *words)
    assert content(collided) == expected(**OURS)


def _error(repo: Repo, *words: str) -> str:
    import sys

    command = (sys.executable, "-m", "git_theta_ext.cli.main", "resolve", *words)
    return repo.run(*command, ok=(1, 2)).stderr.decode()


def test_a_text_merge_with_markers_is_resolved_from_the_index(collided: Repo) -> None:
    # A clone without the extension merges as text, as a server does.
    clone = Repo(collided.path.parent / "clone")
    collided.git("clone", "-q", str(collided.path), str(clone.path))
    clone.run("git", "merge", "origin/side", ok=(1,))
    assert b"<<<<<<<" in content(clone)
    clone.theta("install", "--local")
    text = clone.theta("resolve", NAME, ok=(1,))
    assert "2 parts open" in text
    clone.theta("resolve", NAME, "--strategy", "average")
    assert content(clone) == expected(**AVERAGE)
    clone.commit("merged", NAME)
    assert clone.git("status", "--porcelain", "--", NAME) == ""


def test_markers_that_were_committed(collided: Repo) -> None:
    """In a clone without the extension; nothing is in conflict any more."""
    clone = Repo(collided.path.parent / "clone")
    collided.git("clone", "-q", str(collided.path), str(clone.path))
    clone.run("git", "merge", "origin/side", ok=(1,))
    clone.git("commit", "-q", "-am", "with markers")
    clone.theta("install", "--local")
    said = clone.run("git", "theta", "show", NAME, ok=(4,)).stderr.decode()
    listed, _, taken = said.partition("if it was committed so: ")[2].partition("; to take one: ")
    listed = listed.partition("   ")[0]
    assert "with markers" in do(clone, listed, FILE=NAME)
    do(clone, taken.strip(), REV="HEAD~1", FILE=NAME)
    assert content(clone) == content(collided)


def test_neighbouring_tensors_merge_as_text_without_the_driver(repo: Repo) -> None:
    names = sorted(BASE)
    first, second = names[0], names[1]
    ours, theirs = {first: changed(BASE[first])}, {second: changed(BASE[second])}
    repo.write(".gitattributes", b"*.safetensors filter=theta diff=theta merge=text -text\n")
    branches(repo, st(BASE), st(BASE, ours), st(BASE, theirs))
    repo.git("merge", "-q", "-m", "merge", "side")
    assert content(repo) == st(BASE, ours, theirs)
    assert repo.status() == ""


def test_the_structure_is_settled_by_a_side(repo: Repo) -> None:
    branches(
        repo,
        st(BASE, metadata={"a": "1"}),
        st(BASE, OURS, metadata={"a": "2"}),
        st(BASE, THEIRS, metadata={"a": "3"}),
    )
    repo.run("git", "merge", "side", ok=(1,))
    repo.theta("resolve", NAME, "--strategy", "average", ok=(1,))
    assert content(repo) == st(BASE, AVERAGE, metadata={"a": "2"})
    repo.theta("resolve", NAME, "--structure", "theirs")
    assert content(repo) == st(BASE, AVERAGE, metadata={"a": "3"})
    repo.theta("resolve", NAME, "--abort", ok=(1,))
    repo.theta("resolve", NAME, "--strategy", "theirs")
    assert content(repo) == st(BASE, THEIRS, metadata={"a": "3"})


def test_batchnorm_statistics_are_averaged_and_said_so(repo: Repo) -> None:
    name = "bn.running_var"
    base = {**BASE, name: np.full(300, 1, np.float32)}
    ours, theirs = np.full(300, 0.25, np.float32), np.full(300, 0.5, np.float32)
    branches(repo, st(base), st(base, {name: ours}), st(base, {name: theirs}))
    done = repo.run("git", "merge", "side", env={"GIT_THETA_MERGE": "task-arithmetic"})
    assert b"BatchNorm statistics were averaged" in done.stderr
    assert content(repo) == st(base, {name: np.full(300, 0.375, np.float32)})


def test_statistics_beside_the_checkpoint_serve_fisher(repo: Repo) -> None:
    small = {"w": np.zeros(300, np.float32)}
    repo.write(NAME, st(small))
    start = repo.commit("base")
    for branch, value, mass in (("side", 8, 3), ("main", 4, 1)):
        repo.git("checkout", "-q", "-B", branch, start)
        repo.write(NAME, st({"w": np.full(300, value, np.float32)}))
        statistics = st({"w": np.full(300, mass, np.float32)})
        repo.write("model.fisher.safetensors", statistics)
        repo.commit(branch)
    repo.run("git", "merge", "side", env={"GIT_THETA_MERGE": "fisher"})
    assert content(repo) == st({"w": np.full(300, 7, np.float32)})


def test_recorded_resolutions_are_used_again(collided: Repo) -> None:
    collided.git("config", "rerere.enabled", "true")
    collided.run("git", "merge", "side", ok=(1,))
    collided.theta("resolve", NAME, "--strategy", "average")
    collided.git("merge", "--abort")
    assert content(collided) == st(BASE, OURS)
    done = collided.run("git", "merge", "side", ok=(1,))
    assert b"resolved as recorded" in done.stderr
    assert content(collided) == expected(**AVERAGE)
    assert collided.status().startswith("UU")
    collided.git("merge", "--abort")
    collided.git("config", "rerere.autoUpdate", "true")
    collided.git("merge", "-q", "-m", "merge", "side")
    assert content(collided) == expected(**AVERAGE)


def test_taking_a_side_takes_its_structure_too(repo: Repo) -> None:
    branches(
        repo,
        st(BASE, metadata={"a": "1"}),
        st(BASE, OURS, metadata={"a": "2"}),
        st(BASE, THEIRS, metadata={"a": "3"}),
    )
    repo.run("git", "merge", "-q", "-m", "merge", "side", env={"GIT_THETA_MERGE": "theirs"})
    assert content(repo) == st(BASE, THEIRS, metadata={"a": "3"})


def test_who_adds_what_is_open_is_told_and_can_settle_it_after_all(collided: Repo) -> None:
    collided.run("git", "merge", "side", ok=(1,))
    collided.theta("resolve", NAME, "--tensor", QUERY, "--strategy", "theirs", ok=(1,))
    told = collided.run("git", "add", NAME).stderr.decode()
    assert f"'{NAME}': the merge left 1 tensor open ({VALUE}), and our version of it is" in told
    again, settle = advised(told)
    do(collided, again)
    do(collided, settle, S="theirs")
    assert collided.run("git", "add", NAME).stderr == b""
    assert content(collided) == expected(**THEIRS)

    # One side's file, and what was trained or merged by other means, is a choice.
    for command in (("checkout", "-m", "--", NAME), ("checkout", "--theirs", "--", NAME)):
        collided.git(*command)
    assert collided.run("git", "commit", "-qam", "theirs").stderr == b""


def test_rows_that_both_added_are_proposed_and_stacked(repo: Repo) -> None:
    random = np.random.default_rng(0)
    old, mine, yours = (random.normal(size=(rows, 8)).astype(np.float32) for rows in (20, 2, 3))
    sides = [{"e": np.concatenate([old, rows])} for rows in (mine, yours)]
    branches(repo, st({"e": old}), st(sides[0]), st(sides[1]))
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"both sides added rows, 22 in ours and 23 in theirs" in done.stderr
    repo.theta("resolve", NAME, "--tensor", "e", "--strategy", "stack")
    repo.git("add", NAME)
    repo.git("commit", "-qm", "merged")
    assert content(repo) == st({"e": np.concatenate([old, mine, yours])})
    assert repo.status() == ""
