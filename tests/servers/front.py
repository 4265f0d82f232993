"""A Git host over HTTP: git's own `git http-backend`, and a real LFS server behind a proxy.

`/team/model.git/...` is answered by `git http-backend`, `/team/model.git/info/lfs/...` by the LFS
server, and `/lfs/team/model/...` by the same one (for an `lfs.url` that is not the usual place).
Whoever has no password gets 401; a batch of more than 100 objects gets 413, as GitHub gives it.
Every request is on record, and a test may put a fault in the way of any of them.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.servers.backends import Backend
from tests.servers.git_http import backend
from tests.servers.listening import Handler, listening

USER, PASSWORD = "ada", "correct horse"
BATCH_LIMIT = 100

Kind = Literal["git", "batch", "upload", "download", "verify", "other"]
_OID = re.compile(r"/([0-9a-f]{64})(?:/|\?|$)")
_LFS = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs(?P<rest>/.*)")
_SHORT_LFS = re.compile(r"/lfs/(?P<repo>[^/]+/[^/]+)(?P<rest>/.*)")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request: what it is for, and the object or objects that it is about."""

    kind: Kind
    method: str
    path: str
    repo: str = ""
    operation: str = ""
    oids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A request that was answered, with what status, and how many bytes of the body were sent."""

    request: Request
    status: int
    sent: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens instead of the right answer.

    `status`: that answer. `cut`: the connection ends in the middle of the upload or the answer.
    `truncate`: half of the answer, as if it were all. `corrupt`: one bit of it is wrong. `lose`: an
    upload is acknowledged and thrown away. `drop`: no answer at all.
    """

    kind: Literal["status", "cut", "truncate", "corrupt", "lose", "drop"]
    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()


Faults = Callable[[Request], Fault | None]


class Front:
    """The host: where it is, what it has seen, and the faults that are in force."""

    def __init__(self, backend: Backend, projects: Path) -> None:
        """`projects` is the folder below which the bare repositories are."""
        self.backend = backend
        self.projects = projects
        self.url = ""
        self.records: list[Record] = []
        self.faults: Faults | None = None
        self.usual_endpoint = True
        """Whether `<repository>.git/info/lfs` answers batches; else only `/lfs/...` does."""
        self.authorization = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def seen(self, kind: Kind, *, ok: bool | None = None) -> list[Record]:
        """The records of a kind; those that were answered well, or badly, if asked so."""
        return [
            record
            for record in list(self.records)
            if record.request.kind == kind and ok in (None, 200 <= record.status < 300)
        ]

    def moved(self, kind: Kind) -> list[str]:
        """The object ids that went over the line whole, in order, as often as they did."""
        return [record.request.oids[0] for record in self.seen(kind, ok=True)]


@contextmanager
def front(backend: Backend, projects: Path) -> Iterator[Front]:
    """Serve until the block ends."""
    state = Front(backend, projects)
    with listening(_handler(state)) as state.url:
        yield state


def classify(method: str, target: str, body: bytes) -> tuple[Request, str]:
    """What a request is for, and its path as the LFS server knows it (empty if it is git's)."""
    path = urlsplit(target).path
    match = _LFS.fullmatch(path) or _SHORT_LFS.fullmatch(path)
    if match is None:
        service = "receive-pack" if "receive-pack" in target else "upload-pack"
        return Request("git", method, target, operation=service), ""
    repo, rest = match["repo"], target[len(path) - len(match["rest"]) :]
    found = _OID.search(target)
    oids = (found[1],) if found else ()
    kind: Kind = "other"
    operation = ""
    if match["rest"].endswith("/objects/batch"):
        asked = _json(body)
        kind, operation = "batch", str(asked.get("operation"))
        oids = tuple(str(item["oid"]) for item in asked.get("objects", ()))
    elif match["rest"].endswith("/verify"):
        kind = "verify"
        oids = oids or (str(_json(body).get("oid")),)
    elif method in ("PUT", "GET") and oids:
        kind = "upload" if method == "PUT" else "download"
    return Request(kind, method, target, repo, operation, oids), rest


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _handler(state: Front) -> type[Handler]:
    class FrontHandler(Handler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            early, _ = classify(self.command, self.path, b"")
            fault = state.faults(early) if state.faults and early.kind == "upload" else None
            if fault is not None and fault.kind == "cut":
                self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
                self._hang_up(early)
                return
            body = self.body()
            request, rest = classify(self.command, self.path, body)
            if not self._is_authorized(request):
                answer = [("WWW-Authenticate", 'Basic realm="host"')]
                self._tell(request, 401, answer, b'{"message": "who are you?"}')
                return
            if request.kind != "upload":
                fault = state.faults(request) if state.faults else None
            if fault is not None and fault.kind == "drop":
                self._hang_up(request)
            elif fault is not None and fault.kind == "status":
                text = json.dumps({"message": f"a fault of {fault.status}"}).encode()
                self._tell(request, fault.status, list(fault.headers), text)
            elif fault is not None and fault.kind == "lose":
                self._tell(request, 200, [], b"", fault)
            elif request.kind == "batch" and len(request.oids) > BATCH_LIMIT:
                self._tell(request, 413, [], b'{"message": "too many objects"}')
            elif request.kind == "batch" and not state.usual_endpoint and "/info/lfs" in self.path:
                self._tell(request, 404, [], b'{"message": "no LFS here"}')
            else:
                status, headers, answer_body = (
                    backend(self, body, state.projects, USER)
                    if request.kind == "git"
                    else self._lfs(request, rest, body)
                )
                self._tell(request, status, headers, answer_body, fault)

        do_GET = do_POST = do_PUT = do_HEAD = _serve

        def _is_authorized(self, request: Request) -> bool:
            """By password; the LFS server itself judges the tokens that it handed out."""
            given = self.headers.get("Authorization", "")
            if request.kind in ("upload", "download", "verify") and state.backend.has_tokens:
                return bool(given) or "jwt=" in self.path
            return given == state.authorization

        def _lfs(
            self, request: Request, rest: str, body: bytes
        ) -> tuple[int, list[tuple[str, str]], bytes]:
            port, path = state.backend.route(request.repo, rest)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
            headers["Content-Length"] = str(len(body))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request(self.command, path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            if request.kind == "batch":
                data = state.backend.translate(request.repo, state.url, data)
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP]
            return answer.status, kept, data

        def _tell(
            self, request: Request, status: int, headers: list[tuple[str, str]], body: bytes,
            fault: Fault | None = None,
        ) -> None:  # fmt: skip
            kind = fault.kind if fault is not None else ""
            length = len(body)
            if kind == "truncate":
                body = body[: length // 2]
                length = len(body)
            elif kind == "corrupt" and body:
                middle = len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
            elif kind == "cut":
                body = body[: length // 2]
            state.records.append(Record(request, 0 if kind else status, len(body)))
            self.answer(status, body, headers, length)
            if kind == "cut":
                self.wfile.flush()
                self.close_connection = True

        def _hang_up(self, request: Request) -> None:
            state.records.append(Record(request, 0, 0))
            self.close_connection = True

    return FrontHandler


def write_passwords(url: str, home: Path) -> Path:
    """Give the user the password; git takes it out of this file when a host answers 401."""
    scheme, _, place = url.partition("://")
    path = home / "passwords"
    path.write_text(f"{scheme}://{USER}:{PASSWORD.replace(' ', '%20')}@{place}\n", "utf-8")
    path.chmod(0o600)
    return path


def git_environment(url: str, home: Path) -> Mapping[str, str]:
    """Settings for a user of the host, who has the password in git's own credential store."""
    home.mkdir(parents=True, exist_ok=True)
    passwords = write_passwords(url, home)
    (home / ".gitconfig").write_text(
        "[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n"
        f'[credential]\n\thelper = store --file "{passwords.as_posix()}"\n'
        '[lfs]\n\tlocksverify = false\n[lfs "transfer"]\n\tmaxretries = 1\n\tmaxretrydelay = 1\n'
        # git-lfs asks for ever while a signed link answers 401.
        "[theta]\n\ttransferTimeout = 12\n",
        "utf-8",
    )
    return {
        "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true", "GIT_MERGE_AUTOEDIT": "no", "LC_ALL": "C",
    }  # fmt: skip
