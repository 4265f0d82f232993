"""What the cache holds by version, and what leaves it: what was longest not used goes first.

All repositories share one store, so an object stays as long as a version of any of them needs it.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import CorruptObjectError, RepositoryError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Manifest, UpdateRef
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.store import YOUNG_SECONDS, Store
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer
from git_theta_ext.packages.cache import Cache, remove, url_of
from git_theta_ext.packages.fetched import Progress, forget, missing_blobs
from git_theta_ext.packages.sources import absolute

LIMIT = "theta.cacheLimit"
_LOCK_SECONDS = 10.0
_ODD_OBJECTS = 1
"""How `git fsck` ends that found nothing worse than odd dates (`fsck.c`, ERROR_OBJECT).
A pack that is damaged adds 4 to it."""

_IN_USE_SECONDS = 600.0
"""A version that was used less long ago may be about to be read: a limit does not touch it."""

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)b?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Version:
    """A version in the cache: of which repository, how it was named, when it was last used.

    `objects` are those of its objects that are here, with their sizes in bytes.
    """

    repository: Repository
    url: str
    commit: str
    names: tuple[str, ...]
    used: float
    objects: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The bytes of its objects here, of which other versions may need some, too."""
        return sum(self.objects.values())


@dataclass(slots=True)
class Trimmed:
    """What left the cache, or would: versions, objects by id with sizes, bytes of repositories.

    `left` is what the cache takes afterwards, in bytes.
    """

    versions: list[Version] = field(default_factory=list)
    objects: dict[str, int] = field(default_factory=dict)
    git_bytes: int = 0
    left: int = 0

    @property
    def bytes(self) -> int:
        """All that is freed."""
        return sum(self.objects.values()) + self.git_bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """Which versions leave: all; those of some URLs; those not used for so many seconds; and those
    longest not used, until the cache takes no more than `limit` bytes."""

    everything: bool = False
    urls: tuple[str, ...] = ()
    unused_seconds: float | None = None
    limit: int | None = None


def versions(cache: Cache) -> list[Version]:
    """All versions in the cache, what was used last first."""
    store = Store(cache.store)
    found = []
    for repository in cache.repositories():
        folder = repository.common_dir / "theta" / "versions"
        for marker in folder.glob("*") if folder.is_dir() else ():
            if re.fullmatch("[0-9a-f]{40,64}", marker.name):
                with suppress(OSError, RepositoryError):
                    found.append(
                        _version(Repository.bare(repository.git_dir, offline=True), marker, store)
                    )
    return sorted(found, key=lambda one: -one.used)


def _version(repository: Repository, marker: Path, store: Store) -> Version:
    names = files.read_whole(marker).decode("utf-8", "surrogateescape").split("\n")
    here = {
        oid: ref.size for oid, ref in _objects(repository, marker.name) if store.has(oid, ref.size)
    }
    used = marker.stat().st_mtime
    return Version(repository, url_of(repository), marker.name, tuple(names), used, here)


def _objects(repository: Repository, commit: str) -> Iterator[tuple[str, UpdateRef]]:
    """What the manifests and pointers of a version need, as far as these are here."""
    lacking = missing_blobs(repository, [commit])
    blobs = {one.oid for one in repository.tree(commit, recursive=True) if one.kind == "blob"}
    here = sorted(blobs - lacking)
    for _, manifest in reachable.manifests(repository, here):
        if isinstance(manifest, Manifest):
            yield from ((ref.oid, ref) for ref in manifest.objects())
    for _, text in repository.small_blobs(here, b"version https://git-lfs", POINTER_BYTES):
        pointer = read_pointer(text)
        if pointer is not None:
            yield pointer.oid, pointer


def total(cache: Cache) -> int:
    """The bytes that the cache takes: objects, and what Git has."""
    return sum(found.st_size for _, found in Store(cache.store).entries()) + sum(
        _bytes_of(one.git_dir) for one in cache.repositories()
    )


def prune(cache: Cache, rules: Rules, *, dry_run: bool = False) -> Trimmed:
    """Have versions leave the cache, and what only they needed; and what nothing names.

    Nobody else uses the cache meanwhile.

    Raises:
        UsageError: nothing of such a URL is in the cache.
        StoreError: others go on using it, or something cannot be removed.
    """
    with cache.using(alone=True, timeout=_LOCK_SECONDS):
        store = Store(cache.store)
        with store.alone(_LOCK_SECONDS):
            return _prune(cache, store, rules, dry_run)


def trim_to_limit(cache: Cache) -> Trimmed | None:
    """Prune as `theta.cacheLimit` says; None where there is no limit.

    Raises:
        UsageError: the setting is no size.
        StoreError: as of `prune`.
    """
    text = limit_set()
    return prune(cache, Rules(limit=size_named(text, LIMIT))) if text else None


def limit_set() -> str | None:
    """What `theta.cacheLimit` says; None where there is no limit."""
    answer = run_git(["config", "--get", LIMIT], Path.cwd(), ok=(0, 1))
    return os.fsdecode(answer).strip() or None


def size_named(text: str, where: str) -> int:
    """A number of bytes as people write it, such as `500 MB` or `50g`, in powers of 1000.

    Raises:
        UsageError: it is none; names `where` it stands.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"{where}: {printable(text)!r} is not a size", hint="write a size such as 500MB or 50GB"
        )
    return int(float(found[1]) * 1000 ** " kmgtp".index(found[2].lower() or " "))


def _prune(cache: Cache, store: Store, rules: Rules, dry_run: bool) -> Trimmed:
    """As `prune`, with the locks held: versions go before the objects that they name."""
    known = versions(cache)
    sizes = {oid: found.st_size for oid, found in store.entries()}
    ages = {oid: time.time() - found.st_mtime for oid, found in store.entries()}
    out = _leaving(cache, known, rules, sizes)
    kept = [one for one in known if one not in out]
    needed = {oid for one in kept for oid in one.objects}
    named = {oid for one in known for oid in one.objects}
    result = Trimmed(out)
    for oid, length in sizes.items():
        old = ages[oid] >= YOUNG_SECONDS or oid in named or rules.everything
        if oid not in needed and old:
            result.objects[oid] = length
    before = total(cache)
    gone = _emptied(cache, kept)
    result.git_bytes = sum(_bytes_of(one.git_dir) for one in gone)
    result.left = before - result.bytes
    if dry_run:
        return result
    for one in out:
        forget(one.repository, one.commit)
    for place in [*(one.git_dir for one in gone), *cache.remains()]:
        remove(place)
    for oid in result.objects:
        store.remove(oid)
    store.remove_stale()
    if rules.everything:
        for folder in ("damaged", "lfs", "memo"):
            shutil.rmtree(cache.store / folder, ignore_errors=True)
    return result


def _leaving(
    cache: Cache, known: Sequence[Version], rules: Rules, sizes: dict[str, int]
) -> list[Version]:
    """The versions that leave by the rules."""
    if rules.everything:
        return list(known)
    urls = {absolute(url) for url in rules.urls}
    unknown = urls - {one.url for one in known}
    if unknown:
        raise UsageError(
            f"nothing of {printable(sorted(unknown)[0])} is in the cache",
            hint="git theta cache list   shows what is there",
        )
    now = time.time()
    limit = rules.unused_seconds
    out = [
        one for one in known
        if one.url in urls or (limit is not None and now - one.used > limit)
    ]  # fmt: skip
    if rules.limit is None:
        return out
    kept = [one for one in known if one not in out]
    while kept and now - kept[-1].used > _IN_USE_SECONDS:
        if _taken(cache, kept, sizes) <= rules.limit:
            break
        out.append(kept.pop())
    return out


def _taken(cache: Cache, kept: Sequence[Version], sizes: dict[str, int]) -> int:
    """What some versions take together, in bytes."""
    needed = {oid for one in kept for oid in one.objects}
    places = {one.repository.git_dir for one in kept}
    return sum(sizes.get(oid, 0) for oid in needed) + sum(map(_bytes_of, places))


def _emptied(cache: Cache, kept: Iterable[Version]) -> list[Repository]:
    """The repositories of which no version is kept."""
    places = {one.repository.git_dir for one in kept}
    return [one for one in cache.repositories() if one.git_dir not in places]


def _bytes_of(folder: Path) -> int:
    found = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.lstat(os.path.join(top, name)).st_size
    return found


# -- whether all is right --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check of the cache found: how much was looked at, and what was wrong and removed."""

    objects: int
    bytes: int
    damaged: tuple[str, ...]
    repositories: tuple[str, ...]
    """URLs of which Git's own check failed."""


def verify(cache: Cache, progress: Progress | None = None) -> Verified:
    """Hash every object anew, and have Git check what it holds; what is damaged is removed.

    The next get fetches it again.

    Raises:
        StoreError: others go on using the cache.
    """
    store, damaged, count, length = Store(cache.store), [], 0, 0
    with cache.using(alone=True, timeout=_LOCK_SECONDS):
        for oid, found in list(store.entries()):
            try:
                store.verify(oid)
            except CorruptObjectError:
                damaged.append(oid)
                store.remove(oid)
            count, length = count + 1, length + found.st_size
            if progress is not None:
                progress(found.st_size)
        broken = []
        for repository in cache.repositories():
            url = f"{repository.git_dir}"
            try:
                url = url_of(repository) or url
                whole = cache.is_whole(url) and cache.has_whole_packs(url)
                if whole and cache.place(url) == repository.git_dir:
                    here = Repository.bare(repository.git_dir, offline=True)
                    here.git("fsck", "--no-dangling", ok=(0, _ODD_OBJECTS))
                    continue
            except RepositoryError:
                pass
            broken.append(url)
            remove(repository.git_dir)
        for place in cache.remains():
            broken += [f"{place}"] if place.suffix == ".git" else []
            remove(place)
    return Verified(count, length, tuple(damaged), tuple(broken))
