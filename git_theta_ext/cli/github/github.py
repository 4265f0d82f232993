"""The few calls of GitHub's REST API that the report on a pull request needs.

Source: docs.github.com/rest/issues/comments, version 2022-11-28.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from git_theta_ext.cli.github import web
from git_theta_ext.cli.github.web import RefusedError
from git_theta_ext.core.errors import TransferError, UsageError

_MAX_ANSWER = 32 << 20
_PAGE = 100
_MAX_PAGES = 50
_BOT = "github-actions[bot]"


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


def send(
    method: str,
    url: str,
    data: dict[str, Any] | None,
    headers: dict[str, str],
    limit: int = _MAX_ANSWER,
) -> Any:
    """Send JSON and parse the JSON that comes back; see `Api.call`.

    Args:
        method: GET, POST, PATCH.
        url: http or https; the caller has checked it.
        data: the JSON to send; None for no body.
        headers: of the request; `Content-Type` is set here.
        limit: bytes of the answer that are read.
    """
    content = None if data is None else json.dumps(data).encode("ascii")
    sent = dict(headers)
    if content is not None:
        kind = headers.get("Accept", "application/json")
        sent["Content-Type"] = kind if "git-lfs" in kind else "application/json"
    text = web.read(method, url, content, sent, limit)
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TransferError(f"{method} {web.shown(url)}: the answer is not JSON") from error
