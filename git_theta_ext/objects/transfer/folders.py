"""Objects in the folder of another repository, where git-lfs would keep them.

A file is never shared by hard link between repositories, for damage to one would be damage to both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from git_theta_ext.core import files
from git_theta_ext.core.errors import CorruptObjectError, TransferError
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store.durable import Durable
from git_theta_ext.objects.store.store import folders_above
from git_theta_ext.objects.transfer import endpoints
from git_theta_ext.objects.transfer.endpoints import Endpoint
from git_theta_ext.objects.transfer.missing import missing

_COPY_BYTES = 1 << 20


def object_path(folder: Path, oid: str) -> Path:
    """Where an object lies below git-lfs's folder, and below ours."""
    return Path(place_of(str(folder), oid))


def place_of(folder: str, oid: str) -> str:
    """As `object_path`, without the cost of a Path."""
    return f"{folder}{os.sep}objects{os.sep}{oid[:2]}{os.sep}{oid[2:4]}{os.sep}{oid}"


def fill(
    repository: Repository,
    endpoint: Endpoint,
    items: list[UpdateRef],
    find: Callable[[UpdateRef], Path | None],
    advance: Callable[[int], object],
) -> str | None:
    """Copy objects to a path remote, each verified on its way.

    Args:
        repository: which has them.
        endpoint: of a folder.
        items: what the folder is to have.
        find: where an object is here, if it is.
        advance: called with the number of bytes copied since the last call.

    Returns:
        A sentence for the user where they lie in an unusual place.

    Raises:
        MissingObjectError: one is not here.
        CorruptObjectError: one is damaged here.
        TransferError: the folder cannot be written.
    """
    common = endpoints.common_dir_of(endpoint.folder or Path())
    folder, moved = endpoints.lfs_folder_to_fill(repository, endpoint)
    try:
        # Permissions follow the Git object folder there, so that shared repositories work.
        mode = (common / "objects").stat().st_mode & 0o7777
        target = Durable(str(folder / "tmp"), folders_above, _maker(folder, mode), "theta-")

        kept = None if os.name == "nt" else mode & 0o666

        def copy(item: UpdateRef) -> int:
            source = find(item)
            if source is None:
                raise missing({item.oid: item}, [f"{endpoint.remote}: not there"])
            if item.size <= _COPY_BYTES:
                data = files.read_whole(source)
                _require(source, item, len(data), hashlib.sha256(data).hexdigest())
                target.write(place_of(str(folder), item.oid), [memoryview(data)], kept=kept)
                return item.size
            with target.writing(place_of(str(folder), item.oid), kept=kept) as written:
                _write_verified(source, written, item)
            return item.size

        with target.gathering():
            for size in ordered_map(copy, items, copy_cost):
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


def copy_cost(item: UpdateRef) -> int:
    """What is held of an object that is copied or hashed piece by piece."""
    return min(item.size, _COPY_BYTES)
