"""git theta stats, with a model that looks like PyTorch's; then the merge that uses it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.scenarios.checkpoints import safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.statistics import SCRIPT


def prepared(repo: Repo, name: str, weight: list[float], batches: str, kind: str = "gram") -> str:
    """A commit with a weight and its statistics on a branch; what the command printed."""
    repo.write("model.safetensors", safetensors({"layer.weight": np.array([weight], np.float32)}))
    script = repo.path.parent / "stats.py"
    script.write_text(f"BATCHES = {batches}\n{SCRIPT}")
    text = repo.theta("stats", "model.safetensors", "--with", str(script), "--kind", kind)
    repo.commit(name)
    return text


@pytest.mark.parametrize(
    ("kind", "strategy", "expected"),
    [
        # Each branch saw one input only, and keeps the weight of that.
        ("gram", "regmean", (1.0, 40.0)),
        # Squared gradients (16, 0) and (0, 9): the same.
        ("fisher", "fisher", (1.0, 40.0)),
    ],
)
def test_statistics_are_measured_tracked_and_used(
    repo: Repo, kind: str, strategy: str, expected: tuple[float, float]
) -> None:
    repo.write("model.safetensors", safetensors({"layer.weight": np.zeros((1, 2), np.float32)}))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    prepared(repo, "side", [30, 40], "[[[0, 3]], [[0, 3]]]", kind)
    repo.git("checkout", "-q", "main")
    text = prepared(repo, "main", [1, 2], "[[[4, 0]]]", kind)
    assert f"model.{kind}.safetensors: {kind} statistics of 1 tensor" in text
    repo.run("git", "merge", "side", env={"GIT_THETA_MERGE": strategy})
    found = np.frombuffer((repo.path / "model.safetensors").read_bytes()[-8:], np.float32)
    assert found == pytest.approx(expected, rel=1e-5)
    # The statistics of the merged model are the mean of both.
    measured = np.frombuffer((repo.path / f"model.{kind}.safetensors").read_bytes()[-8:], "f4")
    assert measured.tolist() == ([0.0, 4.5] if kind == "gram" else [8.0, 4.5])


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("", (), "has no function 'load'"),
        (f"BATCHES = []\n{SCRIPT}", (), "no linear layer of the model saw an input"),
        (f"BATCHES = []\n{SCRIPT}", ("--kind", "fisher"), "no parameter of the model got"),
        (f"BATCHES = []\n{SCRIPT}", ("--batches", "0"), "--batches takes a number from 1"),
    ],
)
def test_mistakes(repo: Repo, script: str, words: tuple[str, ...], message: str) -> None:
    repo.write("model.safetensors", safetensors({"layer.weight": np.zeros((1, 2), np.float32)}))
    path = repo.path.parent / "stats.py"
    path.write_text(script)
    command = (sys.executable, "-m", "git_theta_ext.cli.main", "stats", "model.safetensors")
    done = repo.run(*command, "--with", str(path), *words, ok=(2,))
    assert message in done.stderr.decode()
    assert not (repo.path / "model.gram.safetensors").exists()


def test_statistics_from_an_optimizer_are_used(repo: Repo) -> None:
    """Two branches with their optimizers' files, which stay out of Git; nothing else is needed."""
    files = Path(__file__).parents[1] / "golden" / "optimizers"
    base = load_file(files / "model.safetensors")
    repo.write(".gitignore", b"*.pt\nnames.txt\n")
    repo.write("model.safetensors", safetensors(base))
    repo.commit("base")
    sides = {"side": ("plain", 3.0), "main": ("trainer", 1.0)}
    for branch, (case, by) in sides.items():
        repo.git("checkout", "-q", "-B", branch, "main")
        moved = {k: v + np.float32(by) if v.dtype == np.float32 else v for k, v in base.items()}
        repo.write("model.safetensors", safetensors(moved))
        repo.write("sub dir/optimizer.pt", (files / f"{case}.pt").read_bytes())
        words = ("stats", "model.safetensors", "--from", "sub dir/optimizer.pt")
        failed = repo.run("git", "theta", *words, ok=(2,)).stderr.decode()
        assert "may be a.weight, b.weight" in failed
        (advice,) = [line for line in failed.splitlines() if "hint:" in line]
        repo.write("names.txt", (files / "names.txt").read_bytes())
        command = advice.partition("hint: ")[2].partition("   ")[0]
        said = repo.run("sh", "-c", command.replace("NAMES", "names.txt")).stdout.decode()
        assert "model.fisher.safetensors: fisher statistics of 12 tensors" in said
        repo.commit(branch)
        if branch == "side":
            repo.git("checkout", "-q", "main")
    told = repo.run("git", "merge", "side", env={"GIT_THETA_MERGE": "average"}).stderr.decode()
    assert "statistics of both sides are at hand, and fisher would use them" in told
    repo.git("reset", "-q", "--hard", "HEAD~")
    told = repo.run("git", "merge", "side", env={"GIT_THETA_MERGE": "fisher"}).stderr.decode()
    assert "at hand" not in told
    merged = load_file(repo.path / "model.safetensors")
    weights = {
        name.partition("/"): value.astype(np.float64)
        for name, value in load_file(files / "expected.safetensors").items()
    }
    for name in ("a.weight", "b.weight", "norm.bias"):
        theirs, ours = (weights[case, "/", name] for case in ("plain", "trainer"))
        by = (ours * 1.0 + theirs * 3.0) / (ours + theirs)
        np.testing.assert_allclose(merged[name], base[name] + by, rtol=1e-5, err_msg=name)


def test_several_branches_are_told_too_and_silence_where_it_is_due(repo: Repo) -> None:
    def write(value: float) -> None:
        layer = {"layer.weight": np.array([[value, value]], np.float32)}
        repo.write("model.safetensors", safetensors(layer))
        if value:
            repo.write("model.fisher.safetensors", safetensors(layer))
            gram = {"layer.weight": np.eye(2, dtype=np.float32) * np.float32(value)}
            repo.write("model.gram.safetensors", safetensors(gram))
        repo.commit(f"{value}")

    write(0)
    for number, branch in enumerate(("one", "two", "three"), 1):
        repo.git("checkout", "-q", "-b", branch, "main")
        write(number)
    tip = repo.git("rev-parse", "HEAD").strip()
    words = ("git", "theta", "merge", "one", "two", "--strategy")
    remark = "statistics of all sides are at hand, and regmean or fisher would use them"
    for strategy, told in (("average", True), ("regmean", False), ("ours", False)):
        done = repo.run(*words, strategy)
        assert (remark in done.stderr.decode()) == told, strategy
        repo.git("reset", "-q", "--hard", tip)
    # A rebase applies updates: nobody asked for a merge.
    assert "at hand" not in repo.run("git", "rebase", "one").stderr.decode()
