"""The user's cache: one bare repository for each URL, and one store for the objects of all.

    ROOT/store                  objects, shared (theta.storage and lfs.storage of the repositories)
    ROOT/repositories/NAME.git  what was fetched of one URL: commits, trees, manifests
    ROOT/lock                   shared by whoever fetches and reads; a prune owns it

The settings of a repository here see to it that Git starts nothing and collects no garbage in it;
those of the user (credentials, proxies, `insteadOf`) count as everywhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, StoreError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import Repository, own_environment
from git_theta_ext.objects.store.locks import holding
from git_theta_ext.packages.sources import Source, absolute

VARIABLE = "GIT_THETA_CACHE"
SETTING = "theta.cache"

_ELSEWHERE = f"another folder: git config --global {SETTING} FOLDER, or set {VARIABLE}"

NO_BRANCH = "refs/heads/none"
"""What HEAD is here. It must be no branch of the remote: see `lfsconfig` on the default branch."""

_STORE = "../../store"
_UPLOAD_PACK = (
    "git -c uploadpack.allowFilter=true -c uploadpack.allowAnySHA1InWant=true upload-pack"
)
"""How a repository on this machine is asked, so that it leaves out what is not wanted."""

VERIFY = "git theta cache verify   removes what is damaged; then try again"
"""What to do where Git cannot read what it has in the cache."""

_SHA256_DIGITS = 64
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of git-theta-ext.\n"
"""Tells programs for backups that a folder is a cache (https://bford.info/cachedir/)."""


_PACK_BYTES = 32
"""A pack with nothing in it: its head of 12 bytes and a hash of 20 (gitformat-pack(5))."""


class Cache:
    """What was fetched of other repositories, below one folder."""

    def __init__(self, root: Path) -> None:
        """Use `open`; nothing is made before something is fetched."""
        self.root = root

    @classmethod
    def open(cls, root: Path | None = None) -> Cache:
        """The cache at a folder; by default where GIT_THETA_CACHE, else `theta.cache` says, else
        in the user's folder for caches.

        Raises:
            UsageError: the setting names the folder of a user who is not there.
        """
        return cls(Path(os.path.abspath(root)) if root is not None else _default_root())

    @property
    def store(self) -> Path:
        """The folder with the objects of all repositories."""
        return self.root / "store"

    def place(self, url: str) -> Path:
        """Where the repository of a URL is, or would be."""
        digest = hashlib.sha256(os.fsencode(url)).hexdigest()[:16]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Source(url, None, None).name)[:40].strip(".-")
        return self.root / "repositories" / f"{name or 'model'}-{digest}.git"

    def repository(self, url: str, *, sha256: bool | None = None) -> Repository:
        """The bare repository of a URL, with the remote `origin`; made if there is none.

        Args:
            url: as Git takes it; a path counts from the current folder.
            sha256: whether the remote names its objects by SHA-256; None: it is asked, if the
                repository is not there yet.

        Raises:
            RepositoryError: the remote does not answer, or what is here is damaged.
            StoreError: the cache cannot be written.
        """
        url = absolute(url)
        place = self.place(url)
        if not self.is_whole(url):
            self.prepare()
            self._make(url, place, self._is_sha256(url) if sha256 is None else sha256)
        return _opened(place)

    def find(self, url: str, *, offline: bool = False) -> Repository | None:
        """As `repository`; None where there is none yet. Offline no remote is to be asked."""
        url = absolute(url)
        return _opened(self.place(url), offline=offline) if self.is_whole(url) else None

    def is_whole(self, url: str) -> bool:
        """Whether there is a repository of an absolute URL, with the settings it was made with.

        One without would be fetched into, and its objects looked for elsewhere. git-lfs adds to
        them how a server is asked (`lfs.URL.access`).
        """
        place = self.place(url)
        try:
            head, text = (files.read_whole(place / name) for name in ("HEAD", "config"))
        except OSError:
            return False
        right = head.rstrip() == f"ref: {NO_BRANCH}".encode()
        return right and os.fsencode(self._settings(url)) in text

    def has_whole_packs(self, url: str) -> bool:
        """Whether no pack of the repository of an absolute URL is shorter than any can be.

        Lost power leaves such packs. Git 2.55 asks a remote for what is in one for ever.
        """
        return _shortened(self.place(url)) is None

    def repositories(self) -> Iterator[Repository]:
        """All repositories of the cache."""
        for place in sorted((self.root / "repositories").glob("*.git")):
            if (place / "HEAD").is_file():
                yield Repository.bare(place)

    def remains(self) -> list[Path]:
        """What killed processes left of repositories, and what lost its HEAD; for their owner."""
        places = sorted((self.root / "repositories").glob("*"))
        return [one for one in places if one.suffix != ".git" or not (one / "HEAD").is_file()]

    @contextmanager
    def using(self, *, alone: bool = False, timeout: float | None = None) -> Iterator[None]:
        """Share the cache with others that fetch and read; or own it, to remove from it.

        Raises:
            StoreError: the cache cannot be written, or others go on using it.
        """
        self.prepare()
        with locked(self.root / "lock", alone=alone, timeout=timeout):
            try:
                yield
            except RepositoryError as error:
                raise type(error)(error.message, hint=error.hint or VERIFY) from error
            except OSError as error:
                where = printable(str(error.filename or self.root))
                raise StoreError(
                    f"cannot read or write {where}: {error.strerror or error}",
                    hint=_ELSEWHERE,
                ) from error

    def _is_sha256(self, url: str) -> bool:
        """Whether a remote names its objects by SHA-256."""
        env = own_environment(self.root / "nowhere")
        answer = run_git(["ls-remote", "--", url], self.root, env=env)
        return len(answer.partition(b"\t")[0]) == _SHA256_DIGITS

    def prepare(self) -> None:
        """Make the folder of the cache, if it is not there.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.root / "CACHEDIR.TAG").exists():
                files.replace_file(self.root / "CACHEDIR.TAG", _TAG)
        except OSError as error:
            raise StoreError(
                f"cannot write to the cache {self.root}: {error.strerror or error}",
                hint=_ELSEWHERE,
            ) from error

    def _make(self, url: str, place: Path, sha256: bool) -> None:
        """Make the repository of a URL under another name, and name it last."""
        with locked(self.root / "making", alone=True):
            if self.is_whole(url):
                return
            place.parent.mkdir(exist_ok=True)
            new = place.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
            kind = f"--object-format={'sha256' if sha256 else 'sha1'}"
            words = ["init", "--quiet", "--bare", "--template=", kind, str(new)]
            # Whatever the user's own are made of: ours are read within the process, and trimmed.
            run_git(
                words, self.root, env={**own_environment(new), "GIT_DEFAULT_REF_FORMAT": "files"}
            )
            Repository.bare(new).git("symbolic-ref", "HEAD", NO_BRANCH)
            (new / "theta").mkdir(exist_ok=True)
            text = files.read_whole(new / "config") + os.fsencode(self._settings(url))
            files.replace_file(new / "config", text)
            remove(place)  # one that is damaged
            files.move(new, place)

    def _settings(self, url: str) -> str:
        """What Git is to know of the repository of a URL."""
        sections: dict[str, dict[str, str]] = {
            'remote "origin"': {
                "url": url,
                "promisor": "true",
                "partialclonefilter": "blob:none",
                "fetch": "+refs/heads/*:refs/remotes/origin/*",
                "tagOpt": "--no-tags",
            },
            "core": {"hooksPath": os.devnull, "fsmonitor": "false"},
            "gc": {"auto": "0"},
            "maintenance": {"auto": "false"},
            "fetch": {"writeCommitGraph": "false", "recurseSubmodules": "false"},
            # From the repository's folder, so that the cache can be moved as a whole.
            "theta": {"storage": _STORE},
            "lfs": {"storage": _STORE},
        }
        if os.path.isabs(url) or url.startswith("file://"):
            sections['remote "origin"']["uploadpack"] = _UPLOAD_PACK
        return "".join(
            f"[{section}]\n"
            + "".join(f"\t{name} = {_quoted(value)}\n" for name, value in rows.items())
            for section, rows in sections.items()
        )


def remove(place: Path) -> None:
    """Remove a repository: another name first, so that a half removed one is never found."""
    away = place.with_suffix(".removed")
    shutil.rmtree(away, ignore_errors=True)
    with suppress(FileNotFoundError):
        files.move(place, away)
    shutil.rmtree(away, ignore_errors=True)


def url_of(repository: Repository) -> str:
    """The URL that a repository of the cache was fetched from, as it was named."""
    return repository.setting("remote.origin.url") or ""


def _quoted(value: str) -> str:
    """A value as a file of settings has it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def locked(
    path: Path, *, alone: bool, timeout: float | None = None
) -> AbstractContextManager[None]:
    """Hold a lock of the cache, whose file is made if need be; see `holding`.

    Raises:
        StoreError: others hold it for longer than `timeout` seconds, or there are no locks here.
    """
    busy = StoreError(
        f"another command is using the cache {path.parent}",
        hint="wait until it has ended, then try again",
    )
    return holding(path, busy, alone=alone, timeout=timeout)


def _default_root() -> Path:
    named = os.environ.get(VARIABLE)
    if not named:
        answer = run_git(["config", "--type=path", "--get", SETTING], Path.cwd(), ok=(0, 1))
        named = os.fsdecode(answer).rstrip("\n")
    if named:
        try:
            return Path(os.path.abspath(Path(named).expanduser()))
        except RuntimeError as error:
            raise UsageError(f"{SETTING} is {printable(named)}: there is no such user") from error
    return _user_caches() / "git-theta-ext"


def _user_caches() -> Path:
    """The folder for caches, as the system has it."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given)
    if os.name == "nt" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    try:
        home = Path.home()
    except RuntimeError as error:
        raise UsageError(
            "the user has no home folder, and so no place for a cache", hint=_ELSEWHERE
        ) from error
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"


def _shortened(place: Path) -> Path | None:
    """A pack of a repository that is cut short."""
    for pack in (place / "objects" / "pack").glob("*.pack"):
        with suppress(OSError):
            if pack.stat().st_size < _PACK_BYTES:
                return pack
    return None


def _opened(place: Path, *, offline: bool = False) -> Repository:
    """The repository at a place.

    Raises:
        RepositoryError: a pack of it is cut short.
    """
    if (pack := _shortened(place)) is not None:
        raise RepositoryError(f"{printable(str(pack))} is cut short", hint=VERIFY)
    return Repository.bare(place, offline=offline)
