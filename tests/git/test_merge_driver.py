"""git merge on checkpoints: exact where nothing collides, a conflict where something does."""

from __future__ import annotations

import numpy as np

from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
QUERY = "encoder.layer.0.attention.query.weight"
VALUE = "encoder.layer.2.attention.value.weight"


def branches(repo: Repo, ours: dict[str, object], theirs: dict[str, object]) -> None:
    repo.write(NAME, safetensors(model()))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    repo.write(NAME, safetensors({**model(), **theirs}))  # type: ignore[dict-item]
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    repo.write(NAME, safetensors({**model(), **ours}))  # type: ignore[dict-item]
    repo.commit("ours")


def moved(name: str, place: slice) -> np.ndarray:
    value = model()[name].copy()
    value[place] += 1
    return value


def test_different_tensors_and_different_entries_merge_exactly(repo: Repo) -> None:
    ours = {QUERY: moved(QUERY, slice(0, 3)), VALUE: moved(VALUE, slice(5, 9))}
    theirs = {VALUE: moved(VALUE, slice(30, 40))}
    branches(repo, ours, theirs)
    repo.git("merge", "-q", "-m", "merge", "side")
    both = ours[VALUE].copy()
    both[30:40] = theirs[VALUE][30:40]
    expected = safetensors({**model(), **ours, VALUE: both})
    assert (repo.path / NAME).read_bytes() == expected
    assert repo.status() == ""


def test_a_tensor_added_on_one_side(repo: Repo) -> None:
    branches(repo, {QUERY: moved(QUERY, slice(0, 3))}, {"new": np.ones(100, np.float32)})
    repo.git("merge", "-q", "-m", "merge", "side")
    found = (repo.path / NAME).read_bytes()
    expected = {**model(), QUERY: moved(QUERY, slice(0, 3)), "new": np.ones(100, np.float32)}
    assert found == safetensors(expected)


def test_a_collision_is_a_conflict_with_a_loadable_checkpoint(repo: Repo) -> None:
    ours = {QUERY: moved(QUERY, slice(0, 3))}
    theirs = {QUERY: moved(QUERY, slice(0, 3)) + 1, VALUE: moved(VALUE, slice(1))}
    branches(repo, ours, theirs)
    done = repo.run("git", "merge", "side", ok=(1,))
    assert QUERY.encode() in done.stderr + done.stdout
    found = (repo.path / NAME).read_bytes()
    # Entries that only theirs changed are merged; ours stands where both did.
    standing = theirs[QUERY].copy()
    standing[0:3] = ours[QUERY][0:3]
    assert found == safetensors({**model(), QUERY: standing, VALUE: theirs[VALUE]})
    assert repo.status().startswith("UU")
    repo.git("checkout", "--theirs", "--", NAME)
    repo.commit("settled")
    assert repo.status() == ""
