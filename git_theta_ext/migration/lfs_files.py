"""The files that git-lfs keeps in a repository: found, fetched, and new ones put beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import CorruptObjectError, ThetaError, TransferError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.transfer import endpoints, lfs
from git_theta_ext.objects.transfer.endpoints import Endpoint
from git_theta_ext.objects.transfer.folders import object_path

_AT_ONCE = 100


class LfsFiles:
    """git-lfs's own folder of a repository; files there are read, never changed."""

    def __init__(self, repository: Repository) -> None:
        """Nothing is looked at before it is asked for."""
        self._repository = repository

    @cached_property
    def folder(self) -> Path:
        """The folder: `lfs.storage`, else `lfs` in Git's."""
        return endpoints.lfs_folder(self._repository, self._repository.common_dir)

    @cached_property
    def _folders(self) -> list[Path]:
        """Where git-lfs looks: here, and beside the objects that this repository shares."""
        found = [self.folder]
        with suppress(OSError):
            objects = self._repository.common_dir / "objects"
            for line in files.read_whole(objects / "info" / "alternates").split(b"\n"):
                if line and not line.startswith(b"#"):
                    place = objects / os.fsdecode(line)
                    found.append(Path(os.path.normpath(place)).parent / "lfs")
        return found

    def find(self, ref: UpdateRef) -> Path | None:
        """The file of an object, if there is one of its length."""
        for folder in self._folders:
            path = object_path(folder, ref.oid)
            with suppress(OSError):
                if path.is_file() and path.stat().st_size == ref.size:
                    return path
        return None

    def take(self, source: Path, ref: UpdateRef, *, move: bool) -> None:
        """Take over a file, verified by its hash; errors as for `Store.take`."""
        Store(self.folder).take(source, ref.oid, ref.size, move=move)

    def fetch(self, refs: Iterable[UpdateRef], remote: str | None = None) -> list[str]:
        """Bring objects that are not here, from whichever remote has them.

        Args:
            refs: what is wanted.
            remote: the name of the one to ask first.

        Returns:
            Why what is still missing could not be had, a line for each remote.
        """
        wanted = {ref.oid: ref for ref in refs if self.find(ref) is None}
        said: list[str] = []
        for endpoint in endpoints.for_fetch(self._repository, remote):
            if not wanted:
                break
            if endpoint.named is not None and not endpoint.named.chosen:
                said.append(
                    f"{endpoint.remote}: {endpoint} is not asked; {endpoint.named.advice()}"
                )
                continue
            try:
                for part in _parts(list(wanted.values())):
                    self._fetch_from(endpoint, part)
            except ThetaError as error:
                said.append(f"{endpoint.remote}: {error.message}")
            wanted = {oid: ref for oid, ref in wanted.items() if self.find(ref) is None}
        return said if wanted else []

    def _fetch_from(self, endpoint: Endpoint, refs: Sequence[UpdateRef]) -> None:
        """Have an endpoint bring what it has; each file is verified before it is taken."""
        if endpoint.folder is not None:
            common = endpoints.common_dir_of(endpoint.folder)
            folder = endpoints.lfs_folder(self._repository, common)
        else:
            folder = lfs.fetch(self._repository, endpoint, list(refs), lambda _: None)
        for ref in refs:
            path = object_path(folder, ref.oid)
            if not path.is_file():
                continue
            try:
                self.take(path, ref, move=endpoint.folder is None)
            except CorruptObjectError as error:
                raise TransferError(
                    f"object {ref.oid} is damaged there: {error.message}"
                ) from error


def _parts(refs: list[UpdateRef]) -> Iterator[list[UpdateRef]]:
    for start in range(0, len(refs), _AT_ONCE):
        yield refs[start : start + _AT_ONCE]
