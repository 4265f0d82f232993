"""Where the objects of a remote are: which endpoint serves it, and what it has confirmed.

The rules are git-lfs's own (git-lfs-config(5)), but git config goes wholly before `.lfsconfig`,
which counts as far as `lfsconfig` lets it: `lfs.pushurl`, `lfs.url`, the remote's `lfspushurl` and
`lfsurl`, the remote's URL. An endpoint that is a folder (a path or a `file://` URL) is served by
copying, every other one by git-lfs.
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

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, TransferError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.transfer import lfsconfig
from git_theta_ext.objects.transfer.lfsconfig import Named

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_ODD = re.compile(r"^-|^[^/]*://(?:[^/]*@)?-|^[^/@:]*@-|[\x00-\x1f\x7f]|%0[0ad]", re.IGNORECASE)
"""What a program may take for an option, of git or ssh (`-...`, `ssh://-...`), or for a further
line of what a credential helper is asked (`%0a`), which would name another host."""

_GITFILE_BYTES = 1 << 20
"""Git itself reads no longer file that says where a repository is."""

_SECRET = re.compile(r"(://)[^/@]*@")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that keeps objects: the remote's name, the URL, the folder where it is local."""

    remote: str
    url: str
    folder: Path | None
    setting: str | None = None
    """The setting that names it; None where it is the remote's own URL."""
    named: Named | None = None
    """Set where that setting stands in `.lfsconfig`."""

    @property
    def is_local(self) -> bool:
        """Whether objects are copied rather than handed to git-lfs."""
        return self.folder is not None

    @property
    def anonymous(self) -> bool:
        """Whether the user has not chosen it, so that it must not see a credential."""
        return self.named is not None and not self.named.chosen

    def __str__(self) -> str:
        """The URL without passwords, and who named it if it is not the remote's own."""
        shown = printable(str(self.folder) if self.folder else without_password(self.url))
        if self.setting is None:
            return shown
        return f"{shown}, from {self.named.where if self.named else 'git config'} {self.setting}"


def without_password(text: str) -> str:
    """A text without the users and passwords of the URLs in it."""
    return _SECRET.sub(r"\1", text)


def for_push(repository: Repository, remote: str, url: str) -> Endpoint:
    """The endpoint that takes the objects of a push to `remote`, whose push URL is `url`.

    Raises:
        TransferError: `.lfsconfig` names one that the user has not chosen.
    """
    names = ["lfs.pushurl", "lfs.url", f"remote.{remote}.lfspushurl", f"remote.{remote}.lfsurl"]
    return _relied_on(_named(repository, remote, url, names), "nothing was sent")


def for_check(repository: Repository, remote: str) -> Endpoint:
    """The endpoint that is asked what it has: the best one of `for_fetch`.

    Raises:
        TransferError: `.lfsconfig` names one that the user has not chosen.
    """
    names = ["lfs.url", f"remote.{remote}.lfsurl"]
    url = remote_url(repository, remote)
    return _relied_on(_named(repository, remote, url, names), "its answers are not trusted")


def for_fetch(repository: Repository, remote: str | None) -> Iterator[Endpoint]:
    """The endpoints to ask for objects, best first: the remote named, else the branch's, the
    only one, or origin; then every other remote.

    Where `.lfsconfig` names one that the user has not chosen, the remote itself comes after it.
    """
    seen = set()
    for name in _remotes_in_order(repository, remote):
        url = remote_url(repository, name)
        first = _named(repository, name, url, ["lfs.url", f"remote.{name}.lfsurl"])
        own = _endpoint(repository, name, url) if first.anonymous else first
        for endpoint in (first, own):
            if (endpoint.url, endpoint.anonymous) not in seen:
                seen.add((endpoint.url, endpoint.anonymous))
                yield endpoint


def _relied_on(endpoint: Endpoint, what: str) -> Endpoint:
    if endpoint.named is not None and not endpoint.named.chosen:
        raise endpoint.named.refusal(what)
    return endpoint


def _named(repository: Repository, remote: str, url: str, names: list[str]) -> Endpoint:
    """The endpoint that git config names, else `.lfsconfig`, else the remote's own `url`."""
    for name in names:
        if value := repository.setting(name):
            return _endpoint(repository, remote, value, setting=name)
    # git-lfs does not take a remote's push URL out of the file either.
    shared = [name for name in names if not name.endswith(".lfspushurl")]
    named = lfsconfig.named(repository, remote, url, shared)
    if named is None:
        return _endpoint(repository, remote, url)
    if not named.chosen:
        return Endpoint(remote, named.url, None, named.setting, named)
    return _endpoint(repository, remote, named.url, setting=named.setting, named=named)


def default_remote(repository: Repository) -> str | None:
    """The remote that Git would choose for the current branch, or None where there is none."""
    return next(iter(_remotes_in_order(repository, None)), None)


def keeping_remote(repository: Repository) -> str | None:
    """The remote that may be relied on to keep what leaves this clone, or None.

    Not the branch's first: whoever looks at a stranger's branch has the stranger's remote there.
    """
    names = os.fsdecode(repository.git("remote")).split()
    default = repository.setting("remote.pushDefault")
    if default in names:
        return default
    return "origin" if "origin" in names else default_remote(repository)


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


def _endpoint(
    repository: Repository,
    remote: str,
    url: str,
    *,
    setting: str | None = None,
    named: Named | None = None,
) -> Endpoint:
    """The endpoint at a URL; it is a folder only if no transfer agent is configured."""
    path = None
    if not repository.setting("lfs.standalonetransferagent"):
        path = local_path(url, repository.work_tree or repository.git_dir)
    if url.startswith("-") or (path is None and _ODD.search(url)):
        raise TransferError(
            f"{printable(url)} is not used as a URL: it, or its host, begins with a dash, or it"
            " has a line end in it",
            hint="git config --show-origin --get-regexp url   shows where it is set",
        )
    return Endpoint(remote, path.as_uri() if path else url, path, setting, named)


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
            common = _little(git_dir / "commondir")
            return (git_dir / common.strip() if common else git_dir).resolve()
    raise TransferError(
        f"there is no repository at {folder}", hint="git remote -v   (is the disk mounted?)"
    )


def _follow_gitfile(candidate: Path) -> Path:
    text = _little(candidate)
    if not text.startswith("gitdir: "):
        return candidate
    return candidate.parent / text.removeprefix("gitdir: ").strip()


def _little(path: Path) -> str:
    """The text of a small file, else nothing: it may be a pipe, or as long as the disk is."""
    try:
        if not path.is_file() or path.stat().st_size > _GITFILE_BYTES:
            return ""
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def lfs_folder(repository: Repository, common_dir: Path) -> Path:
    """git-lfs's folder in a repository (this or another): `lfs.storage`, else `lfs`."""
    configured = b""
    if (common_dir / "config").is_file():
        configured = repository.git(
            "config", "--file", str(common_dir / "config"), "lfs.storage", ok=(0, 1)
        )
    name = os.fsdecode(configured).rstrip("\n")
    try:
        return common_dir / Path(name or "lfs").expanduser()
    except RuntimeError as error:
        raise TransferError(
            f"lfs.storage in {common_dir / 'config'} is {printable(name)}: there is no such user"
        ) from error


def lfs_folder_to_fill(repository: Repository, endpoint: Endpoint) -> tuple[Path, str | None]:
    """The folder that objects for a path remote are copied into, and a sentence if it is moved.

    Configuration of the other side (`lfs.storage`), or a link there, may name any folder.

    Raises:
        TransferError: the repository is another user's, and the folder not.
    """
    common = common_dir_of(endpoint.folder or Path())
    folder = lfs_folder(repository, common)
    real = Path(os.path.realpath(folder / "objects"))
    if real == Path(os.path.realpath(common)) / "lfs" / "objects":
        return folder, None
    by = f"lfs.storage in {common / 'config'}" if folder != common / "lfs" else "a link there"
    said = f"{printable(endpoint.remote)} keeps its objects in {printable(str(real))} ({by})"
    if not _is_theirs(common, real):
        raise TransferError(
            f"{said}, which does not belong to the owner of the repository: nothing was written",
            hint="ask the owner of the repository; or, to send the objects elsewhere:"
            f" git config remote.{printable(endpoint.remote)}.lfsurl URL",
        )
    return folder, said


def _is_theirs(common_dir: Path, folder: Path) -> bool:
    """Whether a folder, which need not be there yet, is the owner's of a repository, or that is
    our own repository."""
    if os.name == "nt":
        return True
    owner = common_dir.stat().st_uid
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return owner in (os.geteuid(), folder.stat().st_uid)


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
