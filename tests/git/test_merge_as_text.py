"""A merge by a Git that does not use the driver: the markers are kept, and settled afterwards."""

from __future__ import annotations

import numpy as np

from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"


def test_a_text_conflict_is_left_to_be_resolved(repo: Repo) -> None:
    repo.write(NAME, safetensors(model()))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    theirs = {**model(), QUERY: changed(model()[QUERY], seed=2)}
    repo.write(NAME, safetensors(theirs))
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    ours = {**model(), QUERY: changed(model()[QUERY], seed=3)}
    repo.write(NAME, safetensors(ours))
    repo.commit("ours")
    (repo.path / ".git/info").mkdir(exist_ok=True)
    (repo.path / ".git/info/attributes").write_text("*.safetensors merge=text\n")
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"merged as text and holds conflict markers" in done.stderr
    assert b"<<<<<<<" in (repo.path / NAME).read_bytes()
    # Staged as it is it would be a manifest that nobody can read.
    assert b"conflict markers" in repo.run("git", "add", NAME, ok=(128, 1)).stderr
    repo.theta("resolve", NAME, "--strategy", "theirs")
    assert (repo.path / NAME).read_bytes() == safetensors(theirs)
    repo.commit("merged")
    assert repo.status() == ""
    assert not np.array_equal(ours[QUERY], theirs[QUERY])
