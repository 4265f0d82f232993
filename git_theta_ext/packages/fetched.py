"""One version of another repository, fetched into the cache: its commit, trees and manifests."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, TransferError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import index_of
from git_theta_ext.objects.transfer import lfsconfig
from git_theta_ext.packages.cache import Cache, locked
from git_theta_ext.packages.remote import (
    BRANCHES,
    DIGITS,
    ID,
    TAGS,
    Listing,
    ask,
    find_version,
    refs_of,
    shown,
    told,
    without_secret,
)
from git_theta_ext.packages.sources import checked_url, checked_version

Progress = Callable[[int], object]
"""Called with the number of bytes done since the last call."""

_CACHED_BRANCHES = "refs/remotes/origin/"
_KEPT = "refs/theta/kept/"
"""A ref for each version that is whole here."""

_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Package:
    """A version of a repository, in the cache.

    `url` and `version` are as they were asked for. `ref` is the full name of the ref that the
    version was found as at the remote, None where it is a commit. `commit` is an object id. Of
    `repository`, which is that of the cache, single tensors of `f"{commit}:{path}"` can be read;
    missing objects are fetched.
    """

    url: str
    version: str | None
    ref: str | None
    commit: str
    repository: Repository

    @property
    def offline(self) -> bool:
        """Whether the remote must not be asked for what is missing."""
        return self.repository.offline

    def __str__(self) -> str:
        """The URL without passwords, and the version."""
        version = "" if self.version is None else f"@{self.version}"
        return printable(f"{without_secret(self.url)}{version}")


def fetch(
    cache: Cache,
    url: str,
    version: str | None,
    *,
    commit: str | None = None,
    offline: bool = False,
    refresh: bool = False,
) -> Package:
    """Have a version in the cache: its commit, its trees and its manifests.

    A commit, or a tag, that is here already is not asked for again; a branch always is, unless
    `offline`.

    Args:
        cache: where it is kept.
        url: of the repository, as Git takes it.
        version: a tag, a branch or a commit; None for what the remote's HEAD is.
        commit: the very commit that is wanted, whatever the version is now.
        offline: ask no remote.
        refresh: ask the remote for a tag, too, that is here.

    Raises:
        UsageError: there is no such version.
        TransferError: the remote does not answer; or it is not here, and `offline`.
        StoreError: the cache cannot be written.
    """
    url, version = checked_url(url), checked_version(version)
    if commit is not None and (len(commit) not in DIGITS or not ID.fullmatch(commit)):
        raise UsageError(f"{printable(commit)!r} is not the full id of a commit")
    with cache.using():
        found = None if refresh and commit is None else _here(cache, url, version, commit, offline)
        if found is None and offline:
            raise TransferError(
                f"{shown(url, version)} is not in the cache, and no remote is asked (offline)",
                hint="git theta cache list   shows what is there; without --offline it is fetched",
            )
        if found is None:
            found = _from_remote(cache, url, version, commit)
        _note_use(found)
        return found


def remote_refs(cache: Cache, url: str, *, offline: bool = False) -> dict[str, str]:
    """The commit of every ref of a remote, by its full name, and of HEAD; tags are peeled.

    Offline those that were fetched before. A tag that moved since is said on stderr.

    Raises:
        TransferError: the remote does not answer.
    """
    url = checked_url(url)
    repository = cache.find(url)
    if not offline:
        listing = ask(cache, url)
        if repository is not None:
            _notice_moved_tags(repository, url, listing)
        return {ref: listing.commit(ref) for ref in listing.oids}
    found: dict[str, str] = {}
    if repository is not None:
        rows = repository.git(
            "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", TAGS,
            _CACHED_BRANCHES,
        )  # fmt: skip
        for line in lines_of(rows):
            ref, oid, peeled = line.split(" ")
            name = ref.replace(_CACHED_BRANCHES, BRANCHES, 1)
            found["HEAD" if name == f"{BRANCHES}HEAD" else name] = peeled or oid
    return found


def marker_of(repository: Repository, commit: str) -> Path:
    """The file that says that a version is here, by its time when it was last used."""
    return repository.common_dir / "theta" / "versions" / commit


def forget(repository: Repository, commit: str) -> None:
    """Have a version that is here be none: the next fetch asks the remote again."""
    marker_of(repository, commit).unlink(missing_ok=True)
    repository.git("update-ref", "-d", f"{_KEPT}{commit}")


# -- what is here ----------------------------------------------------------------------------------


def _here(
    cache: Cache, url: str, version: str | None, commit: str | None, offline: bool
) -> Package | None:
    """The version as far as it can be told without the remote; None where it must be asked."""
    repository = cache.find(url, offline=offline)
    if repository is None:
        return None
    ref, oid = None, commit
    if commit is None:
        ref, oid = _known(repository, version, offline)
    if oid is None or not marker_of(repository, oid).is_file():
        return None
    return Package(url, version, ref, oid, repository)


def _known(
    repository: Repository, version: str | None, offline: bool
) -> tuple[str | None, str | None]:
    """The ref and the commit of a version that does not change, or, offline, of any."""
    if version is None or version == "HEAD":
        oid = repository.resolve(f"{_CACHED_BRANCHES}HEAD^{{commit}}") if offline else None
        return (None if oid is None else "HEAD"), oid
    for ref in refs_of(version):
        if ref.startswith(TAGS) or offline:
            oid = repository.resolve(f"{_local(ref)}^{{commit}}")
            if oid is not None:
                return ref, oid
    if ID.fullmatch(version):
        folder = repository.common_dir / "theta" / "versions"
        found = [one.name for one in folder.glob(f"{version}*")]
        return None, found[0] if len(found) == 1 else None
    return None, None


def _local(ref: str) -> str:
    """Where a ref of the remote stands in the cache."""
    if ref.startswith(TAGS):
        return ref
    if ref.startswith(BRANCHES):
        return _CACHED_BRANCHES + ref.removeprefix(BRANCHES)
    return f"refs/theta/other/{ref.removeprefix('refs/')}"


def _note_use(package: Package) -> None:
    marker = marker_of(package.repository, package.commit)
    try:
        names = files.read_whole(marker).decode("utf-8", "surrogateescape").split("\n")
        if (package.version or "HEAD") in names:
            os.utime(marker)
        else:
            _mark(package.repository, package.commit, [*names, package.version or "HEAD"])
    except OSError:
        pass  # removed meanwhile, or not ours


def _mark(repository: Repository, commit: str, names: Iterable[str]) -> None:
    marker = marker_of(repository, commit)
    marker.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(name for name in dict.fromkeys(names) if name)
    files.replace_file(marker, text.encode("utf-8", "surrogateescape"))


# -- what the remote has ---------------------------------------------------------------------------


def _from_remote(cache: Cache, url: str, version: str | None, commit: str | None) -> Package:
    """Fetch a version, unless the remote says that it is one that is here."""
    listing = ask(cache, url)
    if not listing.oids:
        raise UsageError(f"{shown(url, None)} is empty: nothing was pushed to it yet")
    sha256 = any(len(oid) == DIGITS[1] for oid in listing.oids.values())
    repository = cache.repository(url, sha256=sha256)
    _notice_moved_tags(repository, url, listing)
    ref, oid = None, commit
    if commit is None:
        ref, oid = find_version(listing, url, version)
    with _fetching(repository):
        if oid is None or not marker_of(repository, oid).is_file():
            oid = _fetch_commit(Package(url, version, ref, "", repository), oid, listing)
            _fetch_manifests(repository, url, oid, listing)
            _mark(repository, oid, [version or "HEAD"])
        _note_refs(repository, ref, oid, listing)
    return Package(url, version, ref, oid, repository)


def _notice_moved_tags(repository: Repository, url: str, listing: Listing) -> None:
    """Say which tags are not what they were, and forget what they were."""
    rows = repository.git("for-each-ref", "--format=%(objectname) %(*objectname) %(refname)", TAGS)
    for line in lines_of(rows):
        oid, peeled, ref = line.split(" ")
        was = peeled or oid
        if ref in listing.oids and listing.commit(ref) != was:
            print(
                f"git theta: warning: the tag {printable(ref.removeprefix(TAGS))} of"
                f" {shown(url, None)} was moved: it was {was[:12]}, and is"
                f" {listing.commit(ref)[:12]} now",
                file=sys.stderr,
            )
            repository.git("update-ref", "-d", ref)


# -- fetching --------------------------------------------------------------------------------------


@contextmanager
def _fetching(repository: Repository) -> Iterator[None]:
    """One process at a time fetches into a repository; what a killed one left is cleared away."""
    folder = repository.common_dir
    with locked(folder / "theta" / "fetching", alone=True):
        for left in (folder / "shallow.lock", folder / "packed-refs.lock"):
            end = time.monotonic() + _LOCK_SECONDS
            while left.exists() and time.monotonic() < end:
                time.sleep(0.1)  # a Git whose parent was killed may go on for a while
            left.unlink(missing_ok=True)
        yield


_FETCH = (
    "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no",
    "--filter=blob:none",
)  # fmt: skip


def _fetch_commit(package: Package, oid: str | None, listing: Listing) -> str:
    """Bring a commit and its trees; and those of the default branch, for its `.lfsconfig`.

    The commit of `package` is not looked at.
    """
    url, version, ref, repository = package.url, package.version, package.ref, package.repository
    words = [*_FETCH, "--depth=1", "--", "origin"]
    default = [] if listing.head is None or listing.head == ref else [listing.head]
    if oid is not None:
        try:
            told(url, [*words, ref or oid, *default], repository.cwd, dict(repository.env))
        except TransferError:
            if ref is not None:
                raise
        if (found := _commit_here(repository, oid)) is not None:
            return found
    if ref is not None:
        raise TransferError(
            f"{shown(url, version)} is no commit, or it was moved while it was fetched",
            hint="try again",
        )
    return _search(repository, url, oid or str(version))


def _search(repository: Repository, url: str, wanted: str) -> str:
    """Look for a commit in all history, where the remote does not give it by its id."""
    deepen = ["--unshallow"] if (repository.common_dir / "shallow").exists() else []
    specs = [f"+{BRANCHES}*:refs/theta/all/heads/*", f"+{TAGS}*:refs/theta/all/tags/*"]
    told(url, [*_FETCH, *deepen, "--", "origin", *specs], repository.cwd, dict(repository.env))
    found = _commit_here(repository, wanted)
    if found is None:
        raise UsageError(f"{shown(url, None)} has no commit {wanted}")
    return found


def _commit_here(repository: Repository, oid: str) -> str | None:
    """The full id of a commit that is here; no remote is asked."""
    fresh = Repository.bare(repository.git_dir, offline=True)
    return fresh.resolve(f"{oid}^{{commit}}")


def _note_refs(repository: Repository, ref: str | None, oid: str, listing: Listing) -> None:
    """Keep what was fetched, and what the names stood for."""
    new = {f"{_KEPT}{oid}": oid}
    if ref is not None and ref != "HEAD":
        # Of a tag with a message that itself, unless its commit was here before.
        tag = listing.oids[ref]
        new[_local(ref)] = oid if _commit_here(repository, tag) is None else tag
    if listing.head is not None:
        tip = listing.oids[listing.head]
        if _commit_here(repository, tip) is not None:
            new[_local(listing.head)] = tip
    _drop_in_the_way(repository, new)
    text = "".join(f"update {name} {value}\n" for name, value in new.items())
    repository.git("update-ref", "--stdin", stdin=os.fsencode(text))
    if listing.head is not None and _local(listing.head) in new:
        repository.git("symbolic-ref", f"{_CACHED_BRANCHES}HEAD", _local(listing.head))
    elif ref == "HEAD":  # of a remote whose HEAD is no branch
        repository.git("update-ref", "--no-deref", f"{_CACHED_BRANCHES}HEAD", oid)


def _drop_in_the_way(repository: Repository, new: dict[str, str]) -> None:
    """Remove refs that are folders of new ones, or in folders that these would be."""
    for one in lines_of(repository.git("for-each-ref", "--format=%(refname)")):
        if any(name.startswith(f"{one}/") or one.startswith(f"{name}/") for name in new):
            repository.git("update-ref", "--no-deref", "-d", one)


def _fetch_manifests(repository: Repository, url: str, commit: str, listing: Listing) -> None:
    """Bring the manifests and pointers of a version, in two batches: first what tells them."""
    entries = [one for one in repository.tree(commit, recursive=True) if one.kind == "blob"]
    telling = {one.oid for one in entries if os.path.basename(one.path) == ".gitattributes"}
    telling |= {one.oid for one in entries if one.path == lfsconfig.NAME}
    tips = [] if listing.head is None else [listing.oids[listing.head]]
    tips = [one for one in tips if _commit_here(repository, one) is not None]
    for tip in tips:
        telling |= {one.oid for one in repository.tree(tip, lfsconfig.NAME)}
    fetch_blobs(repository, url, telling, [commit, *tips])
    paths = {one.path: one.oid for one in entries if one.mode.startswith("100")}
    try:
        with index_of(repository, commit) as env:
            answer = repository.git(
                "check-attr", "--cached", "-z", "--stdin", "filter",
                stdin=b"".join(os.fsencode(path) + b"\0" for path in paths), env=env,
            ).split(b"\0")  # fmt: skip
    except RepositoryError as error:
        if "invalid path" not in error.message:
            raise
        raise type(error)(
            f"{shown(url, None)}: Git takes no such tree: {error.message}",
            hint="name another version, or tell those who published it",
        ) from error
    values = zip(answer[:-1:3], answer[2::3], strict=False)
    tracked = {paths[os.fsdecode(path)] for path, value in values if value in (b"theta", b"lfs")}
    fetch_blobs(repository, url, tracked, [commit])


def fetch_blobs(
    repository: Repository, url: str, oids: Iterable[str], revisions: Iterable[str]
) -> None:
    """Bring those of some blobs that are not here, in one batch.

    Args:
        repository: of the cache.
        url: its remote's, for messages.
        oids: the blobs.
        revisions: that they are found in.

    Raises:
        TransferError: the remote does not give them.
    """
    wanted = set(oids)
    lacking = sorted(wanted & missing_blobs(repository, revisions)) if wanted else []
    if not lacking:
        return
    if repository.offline:
        raise TransferError(
            f"{len(lacking)} files of {shown(url, None)} are not in the cache, and no remote is"
            " asked (offline)"
        )
    words = ["-c", "fetch.negotiationAlgorithm=noop", *_FETCH, "--stdin", "origin"]
    request = "".join(f"{oid}\n" for oid in lacking).encode()
    told(url, words, repository.cwd, dict(repository.env), request)


def missing_blobs(repository: Repository, revisions: Iterable[str]) -> set[str]:
    """The blobs of revisions that are not here; no remote is asked."""
    request = "".join(f"{one}^{{tree}}\n" for one in revisions).encode()
    answer = repository.git(
        "rev-list", "--objects", "--no-object-names", "--missing=print", "--stdin", stdin=request
    )
    return {line[1:].decode() for line in answer.splitlines() if line.startswith(b"?")}
