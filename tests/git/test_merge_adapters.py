"""Adapters of different ranks and scalings, merged with the configuration beside them, in Git."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping

import numpy as np
import pytest

from tests.scenarios.checkpoints import Tensors, safetensors
from tests.scenarios.ranks import CONFIG, MODULES, NAME, Pair, adapter, config, start
from tests.scenarios.repositories import Repo


def update(tensors: Tensors, module: str, scale: float) -> np.ndarray:
    a, b = (tensors[f"{module}.lora_{one}.weight"].astype(np.float64) for one in "AB")
    return np.asarray(scale * (b @ a))


def updates(repo: Repo) -> list[np.ndarray]:
    """What the adapter of the work tree does to each weight, as PEFT reads it."""
    from safetensors.numpy import load

    settings = json.loads((repo.path / CONFIG).read_bytes())
    tensors = load((repo.path / NAME).read_bytes())
    found = []
    for module in MODULES:
        inner = module.removeprefix("base_model.model.")
        rank = settings["rank_pattern"].get(inner, settings["r"])
        alpha = settings.get("alpha_pattern", {}).get(inner, settings["lora_alpha"])
        assert tensors[f"{module}.lora_A.weight"].shape == (rank, 30)
        assert tensors[f"{module}.lora_B.weight"].shape == (20, rank)
        found.append(update(tensors, module, alpha / rank))
    return found


def wanted(pairs: Mapping[int, Pair], shares: Mapping[int, float]) -> list[np.ndarray]:
    """The weighted sum of what some versions do, by their numbers."""
    return [
        sum(
            (share * update(adapter(n, pairs[n][0]), module, pairs[n][1] / pairs[n][0])
             for n, share in shares.items()),
            start=np.zeros((20, 30)),
        )
        for module in MODULES
    ]  # fmt: skip


def cut_off(matrix: np.ndarray, rank: int) -> float:
    sizes = np.linalg.svd(matrix, compute_uv=False)
    return float(np.linalg.norm(sizes[rank:]) / np.linalg.norm(sizes))


def is_cut(repo: Repo, aims: list[np.ndarray], rank: int, said: bytes) -> None:
    """The work tree has the best product of a rank, and its error was printed."""
    for module, got, aim in zip(MODULES, updates(repo), aims, strict=True):
        missed = cut_off(aim, rank)
        assert missed > 0.1
        assert np.linalg.norm(got - aim) / np.linalg.norm(aim) == pytest.approx(missed, abs=1e-5)
        line = f"{module}: the product of its factors was blended by .*, with rank {rank}; "
        assert re.search(f"{line}{100 * missed:.3g} % of its length was cut off", said.decode())


def merged(repo: Repo, *options: str) -> subprocess.CompletedProcess[bytes]:
    return repo.run("git", "theta", "merge", "side", *options, ok=(0, 1))


GROWN = {0: (4, 8.0), 1: (4, 8.0), 2: (8, 8.0)}


def grown(repo: Repo) -> None:
    """Theirs doubled the rank, and halved the scaling by that."""
    start(repo, GROWN[0], GROWN[1], GROWN[2])


def test_the_larger_rank_and_its_configuration(repo: Repo) -> None:
    grown(repo)
    done = merged(repo, "--strategy", "average")
    assert done.returncode == 0
    is_cut(repo, wanted(GROWN, {1: 0.5, 2: 0.5}), 8, done.stderr)
    assert repo.status() == ""


def test_the_plan_says_so_before(repo: Repo) -> None:
    grown(repo)
    text = repo.git("theta", "merge", "side", "--plan", "--strategy", "average")
    assert "open" not in text
    assert "average blends the product and cuts it to rank 8" in repo.git(
        "theta", "merge", "side", "--plan"
    )


@pytest.mark.parametrize("command", ["rebase", "cherry-pick", "revert", "rebase -i"])
def test_what_a_commit_added_is_reapplied_as_it_is_scaled(repo: Repo, command: str) -> None:
    pairs = {0: (4, 8.0), 1: (4, 8.0), 2: (4, 16.0)}
    start(repo, pairs[0], pairs[1], pairs[2])
    if command.startswith("rebase"):
        repo.git("checkout", "-q", "side")
        done = repo.run("git", *shlex.split(command), "main", env={"GIT_EDITOR": ":"})
    elif command == "cherry-pick":
        done = repo.run("git", "cherry-pick", "side")
    else:
        repo.git("checkout", "-q", "side")
        repo.write(NAME, safetensors(adapter(1, 4)))
        repo.commit("version 1, scaled as theirs")
        pairs[1] = pairs[2]
        done = repo.run("git", "revert", "--no-edit", "HEAD~1")
    shares = {1: 1.0, 0: 1.0, 2: -1.0} if command == "revert" else {1: 1.0, 2: 1.0, 0: -1.0}
    is_cut(repo, wanted(pairs, shares), 4, done.stderr)


def test_both_changed_the_rank(repo: Repo) -> None:
    """Git leaves the configuration in conflict; once it is settled, the hint settles the rest."""
    pairs = {0: (2, 8.0), 1: (4, 8.0), 2: (8, 8.0)}
    start(repo, pairs[0], pairs[1], pairs[2])
    done = merged(repo, "--strategy", "average")
    assert done.returncode == 1
    assert (
        b"both sides changed adapter_config.json: settle adapter_config.json first" in done.stderr
    )
    assert (repo.path / NAME).read_bytes() == safetensors(adapter(1, 4))
    early = repo.run("git", "theta", "resolve", NAME, "--strategy", "average", ok=(1,))
    assert b"adapter_config.json is in conflict" in early.stdout
    repo.git("checkout", "-q", "--theirs", CONFIG)
    repo.git("add", CONFIG)
    (hint,) = re.findall(r"settled and added: (git theta resolve .*)", done.stderr.decode())
    said = repo.run(*shlex.split(hint)).stdout
    is_cut(repo, wanted(pairs, {1: 0.5, 2: 0.5}), 8, said)
    repo.git("add", NAME)
    repo.git("commit", "-q", "-m", "merge")
    assert repo.status() == ""


def test_the_smaller_rank_of_the_configuration_is_not_taken_for_granted(repo: Repo) -> None:
    """Ours made the rank smaller, theirs trained the larger one: Git takes the smaller one."""
    start(repo, (8, 8), (4, 8), (8, 8))
    done = merged(repo, "--strategy", "average")
    assert done.returncode == 1
    assert b"adapter_config.json of the merge gives them rank 4, and a side has 8" in done.stderr
    repo.write(CONFIG, config(12, 8))
    repo.git("add", CONFIG)
    repo.git("theta", "resolve", NAME, "--strategy", "average")
    aims = wanted({1: (4, 8.0), 2: (8, 8.0)}, {1: 0.5, 2: 0.5})
    for got, aim in zip(updates(repo), aims, strict=True):  # there is room for both: exact
        assert np.allclose(got, aim, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ((8, 8.0), b"gives them rank 8, not 4"),
        ((4, 32.0), b"scales their product 4 times as much"),
        ((4, 8.0), b""),
    ],
)
def test_a_side_without_its_configuration_is_warned_of(
    repo: Repo, theirs: Pair, said: bytes
) -> None:
    """Git takes the configuration of theirs, for only they changed it, and the user our factors."""
    start(repo, (4, 8), (4, 8), theirs)
    repo.run("git", "merge", "side", ok=(1,))
    resolve = ("git", "theta", "resolve", NAME, "--strategy", "ours")
    done = repo.run(*resolve)
    assert (said in done.stdout and b"2 modules" in done.stdout) == bool(said)
    repo.git("checkout", "HEAD", "--", CONFIG)
    assert b"warning" not in repo.run(*resolve[:4], "--undo", ok=(1,)).stdout
    assert b"warning" not in repo.run(*resolve).stdout
    for got, aim in zip(updates(repo), wanted({1: (4, 8.0)}, {1: 1.0}), strict=True):
        assert np.array_equal(got, aim)


def test_the_mergetool_blends_them(repo: Repo) -> None:
    grown(repo)
    assert repo.run("git", "merge", "side", ok=(0, 1)).returncode == 1
    keys = b"1 average\n2 average\naccept\n"
    done = repo.run("git", "theta", "mergetool", NAME, "--plain", stdin=keys)
    assert b"Traceback" not in done.stderr
    for got, aim in zip(updates(repo), wanted(GROWN, {1: 0.5, 2: 0.5}), strict=True):
        missed = cut_off(aim, 8)
        assert np.linalg.norm(got - aim) / np.linalg.norm(aim) == pytest.approx(missed, abs=1e-5)


def test_without_a_configuration_ranks_cannot_be_weighed(repo: Repo) -> None:
    grown(repo)
    for branch in ("side", "main"):
        repo.git("checkout", "-q", branch)
        repo.git("rm", "-q", CONFIG)
        repo.commit("no configuration")
    done = merged(repo, "--strategy", "average")
    assert done.returncode == 1
    assert b"no adapter_config.json is tracked beside it" in done.stderr
    assert (repo.path / NAME).read_bytes() == safetensors(adapter(1, 4))


def test_the_same_on_both_sides_is_that(repo: Repo) -> None:
    start(repo, (4, 8), (8, 8), (8, 8))
    repo.git("checkout", "-q", "side")
    repo.write(NAME, safetensors(adapter(1, 8)))
    repo.commit("as ours")
    repo.git("checkout", "-q", "main")
    repo.git("theta", "merge", "side", "--strategy", "average")
    assert (repo.path / NAME).read_bytes() == safetensors(adapter(1, 8))


GROW = ("--strategy", "average", "--set", "rank=grow")


def is_joined(repo: Repo, aims: list[np.ndarray], rank: int) -> None:
    """Nothing was cut off: what is left is the rounding of float32."""
    for got, aim in zip(updates(repo), aims, strict=True):
        assert cut_off(aim, rank - 1) > 1e-3
        assert np.allclose(got, aim, rtol=0, atol=2e-6)


def test_the_rank_may_grow(repo: Repo) -> None:
    grown(repo)
    done = merged(repo, *GROW, "-m", "both of them")
    assert done.returncode == 0
    is_joined(repo, wanted(GROWN, {1: 0.5, 2: 0.5}), 12)
    settings = json.loads((repo.path / CONFIG).read_bytes())
    assert (settings["r"], settings["lora_alpha"], settings["rank_pattern"]) == (12, 24, {})
    assert settings["target_modules"] == ["q"]
    assert b"joined by average,rank=grow, to rank 12" in done.stdout
    assert repo.git("log", "-1", "--format=%B").strip() == "both of them"
    assert repo.status() == ""
    repo.git("checkout", "-q", "HEAD~1")
    repo.git("checkout", "-q", "main")
    is_joined(repo, wanted(GROWN, {1: 0.5, 2: 0.5}), 12)


def test_joined_factors_are_those_of_the_sides(repo: Repo) -> None:
    """Half of a number, and a number, are exact in every dtype."""
    from safetensors.numpy import load

    start(repo, (4, 8), (4, 8), (8, 16))
    merged(repo, *GROW)
    made = load((repo.path / NAME).read_bytes())
    ours, theirs = adapter(1, 4), adapter(2, 8)
    for name, value in made.items():
        parts = (ours[name], theirs[name])
        if "lora_A" in name:
            assert np.array_equal(value, np.concatenate(parts))
        else:
            assert np.array_equal(value, np.concatenate(parts, axis=1) / 2)


@pytest.mark.parametrize("strategy", ["task-arithmetic", "reapply"])
def test_an_update_is_joined_with_the_base_taken_away(repo: Repo, strategy: str) -> None:
    grown(repo)
    assert merged(repo, "--strategy", f"{strategy},rank=grow").returncode == 0
    is_joined(repo, wanted(GROWN, {1: 1.0, 2: 1.0, 0: -1.0}), 16)


def test_the_driver_leaves_it_to_a_verb_and_says_to_which(repo: Repo) -> None:
    grown(repo)
    repo.git("config", "theta.merge.strategy", "average,rank=grow")
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"rank=grow also changes adapter_config.json" in done.stderr
    before = (repo.path / CONFIG).read_bytes()
    (hint,) = re.findall(r"(git theta resolve .*?)   \(or", done.stderr.decode())
    assert hint == f"git theta resolve {NAME} --strategy average,rank=grow"
    repo.run(*shlex.split(hint))
    is_joined(repo, wanted(GROWN, {1: 0.5, 2: 0.5}), 12)
    after = (repo.path / CONFIG).read_bytes()
    repo.run(*shlex.split(hint), ok=(2,))  # nothing is open any more
    assert (repo.path / CONFIG).read_bytes() == after
    repo.git("theta", "resolve", NAME, "--abort", ok=(0, 1))
    repo.git("theta", "resolve", NAME, "--tensor", "*", "--strategy", "theirs")
    assert (repo.path / NAME).read_bytes() == safetensors(adapter(2, 8))
    assert (repo.path / CONFIG).read_bytes() == before
    assert repo.git("diff", "--name-only", "--", CONFIG) == ""
    repo.run(*shlex.split(hint), "--tensor", "*")
    assert (repo.path / CONFIG).read_bytes() == after
    repo.git("add", NAME)
    repo.git("commit", "-q", "-m", "merge")
    assert repo.status() == ""


def test_what_another_merge_left_open_is_not_settled_by_the_next(repo: Repo) -> None:
    grown(repo)
    repo.git("branch", "third", "side~1")
    repo.git("config", "theta.merge.strategy", "average,rank=grow")
    repo.run("git", "merge", "side", ok=(1,))
    before = repo.git("rev-parse", "HEAD"), repo.status()
    repo.run("git", "theta", "merge", "third", ok=(10,))
    assert (repo.git("rev-parse", "HEAD"), repo.status()) == before


def test_only_what_both_trained_grows(repo: Repo) -> None:
    """The other module stays as its side has it, and is told apart by a pattern."""
    pairs = {0: (4, 8.0), 1: (4, 8.0), 2: (4, 8.0)}
    start(repo, pairs[0], pairs[1], pairs[2])
    first = f"{MODULES[0]}."
    old = {name: value for name, value in adapter(0, 4).items() if name.startswith(first)}
    repo.write(NAME, safetensors({**adapter(1, 4), **old}))
    repo.commit("one module as it was")
    assert merged(repo, *GROW).returncode == 0
    settings = json.loads((repo.path / CONFIG).read_bytes())
    assert (settings["r"], settings["lora_alpha"]) == (4, 8)
    assert settings["rank_pattern"] == {"l.1.q": 8}
    assert settings["alpha_pattern"] == {"l.1.q": 16}
    made = updates(repo)
    aims = [wanted(pairs, {2: 1.0})[0], wanted(pairs, {1: 0.5, 2: 0.5})[1]]
    assert all(
        np.allclose(got, aim, rtol=0, atol=2e-6) for got, aim in zip(made, aims, strict=True)
    )


def test_changes_of_the_configuration_are_not_written_over(repo: Repo) -> None:
    grown(repo)
    repo.run("git", "merge", "side", ok=(1,))
    mine = config(8, 8, note="mine")
    repo.write(CONFIG, mine)
    words = ("git", "theta", "resolve", NAME, "--strategy", "average,rank=grow")
    done = repo.run(*words, ok=(2,))
    assert b"has changes that are not staged" in done.stderr
    assert (repo.path / CONFIG).read_bytes() == mine
    assert (repo.path / NAME).read_bytes() == safetensors(adapter(1, 4))
    (hint,) = re.findall(r"git add \S*", done.stderr.decode())
    repo.run(*shlex.split(hint.rstrip(",")))
    repo.run(*words)
    assert json.loads((repo.path / CONFIG).read_bytes())["note"] == "mine"
    is_joined(repo, wanted(GROWN, {1: 0.5, 2: 0.5}), 12)


def test_growing_needs_the_configuration(repo: Repo) -> None:
    grown(repo)
    for branch in ("side", "main"):
        repo.git("checkout", "-q", branch)
        repo.git("rm", "-q", CONFIG)
        repo.commit("no configuration")
    done = merged(repo, *GROW)
    assert done.returncode == 1
    assert b"adapter_config.json is not beside it" in done.stderr


def test_a_rebase_grows_by_resolve(repo: Repo) -> None:
    grown(repo)
    repo.git("config", "theta.rebase.strategy", "reapply,rank=grow")
    repo.git("checkout", "-q", "side")
    done = repo.run("git", "rebase", "main", ok=(1,))
    (hint,) = re.findall(r"(git theta resolve .*?)   \(or", done.stderr.decode())
    repo.run(*shlex.split(hint))
    repo.git("add", NAME)
    repo.run("git", "rebase", "--continue", env={"GIT_EDITOR": ":"})
    is_joined(repo, wanted(GROWN, {1: 1.0, 2: 1.0, 0: -1.0}), 16)
    assert repo.status() == ""


@pytest.mark.parametrize(("rank", "words"), [(8, ()), (12, ("--set", "rank=grow"))])
def test_factors_in_several_shards_are_one_product(
    repo: Repo, rank: int, words: tuple[str, ...]
) -> None:
    from safetensors.numpy import load

    names = [f"lora/adapter_model-0000{n}-of-00002.safetensors" for n in (1, 2)]

    def version(number: int, pair: Pair) -> None:
        made = adapter(number, pair[0])
        for name, factor in zip(names, ("lora_A", "lora_B"), strict=True):
            repo.write(name, safetensors({k: v for k, v in made.items() if factor in k}))
        repo.write(CONFIG, config(*pair))
        repo.commit(f"version {number}")

    version(0, GROWN[0])
    repo.git("checkout", "-q", "-b", "side")
    version(2, GROWN[2])
    repo.git("checkout", "-q", "main")
    version(1, GROWN[1])
    assert merged(repo, "--strategy", "average", *words).returncode == 0
    made = {}
    for name in names:
        made.update(load((repo.path / name).read_bytes()))
    settings = json.loads((repo.path / CONFIG).read_bytes())
    assert settings["r"] == rank
    for module, aim in zip(MODULES, wanted(GROWN, {1: 0.5, 2: 0.5}), strict=True):
        got = update(made, module, settings["lora_alpha"] / rank)
        missed = cut_off(aim, rank)
        assert np.linalg.norm(got - aim) / np.linalg.norm(aim) == pytest.approx(missed, abs=1e-5)
    assert repo.status() == ""
