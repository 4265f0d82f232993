"""Branches of which some renamed tensors: no training is left under a name that nothing reads."""

from __future__ import annotations

import numpy as np
import pytest

from tests.scenarios.checkpoints import Tensors, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.torchzip import Storage, save, state_dict, tensor

NAME = "model.safetensors"
PREFIXES = ["_orig_mod.", "module.", "base_model.model.", "encoder."]
BASE = {
    **{f"l.{n}.weight": np.full((16, 32), n, np.float32) for n in range(3)},
    **{f"l.{n}.bias": np.full(4, n, np.float32) for n in range(3)},
}
FIRST = {**BASE, "l.0.weight": BASE["l.0.weight"] + 1, "l.0.bias": BASE["l.0.bias"] + 1}
SECOND = {**BASE, "l.1.weight": BASE["l.1.weight"] + 2, "l.2.bias": BASE["l.2.bias"] + 3}
BOTH = {**FIRST, "l.1.weight": SECOND["l.1.weight"], "l.2.bias": SECOND["l.2.bias"]}


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


def branches(
    repo: Repo, *versions: bytes, base: bytes = safetensors(BASE), name: str = NAME
) -> None:
    """`main`, `a`, `b`: each a version of its own of one checkpoint."""
    repo.write(name, base)
    start = repo.commit("base")
    for branch, data in reversed(list(zip(["main", "a", "b"], versions, strict=True))):
        repo.git("checkout", "-q", "-B", branch, start)
        repo.write(name, data)
        repo.write(f"{branch}.txt", branch.encode())
        repo.commit(branch)


def content(repo: Repo, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_training_of_others_lands_under_the_new_name(repo: Repo, prefix: str, place: int) -> None:
    versions = [safetensors(FIRST), safetensors(SECOND)]
    versions.insert(place, safetensors(under(prefix, BASE)))
    branches(repo, *versions)
    repo.theta("merge", "a", "b")
    assert content(repo) == safetensors(under(prefix, BOTH))
    assert repo.status() == ""


def test_the_plan_shows_the_new_names(repo: Repo) -> None:
    branches(repo, safetensors(under("module.", BASE)), safetensors(FIRST), safetensors(SECOND))
    text = repo.theta("merge", "a", "b", "--plan")
    lines = [line.split() for line in text.splitlines()]
    assert ["module.l.0.weight", "HEAD", "kept", "a", "changed", "b", "kept", "the", "changed",
            "one"] in lines  # fmt: skip
    assert not any(line[:1] == ["l.0.weight"] for line in lines)


def test_two_that_renamed_alike_and_trained_too_meet_a_third(repo: Repo) -> None:
    trained = {**under("module.", BASE), "module.l.2.weight": BASE["l.2.weight"] + 5}
    versions = [under("module.", FIRST), SECOND, trained]
    branches(repo, *map(safetensors, versions))
    repo.theta("merge", "a", "b")
    expected = {**under("module.", BOTH), "module.l.2.weight": trained["module.l.2.weight"]}
    assert content(repo) == safetensors(expected)


def test_what_several_trained_is_blended_under_the_new_name(repo: Repo) -> None:
    others = [{**BASE, "l.0.weight": BASE["l.0.weight"] + n} for n in (1, 3)]
    branches(repo, safetensors(others[0]), safetensors(under("module.", BASE)),
             safetensors(others[1]))  # fmt: skip
    done = repo.run("git-theta", "merge", "a", "b", ok=(1,))
    assert b"module.l.0.weight: several sides changed 512 of 512 entries" in done.stderr
    repo.theta("merge", "a", "b", "--strategy", "average")
    mean = {**BASE, "l.0.weight": BASE["l.0.weight"] + 2}
    assert content(repo) == safetensors(under("module.", mean))


def torch(tensors: Tensors) -> bytes:
    """The same as `torch.save` writes it: a container that is taken from a side as it is."""
    held = {name: tensor(Storage(str(n), count=value.size), value.shape)
            for n, (name, value) in enumerate(tensors.items())}  # fmt: skip
    data = {str(n): value.tobytes() for n, value in enumerate(tensors.values())}
    return save(state_dict(held), data)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_pickle_with_the_new_names_holds_what_others_trained(repo: Repo, place: int) -> None:
    versions = [torch(FIRST), torch(SECOND)]
    versions.insert(place, torch(under("module.", BASE)))
    branches(repo, *versions, base=torch(BASE), name="m.pt")
    repo.theta("merge", "a", "b")
    assert content(repo, "m.pt") == torch(under("module.", BOTH))


@pytest.mark.parametrize("strategy", [None, "average", "ties", "task-arithmetic"])
def test_names_that_differ_are_a_conflict_and_nothing_is_changed(
    repo: Repo, strategy: str | None
) -> None:
    versions = [under("_orig_mod.", BASE), under("module.", BASE), FIRST]
    branches(repo, *map(safetensors, versions))
    before = repo.git("rev-parse", "HEAD")
    words = ("--strategy", strategy) if strategy else ()
    done = repo.run("git-theta", "merge", "a", "b", *words, ok=(1,))
    assert b"was renamed to _orig_mod.l.0.bias and to module.l.0.bias" in done.stderr
    assert b"Nothing was changed" in done.stderr
    assert repo.git("rev-parse", "HEAD") == before
    assert content(repo) == safetensors(versions[0])


@pytest.mark.parametrize(("strategy", "place"), [("ours", 0), ("theirs", 2)])
def test_one_side_closes_it_with_all_of_its_tensors(repo: Repo, strategy: str, place: int) -> None:
    versions = [under("_orig_mod.", SECOND), under("module.", BASE), FIRST]
    branches(repo, *map(safetensors, versions))
    repo.theta("merge", "a", "b", "--strategy", strategy)
    assert content(repo) == safetensors(versions[place])


def test_a_rename_that_is_no_prefix_is_a_conflict(repo: Repo) -> None:
    kept = {name: value for name, value in BASE.items() if name != "l.0.weight"}
    ours = {**kept, "other.weight": BASE["l.0.weight"] * 2 + 5}
    branches(repo, safetensors(ours), safetensors(SECOND), safetensors(FIRST))
    done = repo.run("git-theta", "merge", "a", "b", ok=(1,))
    assert b"side 1 removed l.0.weight and added other.weight, side 3 changed" in done.stderr
    repo.theta("merge", "a", "b", "--strategy", "theirs")
    assert content(repo) == safetensors(BOTH)


@pytest.mark.parametrize("strategy", [None, "average"])
def test_two_sides_that_renamed_differently_are_in_conflict(
    repo: Repo, strategy: str | None
) -> None:
    versions = [under("_orig_mod.", BASE), under("module.", FIRST), BASE]
    branches(repo, *map(safetensors, versions))
    env = {"GIT_THETA_MERGE": strategy or "conflict"}
    done = repo.run("git", "merge", "a", ok=(1,), env=env)
    assert b"was renamed to _orig_mod.l.0.bias and to module.l.0.bias" in done.stderr
    repo.theta("resolve", NAME, "--strategy", "theirs")
    assert content(repo) == safetensors(versions[1])
    repo.theta("resolve", NAME, "-t", "l.0.bias", "--strategy", "ours")
    assert content(repo) == safetensors(versions[0])
    repo.git("add", NAME)
    repo.commit("merged")


@pytest.mark.parametrize(("strategy", "there"), [("ours", True), ("theirs", False)])
def test_removed_on_the_last_sides_and_changed_on_the_first(
    repo: Repo, strategy: str, there: bool
) -> None:
    kept = {name: value for name, value in BASE.items() if name != "l.0.weight"}
    branches(
        repo, safetensors(FIRST), safetensors(kept), safetensors({**kept, "new": BASE["l.0.bias"]})
    )
    repo.theta("merge", "a", "b", "--strategy", strategy)
    assert (b"l.0.weight" in content(repo)) == there
