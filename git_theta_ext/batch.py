"""Asking an LFS server which objects it has, without downloading any.

Sources: git-lfs, docs/api/batch.md (a `download` request lists an error for each missing object),
docs/api/server-discovery.md (where a Git remote has its LFS server, `git-lfs-authenticate`), and
gitcredentials(7). Transfers are git-lfs's work; it offers no way to ask only.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from git_theta_ext.errors import RepositoryError, TransferError
from git_theta_ext.manifest import UpdateRef
from git_theta_ext.repository import Repository, run_git, run_program
from git_theta_ext.web import RefusedError, send

_BATCH = 100
_TYPE = "application/vnd.git-lfs+json"
_SCP = re.compile(r"(?P<host>[^/:\s]+(?:@[^/:\s]+)?):(?P<path>[^\s].*)", re.DOTALL)
_FORBIDDEN, _NOT_FOUND = 403, 404


def missing(
    url: str,
    objects: Iterable[UpdateRef],
    headers: Mapping[str, str] | None = None,
    *,
    may_be_none: bool = False,
) -> list[UpdateRef]:
    """Those of some objects that the LFS server does not have, or has in another size.

    Args:
        url: of the LFS server, such as `https://github.com/owner/name.git/info/lfs`.
        objects: what to ask for.
        headers: how the caller is known, if the server wants to know.
        may_be_none: take 404 for the answer that it has none of those asked for together, as
            giftless means it; else that is a refusal.

    Raises:
        RefusedError: the server refuses this caller.
        TransferError: the server cannot be asked.
    """
    wanted = list({item.oid: item for item in objects}.values())
    absent: list[UpdateRef] = []
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        try:
            present = _present(url, part, headers or {})
        except RefusedError as error:
            if not may_be_none or error.status != _NOT_FOUND:
                raise
            present = set()
        absent += [item for item in part if (item.oid, item.size) not in present]
    return absent


def token_header(token: str) -> dict[str, str]:
    """The header by which GitHub knows a token; none for an empty one."""
    return _basic("x-access-token", token) if token else {}


def _basic(user: str, password: str) -> dict[str, str]:
    login = b64encode(f"{user}:{password}".encode()).decode("ascii")
    return {"Authorization": f"Basic {login}"}


def _present(
    url: str, part: Sequence[UpdateRef], headers: Mapping[str, str]
) -> set[tuple[str, int]]:
    request = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": item.oid, "size": item.size} for item in part],
        "hash_algo": "sha256",
    }
    address = f"{url.rstrip('/')}/objects/batch"
    answer = send("POST", address, request, {"Accept": _TYPE, **headers})
    found = answer.get("objects") if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise TransferError(f"{url}: the answer to a batch request lists no objects")
    present = set()
    for item in found:
        if isinstance(item, dict) and not item.get("error"):
            oid, length = item.get("oid"), item.get("size")
            if isinstance(oid, str) and isinstance(length, int):
                present.add((oid, length))
    return present


# -- finding the server, and being known there -----------------------------------------------------


def missing_at(
    repository: Repository, url: str, is_lfs: bool, objects: Iterable[UpdateRef]
) -> list[UpdateRef]:
    """As `missing`, for the server of a Git remote, with Git's credentials.

    Args:
        repository: whose settings and credential helpers count.
        url: of a Git remote, or of an LFS server.
        is_lfs: which of the two it is.
        objects: what to ask for.

    Raises:
        TransferError: neither HTTP nor SSH, no credentials, or no answer.
    """
    wanted = list(objects)
    if not wanted:
        return []
    headers: dict[str, str] = {}
    if not url.startswith(("https://", "http://")):
        url, headers = _authenticate(repository, url)
    elif not is_lfs:
        url = f"{url.rstrip('/').removesuffix('.git')}.git/info/lfs"
    headers = {**_extra_headers(repository, url), **headers}
    known = "Authorization" in headers
    try:
        return missing(url, wanted, headers, may_be_none=known)
    except RefusedError as error:
        if known or error.status == _FORBIDDEN:
            raise
    credential = _credential(repository, "fill", _description(url))
    headers |= _basic(credential.get("username", ""), credential.get("password", ""))
    try:
        found = missing(url, wanted, headers, may_be_none=True)
    except RefusedError:
        _credential(repository, "reject", credential)
        raise
    _credential(repository, "approve", credential)
    return found


def _extra_headers(repository: Repository, url: str) -> dict[str, str]:
    """What `http.extraHeader` adds to requests to this server; CI runners log in with it."""
    answer = repository.git("config", "--get-urlmatch", "http.extraHeader", url, ok=(0, 1))
    name, colon, value = answer.decode("utf-8", "replace").strip().partition(":")
    if not colon:
        return {}
    known = "Authorization" if name.strip().lower() == "authorization" else name.strip()
    return {known: value.strip()}


def _description(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    found = {"protocol": parts.scheme, "host": parts.netloc.rpartition("@")[2]}
    if parts.username:
        found["username"] = parts.username
    return {**found, "path": parts.path.lstrip("/")}


def _credential(repository: Repository, action: str, fields: Mapping[str, str]) -> dict[str, str]:
    """Let Git's credential helpers fill in, approve or reject a credential."""
    request = "".join(f"{name}={value}\n" for name, value in fields.items())
    try:
        answer = run_git(["credential", action], repository.cwd, stdin=f"{request}\n".encode())
    except RepositoryError as error:
        host = fields.get("host", "")
        raise TransferError(
            f"there are no credentials for {host}: {error.message}", hint="git help credentials"
        ) from error
    lines = answer.decode("utf-8", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _authenticate(repository: Repository, url: str) -> tuple[str, dict[str, str]]:
    """The LFS server of an SSH remote, and the headers that it gave out.

    Raises:
        TransferError: the URL is none of SSH, or the server has no `git-lfs-authenticate`.
    """
    host, port, path = _ssh_parts(url)
    program = os.environ.get("GIT_SSH_COMMAND") or repository.setting("core.sshcommand") or "ssh"
    place = ["-p", port] if port else []
    try:
        command = [*shlex.split(program), *place, host]
        status, answer, said = run_program(
            [*command, f"git-lfs-authenticate {_quoted(path)} download"], repository.cwd
        )
        if status != 0:
            raise ValueError(status)
        found = json.loads(answer)
        address, headers = found["href"], found.get("header", {})
        if not address.startswith(("https://", "http://")):
            raise ValueError(address)
        return address, {str(name): str(value) for name, value in headers.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        words = os.fsdecode(said).strip() or "no address of an LFS server"
        raise TransferError(f"{host} does not say what it has: {words}") from error


def _ssh_parts(url: str) -> tuple[str, str, str]:
    if url.startswith(("ssh://", "git+ssh://", "ssh+git://")):
        parts = urlsplit(url)
        host = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname or ""
        port, path = str(parts.port or ""), parts.path.lstrip("/")
    elif "://" not in url and (match := _SCP.fullmatch(url)):
        host, port, path = match["host"], "", match["path"]
    else:
        raise TransferError(f"{url!r} is neither HTTP nor SSH: it cannot be asked what it has")
    # What begins with a dash would be an option of ssh's.
    if not host or host.startswith("-"):
        raise TransferError(f"{url!r} names no host")
    return host, port, path


def _quoted(path: str) -> str:
    """A path as the shell of the other side reads it, as Git quotes it."""
    return "'" + path.replace("'", "'\\''").replace("!", "'\\!'") + "'"
