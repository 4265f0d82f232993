"""The template for GitLab, run as a runner runs it, against a stand-in for its API."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scenarios.gates import gated, measured, score
from tests.scenarios.repositories import Repo
from tests.servers.listening import Handler, listening

TEMPLATE = Path(__file__).parents[2] / "docs/gitlab-ci.yml"


class GitLab:
    """The notes of one merge request."""

    def __init__(self) -> None:
        self.url = ""
        self.notes: list[dict[str, Any]] = []


class _Handler(Handler):
    gitlab: GitLab

    def _handle(self) -> None:
        assert self.headers["PRIVATE-TOKEN"] == "secret"
        notes = self.gitlab.notes
        data = json.loads(self.body() or b"null")
        path, _, query = self.path.partition("?")
        if path == "/user":
            self.answer(200, {"id": 5})
        elif self.command == "GET":
            assert path == "/projects/3/merge_requests/9/notes"
            self.answer(200, notes if query.endswith("page=1") else [])
        elif self.command == "POST":
            notes.append({"id": len(notes), "author": {"id": 5}, "body": data["body"]})
            self.answer(201, notes[-1])
        else:
            notes[int(path.rpartition("/")[2])]["body"] = data["body"]
            self.answer(200, {})

    do_GET = do_POST = do_PUT = _handle


@pytest.fixture
def gitlab() -> Iterator[GitLab]:
    made = GitLab()
    with listening(type("Bound", (_Handler,), {"gitlab": made})) as made.url:
        yield made


def job(repo: Repo, gitlab: GitLab, ok: int) -> None:
    """Run the lines of the template in one shell, as a runner does: it ends at the first error."""
    lines = yaml.safe_load(TEMPLATE.read_text("utf-8"))["git-theta"]["script"]
    environment = {
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "CI_COMMIT_SHA": repo.git("rev-parse", "HEAD").strip(),
        "CI_API_V4_URL": gitlab.url,
        "CI_PROJECT_ID": "3",
        "CI_MERGE_REQUEST_IID": "9",
        "THETA_NOTE_TOKEN": "secret",
    }
    repo.run("bash", "-eo", "pipefail", "-c", "\n".join(lines),
             env={**os.environ, **environment}, ok=(ok,))  # fmt: skip


def test_a_merge_request_is_judged(repo: Repo, tmp_path: Path, gitlab: GitLab) -> None:
    gated(repo)
    repo.git("init", "-q", "--bare", str(tmp_path / "host.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "host.git"))
    measured(repo, "main", score(800))
    repo.git("push", "-q", "origin", "main", "update")
    runner = Repo(tmp_path / "runner")
    repo.git("clone", "-q", "-b", "update", str(tmp_path / "host.git"), str(runner.path))
    gitlab.notes.append({"id": 0, "author": {"id": 8}, "body": "<!-- git-theta-ext --> mine"})
    for right, code in ((700, 1), (800, 0)):
        measured(repo, "update", score(right), when=right)
        repo.git("push", "-q", "origin", "update", "refs/theta/evaluations")
        job(runner, gitlab, code)
        assert ("### ❌ Refused" in gitlab.notes[1]["body"]) == (code == 1)
    assert "### ✅ Accepted" in gitlab.notes[1]["body"]
    assert "head.weight" in gitlab.notes[1]["body"]
    assert len(gitlab.notes) == 2
    assert 'failures="0"' in (runner.path / "git-theta-gates.xml").read_text("utf-8")
    assert (runner.path / "git-theta-report.html").exists()
