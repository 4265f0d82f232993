"""What a committed `.lfsconfig` may decide: where objects are, and only as far as the user agrees.

Whoever writes to a branch writes its `.lfsconfig`. So it counts after git config, from the default
branch alone, and only for the URL of the objects. A server that it names is *chosen* if the user
named it in `theta.trustedLfsUrl`, or if it is the host of the remote's own URL. Any other one gets
no objects, no credentials and no say in what may be deleted; it may be asked for objects without
credentials, for these are checked by their hash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from git_theta_ext.core.errors import TransferError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository

TRUSTED = "theta.trustedLfsUrl"
"""The setting, of any number of values, with the URLs that the user confirmed."""

SETTING = "theta.lfsConfig"
"""False where the file counts for nothing at all, as where anybody's commits are looked at."""

NAME = ".lfsconfig"

_PLAIN = re.compile(
    r"(?P<scheme>https?|ssh|file)://(?P<user>[A-Za-z0-9._-]+@)?"
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])?(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~+@:,=/-]*)?"
)
"""A URL that reads the same to every parser and every shell: nothing is quoted, nothing escaped."""

_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>[^@/:]+):(?!//)")
_PORTS = {"http": 80, "https": 443, "ssh": 22}


@dataclass(frozen=True, slots=True)
class Named:
    """An endpoint that `.lfsconfig` names, and where that stands.

    `chosen` if it is as good as one from git config; `reachable` if it may at least be asked for
    objects without credentials.
    """

    url: str
    setting: str
    where: str
    chosen: bool
    reachable: bool
    sure: bool = True
    """Whether the file is that of the default branch."""

    def refusal(self, what: str) -> TransferError:
        """The error of a command that would have relied on it; `what` did not happen."""
        why = "which is not the host of the remote" if self.sure else "and may be of any branch"
        return TransferError(
            f"{self.where} names {printable(self.url)} as the server of the objects, {why}, and you"
            f" have not confirmed it: {what}",
            hint=self.advice(),
        )

    def advice(self) -> str:
        """What to type in order to confirm it, or to do without it."""
        instead = "to use another one: git config lfs.url URL"
        if not is_plain(self.url):
            # A text that somebody made up is not offered for pasting into a shell.
            return f"that URL is not a plain one and cannot be confirmed\n{instead}"
        return f"if it is right: git config --add {TRUSTED} {self.url}\n{instead}"


def named(
    repository: Repository, remote: str, remote_url: str, names: Iterable[str]
) -> Named | None:
    """The endpoint of a remote according to `.lfsconfig`: the first of some settings.

    Args:
        repository: any, bare ones too.
        remote: the remote's name, or a URL.
        remote_url: the URL of its Git repository.
        names: full names of settings, best first.
    """
    if not repository.flag(SETTING, True):
        return None
    source, where, sure = _source(repository, remote)
    if not source:
        return None
    answer = repository.git("config", *source, "--list", "-z")
    items = answer.decode("utf-8", "surrogateescape").split("\0")
    pairs = {name: value for name, _, value in (item.partition("\n") for item in items) if name}
    for name in names:
        url = pairs.get(name)
        if not url:
            continue
        plain = _PLAIN.fullmatch(url)
        chosen = is_confirmed(repository, url) or (sure and same_host(url, remote_url))
        web = plain is not None and plain["scheme"] in ("http", "https") and not plain["user"]
        return Named(url, name, where, chosen, sure and web and is_plain(url), sure)
    return None


def is_plain(url: str) -> bool:
    """Whether a URL can be confirmed: no escapes, no way up, nothing that a shell would read."""
    found = _PLAIN.fullmatch(url)
    if found is None or ".." in url.split("/"):
        return False
    return bool(found["path"] if found["scheme"] == "file" else found["host"])


def is_confirmed(repository: Repository, url: str) -> bool:
    """Whether the user confirmed a URL, or one that it lies below."""
    if not is_plain(url):
        return False
    answer = repository.git("config", "--get-all", "-z", TRUSTED, ok=(0, 1))
    for value in os.fsdecode(answer).split("\0"):
        if is_plain(value):
            base = value.rstrip("/")
            if url.rstrip("/") == base or url.startswith(f"{base}/"):
                return True
    return False


def same_host(url: str, remote_url: str) -> bool:
    """Whether a server is the host that the user chose as the remote, by no weaker a protocol.

    The same scheme, host and port; or HTTPS at its own port of the host of a remote that is
    reached by HTTPS, SSH or HTTP at the port of that. A folder is nobody's host.
    """
    found = _PLAIN.fullmatch(url)
    if found is None or not found["host"] or not is_plain(url) or found["scheme"] == "file":
        return False
    if found["user"] and found["scheme"] != "ssh":
        return False
    theirs = _place(remote_url)
    if theirs is None:
        return False
    scheme, host, port = theirs
    mine = (found["scheme"], found["host"].lower(), int(found["port"] or _PORTS[found["scheme"]]))
    if mine == theirs:
        return True
    usual = scheme == "ssh" or port == _PORTS[scheme]
    return mine == ("https", host, 443) and usual


def _place(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of a remote's URL; None for a folder and what else has none."""
    if "://" not in url:
        scp = _SCP.match(url)
        return ("ssh", scp["host"].lower(), 22) if scp else None
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        if scheme not in _PORTS or not parts.hostname:
            return None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return scheme, host.lower(), parts.port or _PORTS[scheme]
    except ValueError:
        return None


def _source(repository: Repository, remote: str) -> tuple[list[str], str, bool]:
    """Arguments for `git config`, how to call the place, and whether it is the default branch's.

    On the default branch itself, and where the remote has no branch here yet, it is the file of
    the work tree, else that of HEAD. Where the default branch is not known that file counts too,
    but only for a URL that was confirmed.
    """
    head = os.fsdecode(repository.git("symbolic-ref", "-q", "HEAD", ok=(0, 1))).strip()
    default, tracked = _default_branch(repository, remote)
    if default is not None:
        branch = default.removeprefix(f"refs/remotes/{remote}/")
        if head != f"refs/heads/{branch}":
            oid = repository.blob_at(default, NAME)
            return ["--blob", oid] if oid else [], f"the {NAME} of {remote}/{branch}", True
    sure = default is not None or (bool(head) and not tracked)
    top = repository.work_tree
    if top is not None and (top / NAME).is_file():
        return ["--file", str(top / NAME)], NAME, sure
    oid = repository.blob_at("HEAD", NAME) if repository.resolve("HEAD") else None
    return ["--blob", oid] if oid else [], f"the {NAME} of HEAD", sure


def _default_branch(repository: Repository, remote: str) -> tuple[str | None, bool]:
    """The remote-tracking ref of a remote's default branch, and whether it has any such refs."""
    prefix = f"refs/remotes/{remote}/"
    answer = repository.git("symbolic-ref", "-q", f"{prefix}HEAD", ok=(0, 1, 128))
    target = os.fsdecode(answer).strip()
    refs = os.fsdecode(repository.git("for-each-ref", "--format=%(refname)", "--", prefix)).split()
    branches = [ref for ref in refs if ref != f"{prefix}HEAD"]
    usual = [repository.setting("init.defaultBranch"), "main", "master"]
    for ref in (target, *(f"{prefix}{name}" for name in usual)):
        if ref in branches:
            return ref, True
    return (branches[0] if len(branches) == 1 else None), bool(branches)
