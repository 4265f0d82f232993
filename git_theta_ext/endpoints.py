"""Where the objects of a remote are: which endpoint serves it, and what it has confirmed.

The rules are git-lfs's own (git-lfs-config(5)): `lfs.pushurl`, `lfs.url`, the remote's
`lfspushurl` and `lfsurl`, the remote's URL; git config before `.lfsconfig`. An endpoint that is a
folder (a path or a `file://` URL) is served by copying, every other one by git-lfs.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from git_theta_ext import files
from git_theta_ext.errors import RepositoryError, TransferError
from git_theta_ext.repository import Repository

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that keeps objects: the remote's name, the URL, the folder where it is local."""

    remote: str
    url: str
    folder: Path | None

    @property
    def is_local(self) -> bool:
        """Whether objects are copied rather than handed to git-lfs."""
        return self.folder is not None


def for_push(repository: Repository, remote: str, url: str) -> Endpoint:
    """The endpoint that takes the objects of a push to `remote`, whose push URL is `url`."""
    names = ["lfs.pushurl", "lfs.url", f"remote.{remote}.lfspushurl", f"remote.{remote}.lfsurl"]
    return _endpoint(repository, remote, _configured(repository, names) or url)


def for_fetch(repository: Repository, remote: str | None) -> Iterator[Endpoint]:
    """The endpoints to ask for objects, best first: the remote named, else the branch's, the
    only one, or origin; then every other remote."""
    seen = set()
    for name in _remotes_in_order(repository, remote):
        url = _configured(repository, ["lfs.url", f"remote.{name}.lfsurl"]) or remote_url(
            repository, name
        )
        endpoint = _endpoint(repository, name, url)
        if endpoint.url not in seen:
            seen.add(endpoint.url)
            yield endpoint


def default_remote(repository: Repository) -> str | None:
    """The remote that Git would choose for the current branch, or None where there is none."""
    return next(iter(_remotes_in_order(repository, None)), None)


def remote_url(repository: Repository, remote: str, *, push: bool = False) -> str:
    """The URL of a remote as Git would use it (`insteadOf` applied); a URL stands for itself."""
    flags = ["--push"] if push else []
    try:
        answer = repository.git("remote", "get-url", *flags, "--", remote)
    except RepositoryError:
        return remote
    return os.fsdecode(answer).removesuffix("\n")


def _remotes_in_order(repository: Repository, remote: str | None) -> list[str]:
    names = os.fsdecode(repository.git("remote")).split()
    order = [remote] if remote else []
    head = os.fsdecode(repository.git("symbolic-ref", "-q", "HEAD", ok=(0, 1))).strip()
    branch = head.removeprefix("refs/heads/")
    upstream = repository.setting(f"branch.{branch}.remote") if branch else None
    if upstream and upstream != ".":
        order.append(upstream)
    order += [name for name in names if name == "origin" or len(names) == 1]
    return list(dict.fromkeys(order + names))


def _configured(repository: Repository, names: Iterable[str]) -> str | None:
    shared: dict[str, str] | None = None
    for name in names:
        value = repository.setting(name)
        if value is None:
            shared = _lfsconfig(repository) if shared is None else shared
            value = shared.get(name)
        if value:
            return value
    return None


def _lfsconfig(repository: Repository) -> dict[str, str]:
    """The committed `.lfsconfig`, from the work tree, else from HEAD."""
    source: list[str] = []
    if repository.work_tree is not None and (repository.work_tree / ".lfsconfig").is_file():
        source = ["--file", str(repository.work_tree / ".lfsconfig")]
    elif repository.resolve("HEAD") and (oid := repository.blob_at("HEAD", ".lfsconfig")):
        source = ["--blob", oid]
    if not source:
        return {}
    answer = repository.git("config", *source, "--list", "-z")
    items = answer.decode("utf-8", "surrogateescape").split("\0")
    return {name: value for name, _, value in (item.partition("\n") for item in items) if name}


def _endpoint(repository: Repository, remote: str, url: str) -> Endpoint:
    if repository.setting("lfs.standalonetransferagent"):
        return Endpoint(remote, url, None)
    path = local_path(url, repository.work_tree or repository.git_dir)
    if path is None:
        return Endpoint(remote, url, None)
    return Endpoint(remote, path.as_uri(), path)


def local_path(url: str, base: Path) -> Path | None:
    """The folder that a URL names, relative ones from `base`, or None for a URL of a network."""
    if _SCHEME.match(url):
        parts = urlsplit(url)
        if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost"):
            return None
        path = unquote(parts.path)
        return Path(os.path.abspath(path[1:] if _DRIVE.match(path[1:]) else path))
    colon, slash = url.find(":"), url.find("/")
    if colon >= 0 and (slash < 0 or colon < slash) and not (os.name == "nt" and _DRIVE.match(url)):
        return None
    return Path(os.path.abspath(base / url))


def common_dir_of(folder: Path) -> Path:
    """The Git common directory of a path remote, found in the order in which Git looks.

    Raises:
        TransferError: there is no repository.
    """
    for candidate in (folder / ".git", folder, Path(f"{folder}.git")):
        git_dir = _follow_gitfile(candidate)
        if (git_dir / "HEAD").is_file():
            try:
                common = (git_dir / "commondir").read_text("utf-8").strip()
            except OSError:
                return git_dir.resolve()
            return (git_dir / common).resolve()
    raise TransferError(
        f"there is no repository at {folder}", hint="git remote -v   (is the disk mounted?)"
    )


def _follow_gitfile(candidate: Path) -> Path:
    try:
        text = candidate.read_text("utf-8") if candidate.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return candidate
    if not text.startswith("gitdir: "):
        return candidate
    return candidate.parent / text.removeprefix("gitdir: ").strip()


def lfs_folder(repository: Repository, common_dir: Path) -> Path:
    """git-lfs's folder in a repository (this or another): `lfs.storage`, else `lfs`."""
    configured = b""
    if (common_dir / "config").is_file():
        configured = repository.git(
            "config", "--file", str(common_dir / "config"), "lfs.storage", ok=(0, 1)
        )
    name = os.fsdecode(configured).rstrip("\n")
    return common_dir / Path(name or "lfs").expanduser()


class Confirmed:
    """The objects that an endpoint is known to have: a cache, so losing it only costs time."""

    def __init__(self, repository: Repository, endpoint: Endpoint) -> None:
        """Open the record of one endpoint; nothing is read or written yet."""
        name = hashlib.sha256(endpoint.url.encode("utf-8", "surrogateescape")).hexdigest()
        self._path = repository.common_dir / "theta" / "confirmed" / name

    def read(self) -> set[str]:
        """The object ids on record; none where there is no readable record."""
        try:
            return set(self._path.read_text("ascii").split())
        except (OSError, UnicodeDecodeError):
            return set()

    def add(self, oids: Iterable[str]) -> None:
        """Put more ids on record, as a whole or not at all; a record that cannot be is let be."""
        text = "".join(f"{oid}\n" for oid in sorted(self.read().union(oids)))
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_file(self._path, text.encode("ascii"))
