"""Requests over HTTP to a server that is not believed: bounded in bytes and time, and in where to.

A credential is never sent on to where a redirect leads; only reading is redirected, never from
HTTPS to HTTP, nor into what only this machine reaches (itself, the addresses of its link, where
clouds keep the secrets of a machine), unless the server is there itself. What an error says holds
no password and no query, which may be a signature that lets whoever reads it in.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import urllib.error
import urllib.request
from functools import lru_cache
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlsplit

from git_theta_ext.core.errors import TransferError

TIMEOUT_SECONDS = 30
"""For how long a server may be silent."""

SLOWEST = 1 << 18
"""Bytes that have to come in a second, taking one with the other: a server that sends a byte now
and then would be listened to for ever."""

_REASON_CHARS = 100
_URL_CHARS = 300
_NOT_THEIRS = ("host", "content-length", "transfer-encoding", "connection", "expect", "upgrade",
               "user-agent", "te", "trailer")  # fmt: skip
"""Headers that a server may not choose for a request, for they say where it goes and ends."""


class RefusedError(TransferError):
    """A server does not let this token do that; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        """`status` is 401, 403, 404 or 410."""
        super().__init__(message)
        self.status = status


def read(
    method: str, url: str, content: bytes | None, headers: dict[str, str], limit: int
) -> bytes:
    """What a server answers; of a longer answer the first `limit` bytes, and no further ones.

    Args:
        method: GET, POST, PATCH.
        url: http or https; the caller has checked it.
        content: the body; None for none.
        headers: of the request; a redirect does not take `Authorization` along.
        limit: bytes of the answer that are read; the time allowed grows with it.

    Raises:
        RefusedError: 401, 403, 404 or 410.
        TransferError: any other failure, or it takes too long.
    """
    answers: list[bytes | BaseException] = []

    def run() -> None:
        try:
            answers.append(_read(method, url, content, headers, limit))
        except BaseException as error:
            answers.append(error)

    # On a thread that can be left behind: a header that comes byte by byte ends no wait for one.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    seconds = 2 * TIMEOUT_SECONDS + limit / SLOWEST
    thread.join(seconds)
    if not answers:
        raise TransferError(f"{method} {shown(url)}: no answer within {seconds:.0f} seconds")
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


def leads_inside(url: str, server: str) -> bool:
    """Whether a URL that `server` gave leads into this machine or its link, where that is not."""
    return bool(_inside(_host(url)) - _inside(_host(server)))


def shown(url: str) -> str:
    """The beginning of a URL, without its user, password, query and fragment."""
    text = url.partition("?")[0].partition("#")[0]
    scheme, mark, rest = text.partition("://")
    place, slash, path = rest.partition("/")
    plain = f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}" if mark else text
    return plain if len(plain) <= _URL_CHARS else f"{plain[:_URL_CHARS]}…"


def _read(
    method: str, url: str, content: bytes | None, headers: dict[str, str], limit: int
) -> bytes:
    """One request, for which only silence is bounded in time; no error quotes a secret."""
    request = urllib.request.Request(url, content, method=method)  # http only: checked by callers
    request.add_header("User-Agent", "git-theta-ext")
    for name, value in headers.items():
        if name.lower() == "authorization":
            request.add_unredirected_header(name, value)
        elif name.strip().lower() not in _NOT_THEIRS:
            request.add_header(name, value)
    try:
        with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return bytes(answer.read(limit))
    except urllib.error.HTTPError as error:
        with error:
            reason = str(error.reason)[:_REASON_CHARS]
            message = f"{method} {shown(url)}: {error.code} {reason}"
        if error.code in (401, 403, 404, 410):
            raise RefusedError(message, error.code) from error
        raise TransferError(message) from error
    except OSError as error:
        reason = str(getattr(error, "reason", None) or error)[:_REASON_CHARS]
        raise TransferError(f"{method} {shown(url)}: {reason}") from error
    except (ValueError, HTTPException) as error:
        # (What these say quotes the URL, or a header.)
        words = "the URL, a header or the answer is not valid HTTP"
        raise TransferError(f"{method} {shown(url)}: {words}") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to a place that may be read."""

    max_redirections = 5

    def redirect_request(  # noqa: PLR0917  (urllib's own signature)
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request for the other place.

        Raises:
            HTTPError: it may not be read, or something is to be written there.
        """
        then, now = urlsplit(req.full_url), urlsplit(newurl)
        plain = now.scheme in ("http", "https") and not now.username
        weaker = then.scheme == "https" and now.scheme != "https"
        if req.get_method() != "GET" or not plain or weaker or leads_inside(newurl, req.full_url):
            words = f"a redirect that is not followed ({msg})"
            raise urllib.error.HTTPError(req.full_url, code, words, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def _inside(host: str) -> frozenset[str]:
    """`loopback` or `link` where a host is there, whatever name or number it is called by."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return frozenset()
    kinds = set()
    for *_, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped if mapped is not None else address
        if address.is_loopback or address.is_unspecified:
            kinds.add("loopback")
        elif address.is_link_local:
            kinds.add("link")
    return frozenset(kinds)
