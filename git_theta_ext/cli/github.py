"""The few calls of GitHub's REST API that the report on a pull request needs.

Source: docs.github.com/rest/issues/comments, version 2022-11-28. Answers are read up to a limit,
and the token is never sent on to where a redirect leads.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

from git_theta_ext.errors import TransferError, UsageError

TIMEOUT_SECONDS = 30
_MAX_ANSWER = 32 << 20
_PAGE = 100
_MAX_PAGES = 50
_BOT = "github-actions[bot]"


class RefusedError(TransferError):
    """The API does not let this token do that; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        """`status` is 401, 403, 404 or 410."""
        super().__init__(message)
        self.status = status


class Api:
    """GitHub's API for one repository."""

    def __init__(self, url: str, repository: str, token: str) -> None:
        """`url` is that of the API, without a final slash; `repository` is `owner/name`.

        Raises:
            UsageError: the URL is not one of HTTP.
        """
        if not url.startswith(("https://", "http://")):
            raise UsageError(f"GITHUB_API_URL is {url[:80]!r}, which is no http URL")
        self._url = url.rstrip("/")
        self._repository = repository
        self._token = token

    def comment(self, number: int, marker: str, body: str | None) -> str:
        """Have one comment of ours that begins with `marker` on a pull request; what was done.

        It is changed where it exists, else made; with a `body` of None one that exists is removed.

        Raises:
            RefusedError: the token may not.
            TransferError: the API cannot be reached, or fails.
        """
        found = self._find(number, marker)
        base = f"/repos/{self._repository}/issues"
        if body is None:
            if found is not None:
                self.call("DELETE", f"{base}/comments/{found['id']}")
            return "removed" if found is not None else "none needed"
        if found is None:
            self.call("POST", f"{base}/{number}/comments", {"body": body})
            return "made"
        if found.get("body") == body:
            return "kept"
        self.call("PATCH", f"{base}/comments/{found['id']}", {"body": body})
        return "updated"

    def _find(self, number: int, marker: str) -> dict[str, Any] | None:
        """Our comment. Anybody can write the marker, so the author counts too."""
        authors = {_BOT, self._login()}
        for comment in self._comments(number):
            user = comment.get("user")
            author = user.get("login") if isinstance(user, dict) else None
            body = comment.get("body")
            if author in authors and isinstance(body, str) and body.startswith(marker):
                return comment
        return None

    def _login(self) -> str:
        """Whose token this is; the workflow's own may not ask, and is the bot's."""
        try:
            found = self.call("GET", "/user")
        except RefusedError:
            return _BOT
        return str(found.get("login")) if isinstance(found, dict) else _BOT

    def _comments(self, number: int) -> Iterator[dict[str, Any]]:
        for page in range(1, _MAX_PAGES + 1):
            path = f"/repos/{self._repository}/issues/{number}/comments"
            found = self.call("GET", f"{path}?per_page={_PAGE}&page={page}")
            if not isinstance(found, list):
                return
            yield from (item for item in found if isinstance(item, dict) and "id" in item)
            if len(found) < _PAGE:
                return

    def call(self, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
        """What the API answers, parsed; None where it answers nothing.

        Raises:
            RefusedError: 401, 403, 404 or 410.
            TransferError: any other failure.
        """
        return send(
            method,
            self._url + path,
            data,
            {
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
                "Authorization": f"Bearer {self._token}",
            },
        )


def send(method: str, url: str, data: dict[str, Any] | None, headers: dict[str, str]) -> Any:
    """Send JSON and parse the JSON that comes back; see `Api.call`."""
    content = None if data is None else json.dumps(data).encode("ascii")
    sent = dict(headers)
    if content is not None:
        kind = headers.get("Accept", "application/json")
        sent["Content-Type"] = kind if "git-lfs" in kind else "application/json"
    text = _open(method, url, content, sent, _MAX_ANSWER)
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TransferError(f"{method} {_shown(url)}: the answer is not JSON") from error


def receive(url: str, headers: dict[str, str], length: int) -> bytes:
    """The bytes at a URL; of a longer answer one byte more than `length`, and no further ones.

    Raises:
        RefusedError, TransferError: as `Api.call`.
    """
    return _open("GET", url, None, headers, length + 1)


def _open(
    method: str, url: str, content: bytes | None, headers: dict[str, str], limit: int
) -> bytes:
    request = urllib.request.Request(url, content, method=method)  # http only: checked by callers
    request.add_header("User-Agent", "git-theta-ext")
    for name, value in headers.items():
        if name.lower() == "authorization":
            request.add_unredirected_header(name, value)
        else:
            request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return bytes(answer.read(limit))
    except urllib.error.HTTPError as error:
        with error:
            message = f"{method} {_shown(url)}: {error.code} {error.reason}"
        if error.code in (401, 403, 404, 410):
            raise RefusedError(message, error.code) from error
        raise TransferError(message) from error
    except (OSError, ValueError, HTTPException) as error:
        raise TransferError(f"{method} {_shown(url)}: {error}") from error


def _shown(url: str) -> str:
    """A URL without its query, which may be a signature that lets whoever reads it in."""
    return url.partition("?")[0]
