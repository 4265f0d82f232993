"""The report on a pull request, against a local stand-in for GitHub's API and LFS server."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.advised import do, only
from tests.scenarios.checkpoints import NAME, model, safetensors
from tests.scenarios.pull_requests import BOT, MARKER, GitHub, change, report, upload
from tests.scenarios.repositories import Repo


def test_one_comment_that_is_updated_and_removed(pull: Repo, github: GitHub) -> None:
    github.comments += [{"id": n, "user": {"login": "x"}, "body": "talk"} for n in range(120)]
    # Anybody can write the marker; only our own comment is ours.
    github.comments.append({"id": 500, "user": {"login": "mallory"}, "body": MARKER})
    out, folder = report(pull, github)
    assert "Comment: made" in out
    body = github.comments[-1]["body"]
    assert body.startswith(MARKER)
    assert "1 of 14 tensors" in body
    assert "encoder.layer.1.attention.query.weight" in body
    assert "unrelated" not in body
    assert (folder / "git-theta-report.html").read_text("utf-8").startswith("<!doctype html>")
    assert "1 of 14 tensors" in (folder / "summary.md").read_text("utf-8")
    assert "changed=true" in (folder / "output").read_text("utf-8")
    assert "Comment: kept" in report(pull, github)[0]
    pull.git("switch", "-q", "feature")
    change(pull, np.float32(3))
    upload(pull, github)
    assert "Comment: updated" in report(pull, github)[0]
    assert len([item for item in github.comments if item["user"] == BOT]) == 1
    change(pull, np.float32(1))
    upload(pull, github)
    assert "Comment: removed" in report(pull, github)[0]
    assert [item["user"] for item in github.comments if item["user"] == BOT] == []
    assert "Comment: none needed" in report(pull, github)[0]


def test_a_token_that_may_only_read(pull: Repo, github: GitHub) -> None:
    github.read_only = True
    out, folder = report(pull, github)
    assert "::notice::" in out
    assert github.comments == []
    assert "1 of 14 tensors" in (folder / "summary.md").read_text("utf-8")
    assert "No token" in report(pull, github, GITHUB_TOKEN="", THETA_CHECK_OBJECTS="false")[0]


def test_a_missing_object_fails(pull: Repo, github: GitHub) -> None:
    new = {ref.oid for ref in parse_manifest(pull.blob(f"feature:{NAME}")).objects()}
    new -= {ref.oid for ref in parse_manifest(pull.blob(f"main:{NAME}")).objects()}
    lost = new.pop()
    github.objects.discard(lost)
    out, _ = report(pull, github, ok=1)
    assert "::error::1 object" in out
    assert lost[:12] in github.comments[-1]["body"]
    assert "git theta push" in github.comments[-1]["body"]
    report(pull, github, THETA_CHECK_OBJECTS="false")


def test_a_checkpoint_committed_whole(pull: Repo, github: GitHub) -> None:
    pull.git("switch", "-q", "feature")
    pull.write("@all <b>raw.safetensors", safetensors(model(3)))
    pull.run("git", "-c", "filter.theta.process=", "-c", "filter.theta.required=false",
             "add", "@all <b>raw.safetensors")  # fmt: skip
    pull.git("commit", "-q", "-m", "raw")
    out, _ = report(pull, github)
    assert "::warning::@all <b>raw.safetensors was committed whole" in out
    warning = next(line for line in github.comments[-1]["body"].splitlines() if "whole" in line)
    assert "@" not in warning
    assert "<b>" not in warning
    do(pull, only(out, "renormalize"))
    assert pull.blob(":@all <b>raw.safetensors").startswith(b"git-theta manifest")


def test_commits_that_are_not_here(pull: Repo, github: GitHub) -> None:
    folder = pull.path.parent / "runner"
    report(pull, github)
    event = {
        "pull_request": {"number": 7, "base": {"sha": "0" * 39 + "1"}, "head": {"sha": "1" * 40}}
    }
    (folder / "other.json").write_text(json.dumps(event))
    done = pull.run(
        sys.executable, "-m", "git_theta_ext.cli.pull_request",
        env={"GITHUB_EVENT_PATH": str(folder / "other.json"), "GITHUB_REPOSITORY": "o/r"}, ok=(10,),
    )  # fmt: skip
    assert b"fetch-depth: 0" in done.stderr


@pytest.mark.parametrize(
    "event",
    ["", "[]", "{}", '{"pull_request": {"number": "7", "base": {"sha": 1}, "head": {"sha": 2}}}'],
)
def test_other_events_are_refused(repo: Repo, event: str) -> None:
    path = repo.write("event.json", event.encode())
    done = repo.run(
        sys.executable, "-m", "git_theta_ext.cli.pull_request",
        env={"GITHUB_EVENT_PATH": str(path), "GITHUB_REPOSITORY": "o/r"}, ok=(2,),
    )  # fmt: skip
    assert b"pull request" in done.stdout
