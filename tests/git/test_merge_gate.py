"""`git theta merge OTHER --gate`: only what the gates accept is merged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.warm import PREFIX

SCRIPT = """
import pathlib, struct, sys
math, code = struct.unpack("<2f", open(sys.argv[1], "rb").read()[-8:])
for task, weight in (("math", math), ("code", code)):
    rows = "".join(f"{n},{int(n < 400 + 500 * min(weight, 1))}\\n" for n in range(1000))
    (pathlib.Path(sys.argv[2]) / f"{task}.csv").write_text("id,correct\\n" + rows)
"""
TOML = """
[[evaluation]]
name = "skills"
command = '''"{python}" evaluate.py {{checkpoint}} {{results}}'''
[[gate]]
evaluation = "skills"
max_drop = {drop}
"""


def version(math: float, code: float) -> bytes:
    return safetensors({"w": np.array([math, code], np.float32)})


@pytest.fixture
def skilled(repo: Repo) -> Repo:
    """`main` learned to calculate and `other` to program; what they changed collides."""

    def make() -> None:
        repo.write("evaluate.py", SCRIPT.encode())
        repo.write(".theta.toml", TOML.format(python=sys.executable, drop=0.02).encode())
        repo.write(NAME, version(0.1, 0.1))
        repo.commit("base")
        repo.git("switch", "-q", "-c", "other")
        repo.write(NAME, version(0.2, 1))
        repo.commit("code")
        repo.git("switch", "-q", "main")
        repo.write(NAME, version(1, 0.2))
        repo.commit("math")

    repo.once(make)
    return repo


@pytest.mark.git("2.38")
def test_it_tries_until_no_skill_is_lost(skilled: Repo) -> None:
    before = skilled.git("rev-parse", "HEAD")
    refused = skilled.run("git", "theta", "merge", "other", "--gate", ok=(2,)).stderr.decode()
    assert "git theta allow" in refused
    skilled.theta("allow")
    out = skilled.theta("merge", "other", "--gate")
    assert "as configured: something stays in conflict" in out
    assert "task-arithmetic,lambda=0.5: skills: " in out
    assert "against ours: it dropped by more than 0.02" in out
    assert "lambda=0.7: skills: code/acc against theirs: it dropped" in out
    assert "task-arithmetic,lambda=1: accepted" in out
    assert skilled.git("log", "-1", "--format=%P").split()[0] == before.strip()
    assert skilled.status() == ""
    # What was measured then is known of the commit that was made: every parent's gate holds.
    found = json.loads(skilled.theta("check", "HEAD~1..HEAD", "--format", "json"))
    assert {row["verdict"] for row in found["rows"]} == {"accepted"}
    assert {row["after"] for row in found["rows"]} == {0.9}


@pytest.mark.git("2.38")
def test_nothing_is_merged_that_is_refused(skilled: Repo) -> None:
    skilled.theta("allow")
    before = skilled.git("rev-parse", "HEAD")
    for more in (("--strategy", "average"), ("--strategy", "theirs")):
        out = skilled.theta("merge", "other", "--gate", *more, ok=(1,))
        assert "against ours: it dropped by more than" in out
        assert "Nothing was merged." in out
    assert skilled.git("rev-parse", "HEAD") == before
    assert skilled.status() == ""
    # A merge that only moves forward is judged too.
    skilled.git("switch", "-q", "-c", "worse")
    skilled.write(NAME, version(0.5, 0.1))
    skilled.commit("worse")
    skilled.git("switch", "-q", "main")
    assert "math" in skilled.theta("merge", "worse", "--gate", ok=(1,))
    assert skilled.git("rev-parse", "HEAD") == before
    for wrong in (("--plan",), ("--tune",)):
        skilled.theta("merge", "other", "--gate", *wrong, ok=(2,))
    skilled.git("rm", "-q", ".theta.toml")
    skilled.git("commit", "-q", "-m", "no gates")
    assert "no gate" in skilled.run(
        "git", "theta", "merge", "other", "--gate", ok=(2,)).stderr.decode()  # fmt: skip


@pytest.mark.git("2.38")
def test_a_hook_that_changes_what_was_judged(skilled: Repo) -> None:
    before = skilled.git("rev-parse", "HEAD")
    hook = skilled.write(".git/hooks/pre-merge-commit", b"#!/bin/sh\necho x > x\ngit add x\n")
    hook.chmod(0o755)
    how = ("--strategy", "task-arithmetic", "--set", "lambda=1", "--allow-evaluation")
    done = skilled.run("git", "theta", "merge", "other", "--gate", *how, ok=(10,))
    said = done.stderr.decode()
    assert "not the one that was judged" in said
    do(skilled, only(said, "reset"))
    assert skilled.git("rev-parse", "HEAD") == before


@pytest.mark.git("2.38")
def test_what_is_measured_ends_with_the_merge(skilled: Repo) -> None:
    child = skilled.path.parent / "child"
    text = (
        f"import os, pathlib, time\npathlib.Path({str(child)!r}).write_text(f'{{os.getpid()}} ')\n"
    )
    skilled.write("evaluate.py", f"{text}time.sleep(60)\n".encode())
    words = [*PREFIX, "merge", "other", "--gate", "--allow-evaluation"]
    process = subprocess.Popen(
        words, cwd=skilled.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not child.exists() or not child.read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)
