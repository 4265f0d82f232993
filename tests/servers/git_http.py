"""Git over HTTP: one request, answered by git's own `git http-backend`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.servers.listening import Handler


def backend(
    handler: Handler, body: bytes, projects: Path, user: str
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body for a request; RFC 3875, as git-http-backend(1) wants it.

    Args:
        handler: has the request.
        body: of the request.
        projects: the folder below which the bare repositories are.
        user: who asks.
    """
    path, _, query = handler.path.partition("?")
    variables = {
        "GIT_PROJECT_ROOT": str(projects), "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": handler.command,
        "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)), "REMOTE_USER": user, "REMOTE_ADDR": "127.0.0.1",
        "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
        "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
    }  # fmt: skip
    done = subprocess.run(
        ["git", "http-backend"], input=body, capture_output=True, check=False,
        env={**os.environ, **variables}, timeout=120,
    )  # fmt: skip
    head, _, answer = done.stdout.partition(b"\r\n\r\n")
    headers = [
        (name, value.strip())
        for name, _, value in (line.partition(":") for line in head.decode().splitlines())
        if name
    ]
    status = next((value for name, value in headers if name == "Status"), "200")
    if done.returncode:
        status, answer = "500", done.stderr
    return int(status.split()[0]), [h for h in headers if h[0] != "Status"], answer
