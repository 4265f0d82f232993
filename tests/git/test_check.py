"""`git theta check`: an update is judged by the rules of its base."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET

import numpy as np

from git_theta_ext.evaluation.config import parse
from git_theta_ext.evaluation.targets import Targets, hash_of_beside
from git_theta_ext.git.repository import Repository
from tests.scenarios import sharded
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.gates import TOML, gated, measured, score, version
from tests.scenarios.repositories import Repo


def test_from_not_measured_to_accepted(repo: Repo) -> None:
    gated(repo)
    done = repo.run("git", "theta", "check", ok=(3,)).stdout.decode()
    head = repo.git("rev-parse", "HEAD")[:10]
    assert f"git theta evaluate {head}" in done
    assert "Not decided: 1 of 1 judgement" in done

    measured(repo, "HEAD", score(790))
    assert "base" in repo.theta("check", ok=(3,))
    measured(repo, "main", score(800, task_hash="a"))
    # Ten of 1,000 fewer, and no others: not more than what is allowed.
    done = repo.theta("check", "main...HEAD", "--gate", "glue/rte")
    assert "-0.01 (" in done
    assert "paired, exact, 1,000 examples" in done
    assert done.endswith("Accepted: 1 judgement, none refuses.\n")

    measured(repo, "HEAD", score(650), when=2, by="Bo <bo@example.org>")
    done = repo.theta("check", ok=(1,))
    assert "REFUSED" in done
    assert "2 results differ (0.65 by Bo" in done
    found = json.loads(repo.theta("check", "--format", "json", ok=(1,)))
    assert (found["code"], found["rows"][0]["test"]) == (1, "exact")
    assert found["rows"][0]["high"] < -0.01
    suite = ET.fromstring(repo.theta("check", "--format", "junit", ok=(1,)))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert "::error file=model.safetensors::" in repo.theta("check", "--format", "github", ok=(1,))
    repo.theta("check", "--format", "markdown", "-o", "report.md", ok=(1,))
    assert "| ❌ | <code>glue/rte/acc</code> | 0\\.8 | 0\\.65 |" in (
        repo.path / "report.md").read_text("utf-8")  # fmt: skip

    measured(repo, "HEAD", score(800, task_hash="b"), when=3)
    repo.git("update-ref", "-d", "refs/theta/evaluations")
    measured(repo, "HEAD", score(800, task_hash="b"))
    measured(repo, "main", score(800, task_hash="a"))
    done = repo.theta("check", ok=(3,))
    assert "NOT COMPARABLE" in done
    assert "other questions (task hash)" in done
    assert "no gate 'other'" in repo.run(
        "git", "theta", "check", "--gate", "other", ok=(2,)).stderr.decode()  # fmt: skip


def test_an_update_cannot_loosen_its_own_gate(repo: Repo) -> None:
    gated(repo)
    repo.write(".theta.toml", TOML.replace("min = 0.5", "min = 0.1").encode())
    repo.commit("loosen")
    measured(repo, "main", score(450))
    measured(repo, "HEAD", score(450))
    done = repo.theta("check", ok=(1,))
    assert "0.45 is below the minimum of 0.5" in done
    assert "its gates count once they are on the base" in done
    # On the default branch itself an update is compared with its parent, by that one's rules.
    repo.git("switch", "-q", "main")
    repo.git("rm", "-q", ".theta.toml")
    repo.write(NAME, version(3))
    repo.commit("without gates")
    assert "compared with" in repo.theta("check", ok=(3,))
    repo.write(NAME, version(4))
    repo.commit("more")
    assert "there is no .theta.toml on the base" in repo.theta("check")


def test_rules_about_the_checkpoint_itself(repo: Repo) -> None:
    toml = '[[gate]]\nname = "lean"\nmax_stored = 10\nnew_nan = false\nfrozen = "stem.*"\n'
    gated(repo, toml)
    assert "at most 10 B" in repo.theta("check", ok=(1,))
    broken = np.ones(300, np.float32)
    broken[7] = np.nan
    repo.write(NAME, safetensors({"head.weight": broken, "stem.weight": broken}))
    repo.write("new.safetensors", safetensors({"other": broken}))
    repo.commit("broken")
    found = json.loads(repo.theta("check", "--format", "json", ok=(1,)))
    said = {(row["path"], row["subject"]): row for row in found["rows"]}
    assert said[NAME, "new NaN"]["verdict"] == "refused"
    assert "stem.weight" in said[NAME, "frozen"]["reasons"][0]
    assert "head.weight" not in said[NAME, "frozen"]["reasons"][0]
    assert said["new.safetensors", "new NaN"]["after"] == 1
    assert said["new.safetensors", "frozen"]["verdict"] == "accepted"
    repo.git("rm", "-q", NAME, "new.safetensors")
    repo.git("commit", "-q", "-m", "away")
    assert "not there any more" in repo.theta("check", ok=(3,))


def test_best_a_tag_and_parents(repo: Repo) -> None:
    gates = "".join(
        f'[[gate]]\nname = "{name}"\nevaluation = "glue"\nmax_drop = 0.0\nagainst = "{against}"\n'
        for name, against in (("best", "best"), ("tag", "tag:v1"), ("parents", "parents"))
    )
    gated(repo, TOML.partition("[[gate]]")[0] + gates, {"a": 2.0, "b": 3.0})
    measured(repo, "main", score(900))
    repo.git("tag", "v1", "main")
    repo.git("switch", "-q", "main")
    repo.write(NAME, version(4))
    repo.commit("worse")
    measured(repo, "main", score(700))
    measured(repo, "a", score(700, seed=1))
    measured(repo, "b", score(800))
    repo.git("switch", "-q", "a")
    repo.run("git", "merge", "-q", "b", ok=(1,))
    repo.write(NAME, version(5))
    repo.commit("merged")
    measured(repo, "HEAD", score(750))
    found = json.loads(repo.theta("check", "main..HEAD", "--format", "json", ok=(1,)))
    said = {(row["gate"], row["against"]): row["verdict"] for row in found["rows"]}
    assert said == {
        ("best", "best"): "refused",
        ("tag", "v1"): "refused",
        ("parents", "parent 1"): "accepted",
        ("parents", "parent 2"): "refused",
    }


def test_bisecting(repo: Repo) -> None:
    gated(repo, branches={"work": 1.5})
    measured(repo, "main", score(800))
    measured(repo, "HEAD", score(801))
    for number in range(5):
        repo.write(NAME, version(2 + number))
        repo.commit(f"version {number}")
        if number != 1:
            measured(repo, "HEAD", score(800 - number - 150 * (number >= 3)))
    bad = repo.git("rev-parse", "HEAD~1").strip()
    repo.git("bisect", "start", "HEAD", "main")
    # A mistake is no bad commit.
    done = repo.run("git", "bisect", "run", "git", "theta", "check", "--gate", "no", ok=(1, 2, 128))
    assert b"is the first" not in done.stdout
    out = repo.git("bisect", "run", "git", "theta", "check", "--gate", "glue/rte")
    assert f"{bad} is the first bad commit" in out.replace("'bad'", "bad")  # as of Git 2.55
    repo.git("bisect", "reset")


def test_what_is_suggested(repo: Repo) -> None:
    script = "import sys; open(sys.argv[1] + '/rte.csv', 'w').write('id,correct\\na,1\\nb,1\\n')"
    repo.write("evaluate.py", script.encode())
    command = f"'{sys.executable}' evaluate.py {{results}} {{checkpoint}}"
    gated(repo, TOML.replace("python evaluate.py {checkpoint} --out {results}", command))
    repo.theta("allow")
    for _ in range(2):
        do(repo, only(repo.theta("check", ok=(3,)), "theta evaluate"))
    assert "Accepted" in repo.theta("check")
    # A default branch of no usual name has to be named.
    repo.git("branch", "-q", "-m", "main", "trunk")
    advice = only(repo.run("git", "theta", "check", ok=(2,)).stderr.decode(), "theta check")
    assert "Accepted" in do(repo, advice.replace("BRANCH", "trunk"))
    done = repo.run("git", "theta", "check", "other...HEAD", ok=(2,)).stderr.decode()
    assert "trunk" in do(repo, only(done, "branch"))
    # A clone with a part of the history does not know where a branch began.
    repo.git("commit", "-q", "--allow-empty", "-m", "more")
    repo.git("clone", "-q", "--depth", "1", "--no-single-branch", repo.path.as_uri(), "shallow")
    clone = Repo(repo.path / "shallow")
    check = ("theta", "check", "origin/trunk...HEAD")
    advice = only(clone.run("git", *check, ok=(2,)).stderr.decode(), "fetch")
    do(clone, advice)
    clone.git("fetch", "-q", "origin", "refs/theta/evaluations:refs/theta/evaluations")
    assert "Accepted" in clone.git(*check)


def test_a_sharded_model_is_one(repo: Repo) -> None:
    repo.write(".theta.toml", TOML.replace("model.safetensors", sharded.INDEX).encode())
    sharded.write(repo, sharded.arrays(), 0, 6)
    repo.commit("base")
    repo.git("switch", "-q", "-c", "update")
    sharded.write(repo, sharded.arrays(), 0, 4)
    repo.commit("other shards")
    # The same tensors have the same scores.
    measured(repo, "main", score(800), path="llm/*.safetensors")
    assert "the tensors are the same" in repo.theta("check")
    sharded.write(repo, {**sharded.arrays(), **sharded.trained("layers.7.w")}, 0, 4)
    repo.commit("trained")
    assert "git theta evaluate" in repo.theta("check", ok=(3,))
    measured(repo, "HEAD", score(700), path="llm/*.safetensors")
    assert "REFUSED" in repo.theta("check", ok=(1,))


def test_files_beside_a_model_may_change_its_scores(repo: Repo) -> None:
    command = "python evaluate.py {model_dir} {results}"
    repo.write("tokenizer.json", b"{}")
    gated(repo, TOML.replace("python evaluate.py {checkpoint} --out {results}", command))
    definition = parse(repo.blob("main:.theta.toml")).evaluations[0].definition
    repo.git("switch", "-q", "-c", "words", "main")
    repo.write("tokenizer.json", b'{"a": 1}')
    repo.commit("another tokenizer")
    assert "git theta evaluate" in repo.theta("check", ok=(3,))
    for revision, right in (("main", 800), ("words", 700)):
        (target,) = Targets(place := Repository.discover(repo.path)).of(
            repo.git("rev-parse", revision).strip())  # fmt: skip
        beside = hash_of_beside(place, target)
        measured(repo, revision, score(right), definition=definition, beside=beside)
    assert "REFUSED" in repo.theta("check", ok=(1,))
    # An evaluation that only gets the checkpoint does not see it.
    repo.git("switch", "-q", "-c", "plain", "main")
    repo.write(".theta.toml", TOML.encode())
    repo.commit("checkpoint alone")
    repo.git("checkout", "-q", "words", "--", "tokenizer.json")
    repo.commit("another tokenizer")
    assert "no gate is for what changed" in repo.theta("check", "plain~1...plain")
