"""Merges are told by tensor."""

from __future__ import annotations

import json

from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.merges import QUERY
from tests.scenarios.repositories import Repo

BASE = model()


def test_a_merge_is_told_tensor_by_tensor(apart: Repo) -> None:
    apart.git("merge", "-q", "-m", "both", "side")
    own = {**BASE, QUERY: changed(BASE[QUERY], seed=9), "more": BASE[QUERY]}
    apart.write(NAME, safetensors({name: own[name] for name in own if name != "step"}))
    apart.git("commit", "-q", "-a", "--amend", "-m", "a merge of its own")
    shown = apart.theta("show", "HEAD")
    rows = json.loads(apart.theta("show", "HEAD", "--json"))
    assert [one["commit"] for one in rows["sides"]] == apart.git("rev-parse", "HEAD^@").split()
    found = {one["name"]: (one["as"], one["removed"]) for one in rows["files"][0]["tensors"]}
    assert found[QUERY] == ([], False)
    assert found["more"] == ([], False)
    assert "of its own" in shown
    assert QUERY in shown
    (line,) = [one for one in apart.theta("show", "HEAD", QUERY).splitlines() if QUERY in one]
    assert line.split()[:3] == ["of", "its", "own"]
    log = apart.theta("log", "-p", "-n", "1", NAME, QUERY)
    assert line in [one.removeprefix("    ") for one in log.splitlines()]
    assert "cos" in log  # and the numbers, compared with the first parent
    apart.git("reset", "-q", "--hard", "HEAD^1")
    apart.git("merge", "-q", "-s", "ours", "-m", "not theirs", "side")
    assert f"\n{NAME}  the file is as in ours\n" in apart.theta("show", "HEAD")
    (row,) = json.loads(apart.theta("show", "HEAD", "--json"))["files"]
    assert row["as"] == ["ours"]
    apart.git("reset", "-q", "--hard", "HEAD^1")
    hint = only(apart.run("git", "theta", "show", "HEAD", ok=(2,)).stderr.decode())
    assert "1 of" in do(apart, hint)
