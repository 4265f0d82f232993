"""The gates of the base on a pull request, against the stand-in for GitHub."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.scenarios.checkpoints import safetensors
from tests.scenarios.gates import TOML, gated, measured, score, version
from tests.scenarios.pull_requests import NAME, GitHub, report, upload
from tests.scenarios.repositories import Repo

REF = "refs/theta/evaluations"


def publish(repo: Repo, github: GitHub) -> Repo:
    """Have the results on the server, and no longer here; the server's repository."""
    github.bare = repo.path.parent / "host"
    place = github.bare / "o/r.git"
    if not place.exists():
        repo.git("init", "-q", "--bare", str(place))
        Repo(place).git("config", "http.receivepack", "true")
    repo.git("push", "-q", "--force", str(place), f"{REF}:{REF}")
    repo.git("update-ref", "-d", REF)
    return Repo(place)


def judged(repo: Repo, github: GitHub, code: int, **more: str) -> tuple[str, str, Path]:
    """What the job prints, the comment that there is then, and the folder of its files."""
    out, folder = report(repo, github, code, THETA_CHECK="true", **more)
    return out, github.comments[-1]["body"] if github.comments else "", folder


def test_one_comment_with_the_verdict(repo: Repo, github: GitHub) -> None:
    gated(repo, branches={"feature": 2.0})
    repo.write(".theta.toml", b"")  # a pull request cannot take its gates away
    repo.commit("no gates")
    upload(repo, github)
    out, body, folder = judged(repo, github, 3)
    assert "Results could not be fetched" in out
    assert "NOT MEASURED" in body
    assert "verdict=undecided" in (folder / "output").read_text("utf-8")

    measured(repo, "main", score(800))
    measured(repo, "feature", score(795))
    publish(repo, github)
    out, body, folder = judged(repo, github, 0)
    assert body.index("### ✅ Accepted") < body.index("### Checkpoints")
    row = next(line for line in body.splitlines() if "glue/rte/acc" in line)
    assert "0\\.8 | 0\\.795 | \\-0\\.005" in row
    assert "█▁" in row
    assert "its gates count once they are on the base" in body
    assert "head.weight" in body
    assert "verdict=accepted" in (folder / "output").read_text("utf-8")
    assert "::notice::Accepted" in out
    assert "secret" not in out

    repo.git("switch", "-q", "feature")
    repo.write(NAME, version(3))
    repo.commit("worse")
    upload(repo, github)
    measured(repo, "feature", score(700))
    publish(repo, github)
    out, body, _ = judged(repo, github, 1)
    assert "::error file=model.safetensors::glue/rte/acc: REFUSED" in out
    assert "### ❌ Refused\\: 1 of 1 judgement" in body
    assert "dropped by more than" in body
    assert "██▁" in body
    assert len(github.comments) == 1
    # A merge queue asks the same of the merged commit, and nobody gets a comment.
    base, head = (repo.git("rev-parse", one).strip() for one in ("main", "feature"))
    repo.git("update-ref", "refs/remotes/origin/main", "main")
    event = {"merge_group": {"head_sha": head, "base_sha": base},
             "repository": {"default_branch": "main"}}  # fmt: skip
    github.comments.clear()
    out, folder = report(repo, github, 1, event, THETA_CHECK="true")
    assert "REFUSED" in out
    assert github.comments == []
    # After a push of the default branch the rules are those that it had before.
    repo.git("update-ref", "refs/remotes/origin/main", "feature")
    event = {"before": base, "after": head, "repository": {"default_branch": "main"}}
    assert "REFUSED" in report(repo, github, 1, event, THETA_CHECK="true")[0]
    assert "Refused" in (folder / "summary.md").read_text("utf-8")


def test_rules_about_values_need_the_objects(repo: Repo, github: GitHub) -> None:
    toml = '[[gate]]\nname = "sound"\nnew_nan = false\n'
    gated(repo, toml, {"feature": float("nan")})
    upload(repo, github)
    out, body, _ = judged(repo, github, 1)
    assert "300 entries are NaN or infinite" in out
    github.objects.clear()
    for path in (repo.path / ".git/theta/objects").rglob("*"):
        if path.is_file():
            path.unlink()
    out, body, _ = judged(repo, github, 3, THETA_CHECK_OBJECTS="false")
    assert "is not on the server" in body or "was never uploaded" in body


def test_rules_that_are_not_usable(repo: Repo, github: GitHub) -> None:
    gated(repo, TOML.replace("max_drop", "max_dorp"), {"feature": 2.0})
    upload(repo, github)
    out, body, _ = judged(repo, github, 2)
    assert "did you mean max_drop" in out
    assert "max&#95;dorp" in body
    assert "head.weight" in body


SCRIPT = b"""
import os, pathlib, struct, sys
assert not {"GITHUB_TOKEN", "GITHUB_OUTPUT"} & set(os.environ)
weight = struct.unpack("<f", open(sys.argv[1], "rb").read()[-4:])[0]
rows = "".join(f"{n},{int(n < 900 - 100 * weight)}\\n" for n in range(1000))
(pathlib.Path(sys.argv[2]) / "rte.csv").write_text("id,correct\\n" + rows)
"""


def test_it_measures_by_the_word_of_the_base(repo: Repo, github: GitHub) -> None:
    """Scripts and examples are the base's: a pull request brings tensors, and nothing that runs."""
    toml = TOML.replace("python evaluate.py {checkpoint} --out {results}",
                        f"'{sys.executable}' evaluate.py {{checkpoint}} {{results}}")  # fmt: skip
    repo.write("evaluate.py", SCRIPT)
    gated(repo, toml, {"feature": 2.0})
    repo.write("evaluate.py", b"raise SystemExit('the fork was run')")
    repo.write(NAME, safetensors({"weight": np.full(300, 1.5, np.float32)}))
    repo.commit("a fork")
    upload(repo, github)
    out, body, folder = judged(repo, github, 1, THETA_EVALUATE="true")
    assert "2 versions to measure" in out
    assert "Measured: glue of model.safetensors" in out
    assert "::notice::the results could not be sent" in out
    assert "0\\.8 | 0\\.75" in body
    assert f"results={folder}/git-theta-results.bundle" in (folder / "output").read_text("utf-8")
    assert repo.git("worktree", "list").count("\n") == 1
    assert repo.status() == ""

    # Whoever may write keeps the results with the repository, and nobody measures again.
    host = publish(repo, github)
    before = host.git("rev-parse", REF)
    host.git("update-ref", "-d", REF)
    assert "Results were sent" in judged(repo, github, 1, THETA_EVALUATE="true")[0]
    assert host.git("rev-parse", REF) != before
    repo.git("update-ref", "-d", REF)
    assert "0 versions to measure" in judged(repo, github, 1, THETA_EVALUATE="true")[0]
