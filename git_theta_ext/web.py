"""JSON over HTTP: one request, one answer, bounded in size and time."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from git_theta_ext.errors import TransferError

TIMEOUT_SECONDS = 30
_MAX_ANSWER = 32 << 20


class RefusedError(TransferError):
    """The server does not let this caller do that; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        """`status` is 401, 403 or 404."""
        super().__init__(message)
        self.status = status


def send(method: str, url: str, data: dict[str, Any] | None, headers: Mapping[str, str]) -> Any:
    """Send JSON and parse the JSON that comes back; None for an empty answer.

    `Authorization` is not sent on to where a redirect leads.

    Raises:
        RefusedError: 401, 403 or 404.
        TransferError: any other failure, or an answer that is not JSON.
    """
    content = None if data is None else json.dumps(data).encode("ascii")
    request = urllib.request.Request(url, content, method=method)  # http only: checked by callers
    request.add_header("User-Agent", "git-theta-ext")
    if content is not None:
        kind = headers.get("Accept", "application/json")
        request.add_header("Content-Type", kind if "git-lfs" in kind else "application/json")
    for name, value in headers.items():
        if name == "Authorization":
            request.add_unredirected_header(name, value)
        else:
            request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read(_MAX_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            message = f"{method} {url}: {error.code} {error.reason}"
        if error.code in (401, 403, 404):
            raise RefusedError(message, error.code) from error
        raise TransferError(message) from error
    except (OSError, ValueError) as error:
        raise TransferError(f"{method} {url}: {error}") from error
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TransferError(f"{method} {url}: the answer is not JSON") from error
