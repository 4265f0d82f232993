"""Several branches merged at once, each checkpoint from all its versions."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from git_theta_ext.merge.strategies.arrays import merge_arrays
from git_theta_ext.merge.strategies.choice import Choice
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import Tensors, changed, model, safetensors
from tests.scenarios.merges import evaluation
from tests.scenarios.repositories import Repo

pytestmark = pytest.mark.git("2.38")  # git merge-tree --write-tree
NAME = "model.safetensors"
BASE = model(layers=1)
QUERY = "encoder.layer.0.attention.query.weight"
VALUE = "encoder.layer.0.attention.value.weight"
COUNT = "num_batches_tracked"
SIDES = [changed(BASE[QUERY], seed=seed) for seed in (1, 2, 3)]


def branches(repo: Repo, *versions: Tensors, base: Tensors = BASE, name: str = NAME) -> None:
    """`main`, then `a`, `b`, …, each with its own changes to a checkpoint and a file of its own."""

    def make() -> None:
        repo.write(name, safetensors(base))
        start = repo.commit("base")
        for branch, tensors in reversed(list(zip(["main", *"abcdef"], versions, strict=False))):
            repo.git("checkout", "-q", "-B", branch, start)
            repo.write(name, safetensors({**base, **tensors}))
            repo.write(f"{branch}.txt", branch.encode())
            repo.commit(branch)

    repo.once(
        make, safetensors(base), [safetensors({**base, **tensors}) for tensors in versions], name
    )


def content(repo: Repo) -> bytes:
    return (repo.path / NAME).read_bytes()


def whole(*tensors: Tensors) -> bytes:
    merged = dict(BASE)
    for one in tensors:
        merged.update(one)
    return safetensors(merged)


@pytest.fixture
def three(repo: Repo) -> Repo:
    """All three changed one tensor; `a` another one; all three counted."""
    counts = [{COUNT: np.array(n, np.int64)} for n in (5, 9, 7)]
    tensors = [{QUERY: side, **count} for side, count in zip(SIDES, counts, strict=True)]
    branches(repo, tensors[0], {**tensors[1], VALUE: BASE[VALUE] + 1}, tensors[2])
    return repo


def test_a_strategy_sees_all_sides(three: Repo) -> None:
    three.theta("merge", "a", "b", "--strategy", "average")
    mean = (np.sum([side.astype(np.float64) for side in SIDES], axis=0) / 3).astype(np.float32)
    rest = {VALUE: BASE[VALUE] + 1, COUNT: np.array(9, np.int64)}
    found = content(three)
    expected = whole({QUERY: mean, **rest})
    assert len(found) == len(expected)
    start = expected.index(mean.tobytes())
    values = np.frombuffer(found[start : start + mean.nbytes], np.float32)
    assert np.max(np.abs(values - mean.ravel())) < 1e-8
    assert found[start + mean.nbytes :] == expected[start + mean.nbytes :]
    assert three.status() == ""
    parents = three.git("log", "-1", "--format=%P").split()
    assert parents == three.git("rev-parse", "main~1", "a", "b").split()
    assert three.git("log", "-1", "--format=%s").strip() == "Merge branches 'a' and 'b'"
    assert {path.name for path in three.path.glob("*.txt")} == {"main.txt", "a.txt", "b.txt"}


@pytest.mark.parametrize("strategy", ["ties,density=0.3", "task-arithmetic,lambda=0.5", "karcher"])
def test_it_is_the_strategy_on_arrays_in_any_order(three: Repo, strategy: str) -> None:
    name, _, setting = strategy.partition(",")
    key, _, value = setting.partition("=")
    settings = ((key, float(value)),) if key else ()
    expected = merge_arrays(Choice(name, settings), BASE[QUERY], SIDES, name=QUERY)
    three.theta("merge", "a", "b", "--strategy", strategy)
    assert expected.tobytes() in content(three)
    first = content(three)
    three.git("reset", "-q", "--hard", "HEAD~1")
    three.theta("merge", "b", "a", "--strategy", strategy)
    assert content(three) == first


def test_a_fast_forward_of_head_is_no_side(three: Repo) -> None:
    three.git("checkout", "-q", "-B", "main", "main~1")
    three.theta("merge", "a", "b", "--strategy", "task-arithmetic")
    update = sum(side.astype(np.float64) - BASE[QUERY] for side in SIDES[1:])
    assert (BASE[QUERY] + update).astype(np.float32).tobytes() in content(three)
    assert three.git("log", "-1", "--format=%P").split() == three.git("rev-parse", "a", "b").split()


def test_entries_that_some_changed_are_merged_by_those(repo: Repo) -> None:
    versions = []
    for rows in (slice(0, 4), slice(2, 6), slice(3, 8)):
        value = BASE[QUERY].copy()
        value[rows] += len(versions) + 1
        versions.append({QUERY: value})
    branches(repo, *versions)
    repo.theta("merge", "a", "b", "--strategy", "average")
    expected = BASE[QUERY].copy()
    sums = np.zeros(expected.shape)
    counts = np.zeros(expected.shape)
    for version in versions:
        moved = version[QUERY] != BASE[QUERY]
        sums += np.where(moved, version[QUERY].astype(np.float64), 0)
        counts += moved
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), BASE[QUERY]).astype(np.float32)
    assert content(repo) == whole({QUERY: mean})


def test_the_plan_says_what_each_side_did_and_shows_renames(three: Repo) -> None:
    three.git("mv", NAME, "moved.safetensors")
    three.commit("moved")
    head = three.git("rev-parse", "HEAD")
    text = three.theta("merge", "a", "b", "--plan", "--strategy", "ties")
    assert text.startswith(f"moved.safetensors (was {NAME})  (strategy: --strategy)\n")
    row = next(line for line in text.splitlines() if line.strip().startswith(QUERY))
    assert "HEAD changed  a changed  b changed  entry by entry; where several changed: ties" in row
    text = three.theta("merge", "a", "--plan")
    assert text.startswith(f"moved.safetensors (was {NAME})  (strategy: default)\n")
    assert three.git("rev-parse", "HEAD") == head
    three.theta("merge", "a", "b", "--strategy", "ties")
    assert (three.path / "moved.safetensors").exists()
    assert not (three.path / NAME).exists()
    assert three.status() == ""


def test_what_stays_open_changes_nothing(three: Repo) -> None:
    before = content(three), three.git("rev-parse", "HEAD")
    done = three.run("git-theta", "merge", "a", "b", ok=(1,))
    assert f"{QUERY}: several sides changed 4,096 of 4,096 entries".encode() in done.stderr
    assert b"Nothing was changed" in done.stderr
    one = only(done.stderr.decode(), "BRANCH")
    assert "CONFLICT" in do(three, one, ok=(1,), BRANCH="a")
    three.git("merge", "--abort")
    three.write("a.txt", b"mine")
    three.commit("collides")
    done = three.run("git-theta", "merge", "a", "b", "--strategy", "ours", ok=(2,))
    assert b"a.txt collides when a is merged too" in done.stderr
    assert content(three) == before[0]
    assert three.status() == ""
    by_itself = only(done.stderr.decode(), "git theta merge a")
    assert "a.txt" in do(three, by_itself, ok=(1,))
    assert "AA a.txt" in three.status()


def test_stopping_before_the_commit(three: Repo) -> None:
    words = ("merge", "a", "b", "--strategy", "ours", "--no-commit", "-m", "together")
    said = three.theta(*words)
    assert (three.git("rev-parse", "HEAD")) == three.git("rev-parse", "main")
    do(three, only(said, "--abort"))
    assert content(three) == whole({QUERY: SIDES[0], COUNT: np.array(5, np.int64)})
    do(three, f"{only(three.theta(*words), 'git commit')} -q --no-edit")
    assert three.git("log", "-1", "--format=%s").strip() == "together"
    assert three.git("log", "-1", "--format=%P").count(" ") == 2
    assert three.status() == ""


def test_nan_on_one_side_stays_open(repo: Repo) -> None:
    spoiled = SIDES[2].copy()
    spoiled[3, 5] = np.nan
    branches(repo, {QUERY: SIDES[0]}, {QUERY: SIDES[1]}, {QUERY: spoiled})
    done = repo.run("git-theta", "merge", "a", "b", "--strategy", "average", ok=(1,))
    assert f"{QUERY}: 1 NaN on some sides only".encode() in done.stderr
    done = repo.run("git-theta", "merge", "a", "b", "--strategy", "ties", ok=(1,))
    assert f"{QUERY}: 1 NaN on some sides only".encode() in done.stderr
    repo.theta("merge", "a", "b", "--strategy", "theirs")
    assert content(repo) == whole({QUERY: spoiled})


def test_infinity_in_all_versions_does_not_stop_a_strategy(repo: Repo) -> None:
    base, *sides = (one.copy() for one in (BASE[QUERY], *SIDES))
    for one in (base, *sides):
        one[0, 0] = -np.inf
    branches(repo, *({QUERY: side} for side in sides), base={**BASE, QUERY: base})
    repo.theta("merge", "a", "b", "--strategy", "task-arithmetic,lambda=0.5")
    finite = np.where(np.isfinite(base), base, 0)
    expected = merge_arrays(
        Choice("task-arithmetic", (("lambda", 0.5),)),
        finite,
        [np.where(np.isfinite(side), side, 0) for side in sides],
        name=QUERY,
    )
    expected[0, 0] = -np.inf
    assert expected.tobytes() in content(repo)


@pytest.mark.parametrize("strategy", ["ties", "karcher", "dare-linear"])
def test_changes_that_do_not_meet_are_merged_exactly_by_any_strategy(
    repo: Repo, strategy: str
) -> None:
    versions = []
    expected = BASE[QUERY].copy()
    for row in range(3):
        value = BASE[QUERY].copy()
        value[row] += row + 1
        expected[row] = value[row]
        versions.append({QUERY: value})
    branches(repo, *versions)
    repo.theta("merge", "a", "b", "--strategy", strategy)
    assert content(repo) == whole({QUERY: expected})


def test_tuning_chooses_for_all_sides(repo: Repo) -> None:
    tensors = [{"w": np.full(300, value, np.float32)} for value in (2, 4, 6)]
    branches(repo, *tensors, base={"w": np.zeros(300, np.float32)})
    text = repo.theta("merge", "a", "b", "--yes", "--tune", evaluation(repo, 12))
    assert "task-arithmetic,lambda=1: 1 ± 0" in text
    assert "task-arithmetic,weights=0.5:0.5:1" in text
    assert np.frombuffer(content(repo)[-1200:], np.float32) == pytest.approx(np.full(300, 12.0))
    assert repo.git("log", "-1", "--format=%P").count(" ") == 2


def test_names_that_others_contain_are_left_out(three: Repo) -> None:
    three.git("branch", "again", "a")
    three.theta("merge", "a", "again", "main", "--strategy", "theirs")
    assert SIDES[1].tobytes() in content(three)
    assert three.git("log", "-1", "--format=%P").count(" ") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "nowhere"), "'nowhere' is not a branch or commit here"),
        (("a", "b", "--strategy", "average,weights=1:2"), "weights are needed for all 3 sides"),
        (("a", "b", "--strategy", "tis"), "unknown merge strategy 'tis'"),
    ],
)
def test_mistakes(three: Repo, words: tuple[str, ...], message: str) -> None:
    command = (sys.executable, "-m", "git_theta_ext.cli.main", "merge", *words)
    assert message in three.run(*command, ok=(2,)).stderr.decode()
