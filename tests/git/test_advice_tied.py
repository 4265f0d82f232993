"""Tied tensors (embeddings and `lm_head.weight`) in conflict: what is printed settles it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.scenarios.advised import advised, do, only
from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.merges import branches
from tests.scenarios.repositories import Repo

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OLD = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
ONE, TWO, THREE = OLD + 1, OLD * 2, OLD - 3
Values = NDArray[np.float32]
Pair = tuple[Values, Values | None]
"""The embeddings and the head; None where it is not in the file."""


def version(pair: Pair) -> bytes:
    tensors = {EMBED: pair[0], "norm.weight": np.ones(400, np.float32)}
    return safetensors(tensors if pair[1] is None else {**tensors, HEAD: pair[1]})


TIED: Pair = (OLD, OLD)
CASES: dict[str, tuple[tuple[Pair, Pair, Pair], str, tuple[Pair, Pair]]] = {
    # base, ours, theirs; what is said; the result of ours, and of theirs
    "untied in ours": (
        (TIED, (ONE, THREE), (TWO, TWO)), "in theirs, untied in ours",
        ((ONE, THREE), (TWO, TWO)),
    ),
    "untied in theirs": (
        (TIED, (TWO, TWO), (ONE, THREE)), "in ours, untied in theirs",
        ((TWO, TWO), (ONE, THREE)),
    ),
    "not in theirs": (
        (TIED, (ONE, ONE), (TWO, None)), f"tied to {HEAD} in ours, which theirs removed",
        ((ONE, ONE), (TWO, None)),
    ),
    "not in ours": (
        (TIED, (ONE, None), (TWO, TWO)), f"tied to {HEAD} in theirs, which ours removed",
        ((ONE, None), (TWO, TWO)),
    ),
    "not in theirs, which changed nothing else": (
        (TIED, (ONE, ONE), (OLD, None)), "theirs removed it, ours changed it",
        ((ONE, ONE), (ONE, None)),
    ),
    "a copy in ours": (
        ((OLD, None), TIED, (TWO, None)), f"a copy of {EMBED}, which theirs changed",
        ((TWO, OLD), (TWO, TWO)),
    ),
    "a copy in theirs": (
        ((OLD, None), (ONE, None), TIED), f"a copy of {EMBED}, which ours changed",
        ((ONE, ONE), (ONE, OLD)),
    ),
    "tied in both": (
        (TIED, (ONE, ONE), (TWO, TWO)), "both sides changed",
        ((ONE, ONE), (TWO, TWO)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("side", ["ours", "theirs"])
@pytest.mark.parametrize("case", CASES)
def test_either_side_settles_it(repo: Repo, case: str, side: str) -> None:
    versions, said, results = CASES[case]
    branches(repo, *map(version, versions))
    text = repo.run("git", "merge", "side", ok=(1,)).stderr.decode()
    assert said in text
    resolve, add = [one for one in advised(text) if "resolve" in one or "git add" in one]
    assert side in text[text.index("--strategy") :].splitlines()[0]
    first = resolve.rpartition(" ")[2]
    assert only(do(repo, resolve.replace(first, side)), "git add") == add
    do(repo, add)
    repo.git("commit", "-q", "--no-edit")
    assert repo.status() == ""
    embed, head = results[side == "theirs"]
    found = load_file(repo.path / NAME)
    assert np.array_equal(found[EMBED], embed)
    assert (HEAD in found) == (head is not None)
    assert head is None or np.array_equal(found[HEAD], head)


def test_another_side_afterwards_is_refused_and_says_how(repo: Repo) -> None:
    """Nothing is open any more: to do nothing would not be what was asked for."""
    branches(repo, *map(version, CASES["tied in both"][0]))
    repo.run("git", "merge", "side", ok=(1,))
    repo.theta("resolve", NAME, "--strategy", "ours")
    done = repo.run("git", "theta", "resolve", NAME, "--strategy", "theirs", ok=(2,))
    do(repo, only(done.stderr.decode(), "--tensor"))
    assert np.array_equal(load_file(repo.path / NAME)[HEAD], TWO)
