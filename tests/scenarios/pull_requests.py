"""A stand-in for GitHub's API and LFS server, and pull requests to report on."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo
from tests.servers.git_http import backend
from tests.servers.listening import Handler, listening

NAME = "model.safetensors"
MARKER = "<!-- git-theta-ext: report on checkpoints -->"
BOT = {"login": "github-actions[bot]"}


class GitHub:
    """Comments of one pull request and a set of LFS objects, over HTTP."""

    def __init__(self) -> None:
        self.url = ""
        self.comments: list[dict[str, Any]] = []
        self.objects: set[str] = set()
        self.contents: dict[str, bytes] = {}
        self.refusal = 0
        """A status with which to answer every request for objects."""
        self.read_only = False
        self.calls: list[str] = []
        self.tokens: list[str | None] = []
        self.bare: Path | None = None
        """A folder with the repository `o/r.git`; None: there is none."""


class _Handler(Handler):
    github: GitHub

    def _objects(self, data: Any) -> None:
        server = self.github
        if server.refusal:
            self.answer(server.refusal, {"message": "no"})
        elif self.path.startswith("/object/"):
            self.answer(200, server.contents[self.path.rpartition("/")[2]])
        else:
            assert self.path.endswith("/objects/batch")
            server.tokens.append(self.headers["Authorization"])
            assert data["operation"] == "download"
            self.answer(200, {"objects": [self._offer(item) for item in data["objects"]]})

    def _offer(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["oid"] not in self.github.objects:
            return {**item, "error": {"code": 404}}
        place = {"href": f"{self.github.url}/object/{item['oid']}"}
        return {**item, "actions": {"download": place}}

    def _git(self, body: bytes) -> None:
        """Git's own protocol, for who has the token; a pull request of a fork may not write."""
        basic = b64encode(b"x-access-token:secret").decode()
        if self.github.bare is None:
            self.answer(404)
        elif self.headers["Authorization"] != f"Basic {basic}":
            self.answer(401)
        elif self.github.read_only and "receive-pack" in self.path:
            self.answer(403)
        else:
            status, headers, found = backend(self, body, self.github.bare, "bot")
            self.answer(status, found, headers)

    def _handle(self) -> None:
        body = self.body()
        self.github.calls.append(f"{self.command} {self.path}")
        if self.path.startswith("/o/r.git/") and "/info/lfs/" not in self.path:
            self._git(body)
            return
        data = json.loads(body or b"null")
        if "/info/lfs/" in self.path or self.path.startswith("/object/"):
            self._objects(data)
            return
        assert self.headers["Authorization"] == "Bearer secret"
        comments = self.github.comments
        if self.path == "/user":
            self.answer(403, {})
        elif self.command == "GET":
            page = int(self.path.rpartition("=")[2])
            self.answer(200, comments[100 * (page - 1) : 100 * page])
        elif self.github.read_only:
            self.answer(403, {"message": "Resource not accessible by integration"})
        elif self.command == "POST":
            assert self.path == "/repos/o/r/issues/7/comments"
            comments.append({"id": 1000 + len(comments), "user": BOT, "body": data["body"]})
            self.answer(201, comments[-1])
        else:
            number = int(self.path.rpartition("/")[2])
            found = next(item for item in comments if item["id"] == number)
            if self.command == "PATCH":
                found["body"] = data["body"]
                self.answer(200, found)
            else:
                comments.remove(found)
                self.answer(204)

    do_GET = do_POST = do_PATCH = do_DELETE = _handle


@pytest.fixture
def github() -> Iterator[GitHub]:
    """A server on a free port."""
    made = GitHub()
    with listening(type("Bound", (_Handler,), {"github": made})) as made.url:
        yield made


@pytest.fixture
def pull(repo: Repo, github: GitHub) -> Repo:
    """A branch that changes one tensor, all objects being on the server; each tensor is one."""
    repo.git("config", "theta.packBelow", "0")
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
    github.objects |= {ref.oid for ref in parse_manifest(repo.blob(f"feature:{NAME}")).objects()}
    for path in (repo.path / ".git/theta/objects").rglob("*"):
        if path.is_file():
            github.contents[path.name] = path.read_bytes()


def report(
    repo: Repo,
    github: GitHub,
    ok: int = 0,
    event: Mapping[str, object] | None = None,
    **extra: str,
) -> tuple[str, Path]:
    """Run the script as the action does; what it prints, and the folder of its files."""
    folder = repo.path.parent / "runner"
    folder.mkdir(exist_ok=True)
    base, head = (repo.git("rev-parse", name).strip() for name in ("main", "feature"))
    if event is None:
        event = {"pull_request": {"number": 7, "base": {"sha": base}, "head": {"sha": head}}}
    (folder / "event.json").write_text(json.dumps(event))
    for name in ("summary.md", "output"):
        (folder / name).unlink(missing_ok=True)
    environment = {
        "GITHUB_WORKSPACE": str(repo.path),
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
