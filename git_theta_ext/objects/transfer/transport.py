"""Objects between the local store and remotes, each verified before and after.

Path and `file://` remotes are served by copying into the very place where git-lfs keeps its
objects (`folders`). Everything else is git-lfs's work (`lfs`), so every host, credential helper,
proxy and transfer adapter that it knows works here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core.errors import (
    CorruptObjectError,
    StoreError,
    TransferError,
)
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, folders, lfs, pointers
from git_theta_ext.objects.transfer.endpoints import Confirmed, Endpoint
from git_theta_ext.objects.transfer.folders import copy_cost, place_of
from git_theta_ext.objects.transfer.missing import missing

Progress = Callable[[int], object]
"""Called with the number of bytes done since the last call."""

_BATCH_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push sent: number of objects and their size in bytes.

    `claimed` are objects that a server did not take, for it says that it has them. `warning` is
    something that the user should know and that did not stop the push.
    """

    count: int
    bytes: int
    warning: str | None = None
    place: str | None = None
    """The server that they went to, where a `.lfsconfig` named it."""
    claimed: int = 0


def fetch(
    repository: Repository,
    objects: Iterable[UpdateRef],
    *,
    remote: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Bring every object that is not here into the store, verified.

    They are looked for in git-lfs's local folder, then at `remote`, then at every other remote.

    Args:
        repository: where they are brought to.
        objects: what is wanted; what is here already is not asked for.
        remote: the name of the one to ask first; by default the branch's remote, the only one, or
            origin.
        progress: called with the number of bytes brought since the last call.

    Returns:
        The remotes that had some, each with its endpoint.

    Raises:
        MissingObjectError: some are nowhere to be had; the others are in the store.
        TransferError: git-lfs is needed and not installed.
        StoreError: the disk is full.
    """
    with store_of(repository).gathering():
        return _fetch(repository, objects, remote, progress)


def _fetch(
    repository: Repository,
    objects: Iterable[UpdateRef],
    remote: str | None,
    progress: Progress | None,
) -> list[str]:
    """As `fetch`; a remote that fails is passed over, and named only if objects stay missing."""
    store = store_of(repository)
    wanted = {item.oid: item for item in objects if not store.has(item.oid, item.size)}
    if not wanted:
        return []
    advance = progress or _silent
    reasons: list[str] = []
    places: list[str] = []
    failed = False
    without_lfs: lfs.LfsNotInstalledError | None = None
    local = endpoints.lfs_folder(repository, repository.common_dir)
    if os.path.realpath(local) != os.path.realpath(store.root):  # what lies there was looked for
        _take_all(store, local, wanted, advance)
    advice: str | None = None
    for endpoint in () if repository.offline else endpoints.for_fetch(repository, remote):
        if not wanted:
            break
        if endpoint.anonymous and endpoint.named is not None:
            advice = endpoint.named.advice()
        before = len(wanted)
        try:
            damaged = _fetch_from(repository, endpoint, wanted, advance)
            if len(wanted) < before:
                places.append(f"{endpoint.remote} ({endpoint})")
            if damaged:
                reasons.append(f"{_label(endpoint)}: {damaged[0]}")
            elif wanted:
                reasons.append(f"{_label(endpoint)}: not there")
        except lfs.LfsNotInstalledError as error:
            without_lfs = error
        except TransferError as error:
            failed = True
            reasons.append(f"{_label(endpoint)}: {error.message}")
    store.flush()
    # Another process may have brought some meanwhile.
    wanted = {oid: item for oid, item in wanted.items() if not store.has(oid, item.size)}
    if wanted and without_lfs:
        raise without_lfs
    if wanted:
        raise missing(wanted, reasons, failed=failed, advice=advice)
    return places


def _label(endpoint: Endpoint) -> str:
    """How a remote is called in the list of those that were tried."""
    if endpoint.anonymous:
        return f"{endpoint.remote} ({endpoint}; asked without credentials)"
    return endpoint.remote


def _silent(_: int) -> None:
    """Report progress to nobody."""


def _fetch_from(
    repository: Repository, endpoint: Endpoint, wanted: dict[str, UpdateRef], advance: Progress
) -> list[str]:
    """Take what one endpoint has; the complaints about objects that were damaged."""
    if endpoint.named is not None and not (endpoint.named.chosen or endpoint.named.reachable):
        raise endpoint.named.refusal("it was not asked")
    if endpoint.folder is None:
        folder = lfs.fetch(repository, endpoint, list(wanted.values()), advance)
        return _take_all(store_of(repository), folder, wanted, _silent, remove=True)
    common = endpoints.common_dir_of(endpoint.folder)
    damaged = []
    for folder in (endpoints.lfs_folder(repository, common), common / "theta"):
        damaged += _take_all(store_of(repository), folder, wanted, advance)
    return damaged


def _take_all(
    store: Store,
    folder: Path,
    wanted: dict[str, UpdateRef],
    advance: Progress,
    *,
    remove: bool = False,
) -> list[str]:
    """Take over the wanted objects that lie below a folder; those taken leave `wanted`.

    `remove` takes the source away, be it whole or damaged (so that a retry downloads it anew).
    """
    top = str(folder)
    if remove:  # another process may have brought some: git-lfs's folder of a store is shared
        for item in [item for item in wanted.values() if store.has(item.oid, item.size)]:
            del wanted[item.oid]
            Path(place_of(top, item.oid)).unlink(missing_ok=True)
    there = [item for item in wanted.values() if _is_readable(place_of(top, item.oid))]
    damaged = []

    def take(item: UpdateRef) -> tuple[UpdateRef, str | None]:
        try:
            store.take(Path(place_of(top, item.oid)), item.oid, item.size, move=remove)
        except CorruptObjectError as error:
            return item, error.message
        except StoreError:  # the source is gone: another process took it first
            if not store.has(item.oid, item.size):
                raise
        return item, None

    for item, complaint in ordered_map(take, there, copy_cost):
        if complaint is None:
            del wanted[item.oid]
            advance(item.size)
        else:
            damaged.append(complaint)
        if remove:
            Path(place_of(top, item.oid)).unlink(missing_ok=True)
    return damaged


def _is_readable(path: str) -> bool:
    """Whether a file can be read to its end; a pipe or a device, which may have none, can not."""
    return os.path.isfile(path) and os.access(path, os.R_OK)


def push(
    repository: Repository,
    remote_name: str,
    remote_url: str,
    objects: Iterable[UpdateRef],
    *,
    progress: Progress | None = None,
    use_cache: bool = True,
    moved_refs: Collection[str] = (),
) -> Pushed:
    """See to it that a remote has every object, verifying each that is sent.

    Args:
        repository: what is pushed from.
        remote_name: the remote's name or URL, as Git gives it to hooks.
        remote_url: where Git pushes to.
        objects: what the remote is to have.
        progress: called with the number of bytes sent since the last call.
        use_cache: skip objects that the endpoint is on record to have. A path remote is always
            looked at, for that costs nothing.
        moved_refs: full names of refs that the push changes at the remote. Where the ref of pointer
            files is among them, they are all named again.

    Raises:
        MissingObjectError: an object is neither here nor there.
        CorruptObjectError: an object is damaged here; nothing, or only whole ones, were sent.
        TransferError: the remote cannot be written, or git-lfs failed; carries its message.
    """
    endpoint = endpoints.for_push(repository, remote_name, remote_url)
    advance = progress or _silent
    items = _unconfirmed(repository, endpoint, objects, use_cache=use_cache)
    renamed = endpoint.folder is None and any(ref in moved_refs for ref in pointers.REFS)
    if not items and not renamed:
        return Pushed(0, 0)
    warning = None
    claimed: list[UpdateRef] = []
    store = store_of(repository)
    store.share()  # what is about to be sent must not be pruned
    if items:
        # git-lfs sends nothing at all when one object is missing here, even if the server has it.
        fetch(repository, items, remote=remote_name)
        store.share()
    if endpoint.folder is not None:
        warning = folders.fill(repository, endpoint, items, _finder(store), advance)
    else:
        confirmed = Confirmed(repository, endpoint)
        if items:
            _verify_all(store, items)
            claimed = lfs.push(repository, endpoint, items, _finder(store), advance)
            confirmed.add(item.oid for item in items)

        def all_sent() -> Iterator[UpdateRef]:
            sent = confirmed.read()
            refs = repository.git("for-each-ref", "--format=%(objectname)").decode().split()
            known = reachable.objects_in(repository, refs, on_damage=lambda oid, error: None)
            return (item for item in known.values() if item.oid in sent)

        warning = pointers.publish(repository, remote_url, items, all_sent, moved_refs)
    store.let_go()
    place = f"{endpoint.remote} ({endpoint})" if endpoint.named is not None else None
    count, size = len(items) - len(claimed), sum(item.size for item in items)
    size -= sum(item.size for item in claimed)
    return Pushed(count, size, warning, place, len(claimed))


def unconfirmed(
    repository: Repository,
    remote_name: str,
    remote_url: str,
    objects: Iterable[UpdateRef],
    *,
    use_cache: bool = True,
) -> list[UpdateRef]:
    """The objects that a push would see to: not known to be at the remote, each once.

    Args:
        repository: what would be pushed from.
        remote_name: the remote's name or URL, as Git gives it to hooks.
        remote_url: where Git would push to.
        objects: what the remote is to have.
        use_cache: skip objects that the endpoint is on record to have. A path remote is always
            looked at.

    Raises:
        TransferError: there is no repository at a path remote, or `.lfsconfig` names a server that
            the user has not chosen.
    """
    endpoint = endpoints.for_push(repository, remote_name, remote_url)
    return _unconfirmed(repository, endpoint, objects, use_cache=use_cache)


def _unconfirmed(
    repository: Repository, endpoint: Endpoint, objects: Iterable[UpdateRef], *, use_cache: bool
) -> list[UpdateRef]:
    """As `unconfirmed`; what a path remote has counts only if its bytes are right."""
    items = {item.oid: item for item in objects}
    if not items:
        return []
    if endpoint.folder is not None:
        folder = endpoints.lfs_folder(repository, endpoints.common_dir_of(endpoint.folder))
        top = str(folder)
        # By its hash: who can write there may have put something else under the name.
        store = store_of(repository)
        absent = [
            item
            for item in items.values()
            if not store.right_elsewhere(folder, place_of(top, item.oid), item.oid, item.size)
        ]
        store.save_verified()
        return absent
    known = Confirmed(repository, endpoint).read() if use_cache else set()
    return [item for item in items.values() if item.oid not in known]


def _finder(store: Store) -> Callable[[UpdateRef], Path | None]:
    return lambda item: store.find(item.oid, item.size)


def _verify_all(store: Store, items: list[UpdateRef]) -> None:
    for _ in ordered_map(lambda item: store.verify(item.oid, item.size), items, copy_cost):
        pass
