"""git theta merge: with a strategy, its plan, and tuned by an evaluation."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.scenarios.advised import do, only, take
from tests.scenarios.checkpoints import NAME
from tests.scenarios.collisions import AVERAGE, BASE, LONE, OURS, THEIRS
from tests.scenarios.merges import QUERY, branches, content, evaluation, st
from tests.scenarios.repositories import Repo


@pytest.fixture
def collided(repo: Repo) -> Repo:
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS))
    return repo


@pytest.fixture
def scalar(repo: Repo) -> Repo:
    """`w` is 0 in the base, 2 in ours, 4 in theirs."""
    versions = [st({"w": np.full(300, value, np.float32)}) for value in (0, 2, 4)]
    branches(repo, versions[0], versions[1], versions[2])
    return repo


def test_a_strategy_with_parameters(collided: Repo) -> None:
    collided.theta("merge", "side", "--strategy", "average", "--set", "weights=1,1")
    assert content(collided) == st(BASE, AVERAGE)
    assert collided.status() == ""
    assert collided.git("log", "-1", "--format=%P").count(" ") == 1


def test_without_a_strategy_conflicts_are_gits_own(collided: Repo) -> None:
    done = collided.run(sys.executable, "-m", "git_theta_ext.cli.main", "merge", "side", ok=(1,))
    assert b"CONFLICT" in done.stdout
    assert QUERY.encode() in done.stderr


def test_the_plan_says_what_would_be_done_and_does_nothing(repo: Repo) -> None:
    lone = {LONE: BASE[LONE] + 1}
    branches(repo, st(BASE), st(BASE, OURS), st(BASE, THEIRS, lone))
    head = repo.git("rev-parse", "HEAD")
    text = repo.theta("merge", "side", "--plan", "--strategy", "ties")
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == f"{NAME}  (strategy: --strategy)"
    row = next(line for line in lines if line.startswith(QUERY + " "))
    assert row.endswith("ours changed  theirs changed  entry by entry; where both changed: ties")
    row = next(line for line in lines if line.startswith(LONE))
    assert row.split()[1:] == ["ours", "kept", "theirs", "changed", "theirs"]
    assert any(line.startswith(f"{QUERY}: 100 % of its entries") for line in lines)
    assert lines[-3].startswith("together: 100 % of the entries collide (cosine")
    assert lines[-2].startswith("the sides learned different things")
    assert repo.git("rev-parse", "HEAD") == head
    assert repo.status() == ""


def test_tuning_finds_the_length_and_merges_when_told(scalar: Repo) -> None:
    command = evaluation(scalar, 5.1)
    text = scalar.theta("merge", "side", "--tune", command, ok=(1,))
    assert "ours: 0.69 ± 0.023" in text
    assert "To take it: git theta merge side --strategy task-arithmetic,lambda=0.85" in text
    assert content(scalar) == st({"w": np.full(300, 2, np.float32)})
    assert scalar.status() == ""
    take_it = only(text, "--strategy")
    do(scalar, take_it)
    tuned = content(scalar)
    scalar.git("reset", "-q", "--hard", "HEAD~1")
    scalar.theta("merge", "side", "--tune", command, "--yes")
    assert content(scalar) == tuned
    found = np.frombuffer(content(scalar)[-1200:], np.float32)
    assert found == pytest.approx(np.full(300, 5.1))
    # What was measured is kept with the tensors, so the merge has its score, and each side its own.
    lines = scalar.theta("scores", NAME).splitlines()
    assert "tune/score" in lines[0]
    assert ["1 ±" in line for line in lines[1:3]] == [True, False]
    assert sum("0.69 ±0.023" in line for line in lines) == 1


def test_tuning_without_a_command_says_how_one_is_given(scalar: Repo) -> None:
    command = take(scalar, "git", "theta", "merge", "side", "--tune", has="--tune")
    evaluation(scalar, 5.1)
    (scalar.path.parent / "evaluate.py").rename(scalar.path / "evaluate.py")
    assert "To take it: git theta merge side" in do(scalar, command, ok=(1,))


def test_tuning_says_when_no_merge_is_better(scalar: Repo) -> None:
    text = scalar.theta("merge", "side", "--yes", "--tune", evaluation(scalar, 2, 20), ok=(1,))
    assert "no merge beats ours" in text
    assert "the base is better" not in text
    assert "20 examples say little; take at least 100" in text
    assert "Nothing was merged." in text
    assert scalar.git("log", "-1", "--format=%P").count(" ") == 0


def test_the_evaluation_may_stand_in_the_committed_file(scalar: Repo) -> None:
    command = evaluation(scalar, 3).replace("\\", "\\\\")
    scalar.write(".theta.toml", f'[merge]\nstrategy = "average"\nevaluate = "{command}"\n'.encode())
    scalar.commit("how to evaluate")
    scalar.theta("allow")
    assert "task-arithmetic,lambda=0.5: 1 ± 0" in scalar.theta("merge", "side", "--tune", ok=(1,))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("side", "--tune"), "--tune needs a command"),
        (("side", "--tune", "true"), "does not name the checkpoint"),
        (("side", "--tune", "false {checkpoint}"), "the evaluation exited with 1"),
        (("side", "--tune", "echo {checkpoint} x"), "the evaluation ended with"),
        (("side", "--tune", "echo 1 {checkpoint}", "--strategy", "ties"), "finds the strategy"),
        (("nowhere", "--plan"), "'nowhere' is not a branch or commit here"),
        (("side", "--strategy", "tis"), "unknown merge strategy 'tis'"),
        (("side", "--strategy", "ties", "--set", "k=2"), "ties has no parameter 'k'"),
    ],
)
def test_mistakes(scalar: Repo, words: tuple[str, ...], message: str) -> None:
    command = (sys.executable, "-m", "git_theta_ext.cli.main", "merge", *words)
    done = scalar.run(*command, ok=(14 if "the evaluation" in message else 2,))
    assert message in done.stderr.decode()
    assert content(scalar) == st({"w": np.full(300, 2, np.float32)})


def test_an_interrupted_tuning_goes_on_where_it_was(scalar: Repo) -> None:
    log = scalar.path.parent / "evaluated"
    stop = scalar.path.parent / "stop"
    script = scalar.path.parent / "evaluate.py"
    script.write_text(
        f"import pathlib, sys\nlog = pathlib.Path({str(log)!r})\n"
        "count = len(log.read_text()) if log.exists() else 0\n"
        f"if count == 4 and pathlib.Path({str(stop)!r}).exists(): sys.exit(3)\n"
        "log.write_text('x' * (count + 1))\nprint(0.5, 400)\n"
    )
    stop.write_text("")
    command = f"'{sys.executable}' '{script}' {{checkpoint}}"
    words = ("git-theta", "merge", "side", "--tune", command)
    done = scalar.run(*words, ok=(14,))
    assert b"the evaluation exited with 3" in done.stderr
    assert scalar.status() == ""
    stop.unlink()
    text = scalar.run(*words, ok=(1,)).stdout.decode()
    assert text.count("(evaluated before)") == 4
    assert len(log.read_text()) == 10
    # A run that was completed is not remembered: the next one evaluates anew.
    assert "(evaluated before)" not in scalar.run(*words, ok=(1,)).stdout.decode()


def test_what_git_refuses_is_not_a_conflict(scalar: Repo) -> None:
    scalar.git("branch", "elsewhere", scalar.git("commit-tree", "HEAD^{tree}", "-m", "x").strip())
    done = scalar.run("git-theta", "merge", "elsewhere", ok=(10,))
    assert b"unrelated histories" in done.stderr
    scalar.write(NAME, st({"w": np.full(300, 9, np.float32)}))
    done = scalar.run("git-theta", "merge", "side", "-s", "average", ok=(10,))
    assert b"would be overwritten" in done.stderr


def test_a_conflict_elsewhere_counts_in_any_folder(collided: Repo) -> None:
    """Git lists what is below the folder that it is started in; the merge is of the whole tree."""
    (collided.path / "below").mkdir()
    command = f'cd below && "{sys.executable}" -m git_theta_ext.cli.main merge side'
    done = collided.run("sh", "-c", command, ok=(1,))
    assert b"CONFLICT" in done.stdout
    collided.run("sh", "-c", command, ok=(10,))
