"""The report on a pull request, against a local stand-in for GitHub's API and LFS server."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from git_theta_ext.manifest import Manifest
from tests.checkpoints import model, safetensors
from tests.conftest import Repo

NAME = "model.safetensors"
MARKER = "<!-- git-theta-ext: report on checkpoints -->"
BOT = {"login": "github-actions[bot]"}


class GitHub(ThreadingHTTPServer):
    """Comments of one pull request and a set of LFS objects, over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.comments: list[dict[str, Any]] = []
        self.objects: set[str] = set()
        self.read_only = False
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: GitHub

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _answer(self, status: int, data: object = None) -> None:
        body = b"" if data is None else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        data = json.loads(self.rfile.read(length) or b"null")
        self.server.calls.append(f"{self.command} {self.path}")
        if self.path.endswith("/objects/batch"):
            assert self.headers["Authorization"].startswith("Basic ")
            assert data["operation"] == "download"
            answers = [
                item if item["oid"] in self.server.objects else {**item, "error": {"code": 404}}
                for item in data["objects"]
            ]
            self._answer(200, {"objects": answers})
            return
        assert self.headers["Authorization"] == "Bearer secret"
        comments = self.server.comments
        if self.path == "/user":
            self._answer(403, {})
        elif self.command == "GET":
            page = int(self.path.rpartition("=")[2])
            self._answer(200, comments[100 * (page - 1) : 100 * page])
        elif self.server.read_only:
            self._answer(403, {"message": "Resource not accessible by integration"})
        elif self.command == "POST":
            assert self.path == "/repos/o/r/issues/7/comments"
            comments.append({"id": 1000 + len(comments), "user": BOT, "body": data["body"]})
            self._answer(201, comments[-1])
        else:
            number = int(self.path.rpartition("/")[2])
            found = next(item for item in comments if item["id"] == number)
            if self.command == "PATCH":
                found["body"] = data["body"]
                self._answer(200, found)
            else:
                comments.remove(found)
                self._answer(204)

    do_GET = do_POST = do_PATCH = do_DELETE = _handle


@pytest.fixture
def github() -> Iterator[GitHub]:
    """A server on a free port."""
    server = GitHub()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def pull(repo: Repo, github: GitHub) -> Repo:
    """A branch that changes one tensor, all objects being on the server."""
    tensors = model()
    repo.write(NAME, safetensors(tensors))
    repo.commit("base")
    repo.git("switch", "-q", "-c", "feature")
    change(repo, np.float32(1.5))
    repo.git("switch", "-q", "main")
    repo.write("unrelated.txt", b"x")
    repo.commit("main goes on")
    upload(repo, github)
    return repo


def change(repo: Repo, factor: np.float32) -> None:
    """Commit a model with one weight multiplied."""
    tensors = model()
    name = "encoder.layer.1.attention.query.weight"
    repo.write(NAME, safetensors({**tensors, name: tensors[name] * factor}))
    repo.commit("change")


def upload(repo: Repo, github: GitHub) -> None:
    """Have the server know all objects of the branch."""
    github.objects |= {ref.oid for ref in Manifest.parse(repo.blob(f"feature:{NAME}")).objects()}


def report(repo: Repo, github: GitHub, ok: int = 0, **extra: str) -> tuple[str, Path]:
    """Run the script as the action does; what it prints, and the folder of its files."""
    folder = repo.path.parent / "runner"
    folder.mkdir(exist_ok=True)
    base, head = (repo.git("rev-parse", name).strip() for name in ("main", "feature"))
    event = {"pull_request": {"number": 7, "base": {"sha": base}, "head": {"sha": head}}}
    (folder / "event.json").write_text(json.dumps(event))
    environment = {
        "GITHUB_EVENT_PATH": str(folder / "event.json"),
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_API_URL": github.url,
        "GITHUB_SERVER_URL": github.url,
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_TOKEN": "secret",
        "RUNNER_TEMP": str(folder),
        **extra,
    }
    done = repo.run(
        sys.executable, "-I", "-m", "git_theta_ext.cli.pull_request", env=environment, ok=(ok,)
    )
    return done.stdout.decode() + done.stderr.decode(), folder


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
    new = {ref.oid for ref in Manifest.parse(pull.blob(f"feature:{NAME}")).objects()}
    new -= {ref.oid for ref in Manifest.parse(pull.blob(f"main:{NAME}")).objects()}
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
