"""Objects between the local store and remotes, each verified before and after.

Path and `file://` remotes are served by copying into the very place where git-lfs keeps its
objects; a file is never shared by hard link between repositories, for damage to one would be
damage to both. Everything else is git-lfs's work (`lfs`), so every host, credential helper,
proxy and transfer adapter that it knows works here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from git_theta_ext.core import files
from git_theta_ext.core.errors import (
    CorruptObjectError,
    ManifestError,
    MissingObjectError,
    StoreError,
    TransferError,
)
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import HEAD_BYTES, MAX_BYTES, SHORTEST, UpdateRef, is_manifest
from git_theta_ext.manifest.text import Parser
from git_theta_ext.objects.store.durable import Durable
from git_theta_ext.objects.store.store import Store, folders_above
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, lfs, lfsconfig, pointers
from git_theta_ext.objects.transfer.endpoints import Confirmed, Endpoint

Progress = Callable[[int], object]
"""Called with the number of bytes done since the last call."""

_BATCH_BYTES = 32 << 20
_COPY_BYTES = 1 << 20


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
        raise _missing(wanted, reasons, failed=failed, advice=advice)
    return places


def _label(endpoint: Endpoint) -> str:
    """How a remote is called in the list of those that were tried."""
    if endpoint.anonymous:
        return f"{endpoint.remote} ({endpoint}; asked without credentials)"
    return endpoint.remote


def _silent(_: int) -> None:
    """Report progress to nobody."""


def _missing(
    wanted: dict[str, UpdateRef],
    reasons: list[str],
    *,
    failed: bool = False,
    advice: str | None = None,
) -> MissingObjectError:
    """The error for objects that could not be had; `failed` if a remote could not be asked.

    `advice` is about a server that the user has not chosen.
    """
    first = next(iter(wanted.values()))
    amount = "1 object" if len(wanted) == 1 else f"{len(wanted)} objects"
    which = f"{amount} ({first.kind} sha256:{first.oid}, {first.size} bytes"
    which += ", ...)" if len(wanted) > 1 else ")"
    tried = "\n".join("  " + reason.replace("\n", "\n    ") for reason in reasons)
    hint = (
        "where the objects are, type: git theta push REMOTE --all   then here: git theta fetch"
        " REMOTE\nor, as a file, there: git theta format-patch REV -o FILE   then here: "
        "git theta am FILE"
    )
    if failed:
        hint = (
            "put right what it says, then type: git theta fetch\n"
            f"or, if it does not have them: {hint}"
        )
    if advice is not None:
        hint = f"about the server that {lfsconfig.NAME} names: {advice}\n{hint}"
    return MissingObjectError(
        f"{which} could not be fetched:\n{tried or '  this repository has no remote'}", hint=hint
    )


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
            Path(_place(top, item.oid)).unlink(missing_ok=True)
    there = [item for item in wanted.values() if _is_readable(_place(top, item.oid))]
    damaged = []

    def take(item: UpdateRef) -> tuple[UpdateRef, str | None]:
        try:
            store.take(Path(_place(top, item.oid)), item.oid, item.size, move=remove)
        except CorruptObjectError as error:
            return item, error.message
        except StoreError:  # the source is gone: another process took it first
            if not store.has(item.oid, item.size):
                raise
        return item, None

    for item, complaint in ordered_map(take, there, _cost):
        if complaint is None:
            del wanted[item.oid]
            advance(item.size)
        else:
            damaged.append(complaint)
        if remove:
            Path(_place(top, item.oid)).unlink(missing_ok=True)
    return damaged


def _is_readable(path: str) -> bool:
    """Whether a file can be read to its end; a pipe or a device, which may have none, can not."""
    return os.path.isfile(path) and os.access(path, os.R_OK)


def object_path(folder: Path, oid: str) -> Path:
    """Where an object lies below git-lfs's folder, and below ours."""
    return Path(_place(str(folder), oid))


def _place(folder: str, oid: str) -> str:
    """As `object_path`, without the cost of a Path."""
    return f"{folder}{os.sep}objects{os.sep}{oid[:2]}{os.sep}{oid[2:4]}{os.sep}{oid}"


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
    if endpoint.folder is not None:
        warning = _push_to_folder(repository, endpoint, items, advance)
    else:
        confirmed = Confirmed(repository, endpoint)
        if items:
            # git-lfs sends nothing at all when one object is missing here, even if the server has
            # it.
            fetch(repository, items, remote=remote_name)
            store.share()
            _verify_all(store, items)
            claimed = lfs.push(repository, endpoint, items, advance)
            confirmed.add(item.oid for item in items)

        def all_sent() -> Iterator[UpdateRef]:
            sent = confirmed.read()
            refs = repository.git("for-each-ref", "--format=%(objectname)").decode().split()
            known = objects_in(repository, refs, on_damage=lambda oid, error: None)
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
            if not store.right_elsewhere(folder, _place(top, item.oid), item.oid, item.size)
        ]
        store.save_verified()
        return absent
    known = Confirmed(repository, endpoint).read() if use_cache else set()
    return [item for item in items.values() if item.oid not in known]


def _verify_all(store: Store, items: list[UpdateRef]) -> None:
    for _ in ordered_map(lambda item: store.verify(item.oid, item.size), items, _cost):
        pass


def _cost(item: UpdateRef) -> int:
    """What is held of an object that is copied or hashed piece by piece."""
    return min(item.size, _COPY_BYTES)


def _push_to_folder(
    repository: Repository, endpoint: Endpoint, items: list[UpdateRef], advance: Progress
) -> str | None:
    """Copy objects to a path remote; a sentence where they lie in an unusual place."""
    common = endpoints.common_dir_of(endpoint.folder or Path())
    folder, moved = endpoints.lfs_folder_to_fill(repository, endpoint)
    fetch(repository, items, remote=endpoint.remote)
    store_of(repository).share()
    try:
        # Permissions follow the Git object folder there, so that shared repositories work.
        mode = (common / "objects").stat().st_mode & 0o7777
        target = Durable(str(folder / "tmp"), folders_above, _maker(folder, mode), "theta-")

        kept = None if os.name == "nt" else mode & 0o666

        def copy(item: UpdateRef) -> int:
            source = store_of(repository).find(item.oid, item.size)
            if source is None:
                raise _missing({item.oid: item}, [f"{endpoint.remote}: not there"])
            if item.size <= _COPY_BYTES:
                data = files.read_whole(source)
                _require(source, item, len(data), hashlib.sha256(data).hexdigest())
                target.write(_place(str(folder), item.oid), [memoryview(data)], kept=kept)
                return item.size
            with target.writing(_place(str(folder), item.oid), kept=kept) as written:
                _write_verified(source, written, item)
            return item.size

        with target.gathering():
            for size in ordered_map(copy, items, _cost):
                advance(size)
            target.settle()  # the names as well, before Git moves the ref that relies on them
    except OSError as error:
        raise TransferError(f"cannot write to {folder}: {error.strerror or error}") from error
    return moved


def _maker(folder: Path, mode: int) -> Callable[[str], None]:
    """What makes the folders of another repository, with permissions, and refuses links there."""
    objects = str(folder / "objects")
    real = os.path.realpath(objects)

    def refuse_link(place: str) -> None:
        if _leads_away(place, objects, real):
            raise TransferError(
                f"{place} leads out of {real}: a link stands in its way, and nothing was written"
                " there",
                hint="put a folder in the place of the link",
            )

    def make(place: str) -> None:
        if not place.startswith(objects + os.sep):
            _make_folders(place, mode)
            return
        refuse_link(os.path.dirname(place))
        _make_folders(place, mode)
        refuse_link(place)

    return make


def _leads_away(place: str, objects: str, real: str) -> bool:
    """Whether a folder of objects is a link, which may lead anywhere."""
    if os.name == "nt":  # where junctions lead away as well
        return os.path.realpath(place) != os.path.join(real, os.path.relpath(place, objects))
    return os.path.islink(place)


def _write_verified(source: Path, copy: BinaryIO, item: UpdateRef) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as original:
        while chunk := original.read(_COPY_BYTES):
            digest.update(chunk)
            copy.write(chunk)
        size = copy.tell()
    _require(source, item, size, digest.hexdigest())


def _require(source: Path, item: UpdateRef, size: int, digest: str) -> None:
    """Raise CorruptObjectError unless a file that was read is the object that it should be."""
    if digest != item.oid or size != item.size:
        raise CorruptObjectError(
            f"object {source} is damaged: {size} bytes that hash to {digest}",
            hint="remove that file, then: git theta fetch",
        )


def _make_folders(folder: str, mode: int) -> None:
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for place in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(place)
        if os.name != "nt":
            with suppress(PermissionError):
                os.chmod(place, mode)


def manifests_in(
    repository: Repository, include: Iterable[str], exclude: Iterable[str] = ()
) -> Iterator[tuple[str, bytes]]:
    """The blob id and content of every manifest reachable from `include` and not from `exclude`.

    Both are full object ids, of commits, tags, trees or blobs; ids that are not here are ignored.
    Manifests are known by their size and first line. What a partial clone lacks is left out.
    """
    wanted = "".join(f"{oid}\n" for oid in include)
    if not wanted:
        return
    request = wanted + "".join(f"^{oid}\n" for oid in exclude)
    # --missing: names only what is here, and keeps Git from fetching the rest to look at it.
    listed = repository.git(
        "rev-list", "--objects", "--no-object-names", "--ignore-missing", "--missing=print",
        "--stdin", stdin=request.encode(),
    )  # fmt: skip
    present = b"".join(line + b"\n" for line in listed.split() if not line.startswith(b"?"))
    if not present:
        return
    described = repository.git("cat-file", "--batch-check", "--buffer", stdin=present)
    batch: list[str] = []
    waiting = 0
    for line in described.decode().splitlines():
        oid, kind, *size = line.split()
        if kind != "blob" or not SHORTEST <= int(size[0]) <= MAX_BYTES:
            continue
        batch.append(oid)
        waiting += int(size[0])
        if waiting > _BATCH_BYTES:
            yield from _manifests(repository, batch)
            batch, waiting = [], 0
    yield from _manifests(repository, batch)


def _manifests(repository: Repository, oids: list[str]) -> Iterator[tuple[str, bytes]]:
    return (found for found in repository.blobs(oids) if is_manifest(found[1][:HEAD_BYTES]))


def objects_in(
    repository: Repository,
    include: Iterable[str],
    exclude: Iterable[str] = (),
    on_damage: Callable[[str, ManifestError], object] | None = None,
) -> dict[str, UpdateRef]:
    """The objects, by id, that the manifests need which `manifests_in` finds.

    Args:
        repository: where the manifests are.
        include: full ids of commits, tags, trees or blobs; those that are not here are ignored.
        exclude: the same; what is reachable from these is left out.
        on_damage: called with the id of a blob that begins like a manifest and is none, and with
            what is wrong with it.

    Raises:
        ManifestError: there is such a blob, and no `on_damage`.
    """
    objects: dict[str, UpdateRef] = {}
    parser = Parser()
    for oid, data in manifests_in(repository, include, exclude):
        try:
            objects.update((item.oid, item) for item in parser.parse(data).objects())
        except ManifestError as error:
            if on_damage is None:
                raise
            on_damage(oid, error)
    return objects
