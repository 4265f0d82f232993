"""git theta scores: every version with what was measured of it, in every shape."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME
from tests.scenarios.merges import st
from tests.scenarios.repositories import Repo
from tests.scenarios.warm import PREFIX

IMPORTED = "† imported from files, not measured by git theta"
EVIL = "<script>alert(1)</script> =1+1"


def version(repo: Repo, message: str, **values: float) -> str:
    arrays = {name: np.full(300, value, np.float32) for name, value in values.items()}
    repo.write(NAME, st(arrays))
    return repo.commit(message)


def imported(repo: Repo, revision: str, scores: object, name: str = "glue") -> None:
    path = repo.path.parent / "results.json"
    path.write_text(json.dumps(scores))
    repo.theta("evaluate", revision, "--evaluation", name, "--import", str(path))


@pytest.fixture
def told(repo: Repo) -> Repo:
    """Two branches that were merged, all versions measured but one; two people disagree on one."""

    def make() -> None:
        version(repo, "first", w=1, b=1)
        version(repo, EVIL, w=2, b=1)
        repo.git("branch", "side")
        version(repo, "ours", w=3, b=1)
        repo.git("checkout", "-q", "side")
        version(repo, "theirs", w=2, b=4)
        repo.git("checkout", "-q", "main")
        repo.git("merge", "-q", "-m", "Merge side", "side")
        version(repo, "not measured", w=5, b=4)
        version(repo, "last", w=6, b=4)
        for revision, acc in (("HEAD~4", 0.5), ("HEAD~3", 0.6), ("side", 0.8), ("HEAD~2", 0.7)):
            imported(repo, revision, {"rte": {"acc": acc, "acc_stderr": 0.02, "n": 100}})
        imported(repo, "HEAD", {"rte": {"acc": 0.75}, "ppl": {"loss": 2.0}})
        imported(repo, "HEAD~2", {"ppl": {"loss": 1.0}})
        imported(repo, "HEAD", {"rte": {"acc": 0.65}})

    repo.once(make)
    return repo


def test_text_in_both_orders(told: Repo) -> None:
    lines = told.theta("scores", NAME).splitlines()
    assert lines[0].split() == ["commit", "date", "glue/rte/acc", "glue/ppl/loss", "stores",
                                "subject"]  # fmt: skip
    assert re.match(r"[0-9a-f]{9}  \d{4}-\d\d-\d\d  0\.[67]5†, 0\.[67]5† +2† ", lines[1])
    assert "–" in lines[2]
    assert "(merge) Merge side" in lines[3]
    assert "0.7 ±0.02" in lines[3]
    assert lines[-2:] == [IMPORTED, "5 of 7 versions measured"]
    best = told.theta("scores", NAME, "--by", "score", "--metric", "acc", "-n", "1").splitlines()
    assert "theirs" in best[1]
    least = told.theta("scores", NAME, "--by", "score", "--metric", "ppl/loss", "-n", "1")
    assert "Merge side" in least
    # The same again, from memory, and with a memory that is none.
    assert told.theta("scores", NAME).splitlines() == lines
    (told.path / ".git/theta/versions.json").write_text('{"x": 3}')
    assert told.theta("scores", NAME).splitlines() == lines
    (told.path / ".git/theta/versions.json").write_text("{")
    assert told.theta("scores", f"HEAD:{NAME}").splitlines() == lines


def test_records_and_tables(told: Repo) -> None:
    found = json.loads(told.theta("scores", NAME, "--format", "json"))
    assert found["file"] == NAME
    versions = {one["subject"]: one for one in found["versions"]}
    merge = versions["Merge side"]
    assert merge["parents"] == [versions["ours"]["commit"], versions["theirs"]["commit"]]
    assert [one["name"] for one in merge["tensors"]] == ["b"]
    assert (merge["changed"], merge["stored"]) == (1, 0)
    assert [one["name"] for one in versions["ours"]["tensors"]] == ["w"]
    assert versions["ours"]["stored"] > 0
    scores = {(one["task"], one["value"]) for one in versions["last"]["scores"]}
    assert scores == {("rte", 0.75), ("rte", 0.65), ("ppl", 2.0)}
    assert {one["origin"] for one in versions["last"]["scores"]} == {"imported"}
    rows = list(csv.DictReader(io.StringIO(told.theta("scores", NAME, "--format", "csv"))))
    assert len(rows) == 4 + 1 + 3 + 1 + 1
    assert {row["subject"] for row in rows} >= {EVIL, "not measured"}
    text = told.theta("scores", NAME, "--format", "markdown")
    assert "| 0.7 ±0.02† |" in text
    assert "imported from files" in text
    assert "<script>" not in text


def test_a_page(told: Repo, tmp_path: Path) -> None:
    told.theta("scores", NAME, "--format", "html", "-o", str(tmp_path / "scores.html"))
    text = (tmp_path / "scores.html").read_text("utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert text.count('class="merged"') == 1
    assert "best glue/rte/acc: 0.8 ±0.02†" in text
    assert "† imported" in text


def test_what_is_not_there_is_said(told: Repo) -> None:
    said = told.run(*PREFIX, "scores", "nothing.pt", ok=(2,)).stderr.decode()
    assert "no commit of HEAD touched 'nothing.pt'" in said
    said = told.run(*PREFIX, "scores", NAME, "--metric", "f1", ok=(2,)).stderr.decode()
    assert "no metric matches 'f1'\n  hint: measured: glue/rte/acc, glue/ppl/loss" in said
    # A checkpoint that was renamed is followed.
    told.git("mv", NAME, "other.safetensors")
    told.git("commit", "-q", "-m", "rename")
    assert told.theta("scores", "other.safetensors").splitlines()[-1] == "6 of 8 versions measured"
    told.git("reset", "-q", "--hard", "HEAD~")
    # A manifest that is damaged, and a version without the file, are called what they are.
    bad = told.blob(f"HEAD:{NAME}").replace(b"sha256:", b"sha256:z", 1)
    oid = told.run("git", "hash-object", "-w", "--stdin", stdin=bad).stdout.decode().strip()
    told.git("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    told.git("commit", "-q", "-m", "bad")
    lines = told.theta("scores", NAME).splitlines()
    assert "(a damaged manifest) bad" in lines[1]
    done = told.run(*PREFIX, "evaluate", "--import", "x", "--evaluation", "y", ok=(2,))
    assert f"warning: blob {oid} is no checkpoint" in done.stderr.decode()
    told.git("rm", "-q", "--cached", NAME)
    told.git("commit", "-q", "-m", "gone")
    assert "(not there) gone" in told.theta("scores", NAME).splitlines()[1]
    told.git("reset", "-q", "--hard", "HEAD~2")
    told.git("update-ref", "-d", "refs/theta/evaluations")
    done = told.run(*PREFIX, "scores", NAME)
    assert b"nothing was measured" in done.stderr
    said = told.run(*PREFIX, "scores", NAME, "--by", "score", ok=(2,)).stderr.decode()
    assert "nothing was measured" in said
    command = f"'{sys.executable}' -c 'print(0.5)' {{checkpoint}}"
    text = f"[[evaluation]]\nname = 'e'\ncommand = {json.dumps(command)}\n"
    told.write(".theta.toml", text.encode())
    told.theta("allow")
    assert "e/score 0.5" in do(told, only(said, "theta evaluate"))


def test_a_broken_ref_is_not_taken_for_no_results(told: Repo) -> None:
    (told.path / ".git/refs/theta/evaluations").write_text("nothing\n")
    done = told.run(*PREFIX, "scores", NAME, ok=(10,))
    assert b"refs/theta/evaluations is broken" in done.stderr
