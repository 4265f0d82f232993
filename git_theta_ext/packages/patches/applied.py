"""What was applied to the work tree, so that it can be taken back, and gone on with when killed.

A file in the repository's own folder, of the last few: which patch, and the blob of each file in
the index before and after. Nothing depends on it: without it an update is taken back by a merge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, StoreError
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store.locks import holding

_KEPT = 20
_MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Applied:
    """One application: the patch by its last commit, how it was called, and the files.

    `files` are the blobs before and after, by path; `done` is false while they are being written.
    """

    patch: str
    options: str
    files: Mapping[str, tuple[str, str]]
    done: bool = False


def _place(repository: Repository) -> Path:
    return repository.git_dir / "theta-applied.json"


def alone(repository: Repository) -> AbstractContextManager[None]:
    """Let no second one be applied to this work tree meanwhile, which would add to half of this.

    Raises:
        RepositoryError: one is being applied.
        StoreError: there can be no lock here.
    """
    busy = RepositoryError(
        "a patch is being applied to this work tree",
        hint="wait until that has ended, then try again",
    )
    return holding(repository.git_dir / "theta-applied.lock", busy, alone=True, timeout=0)


def known(repository: Repository) -> list[Applied]:
    """What is remembered, the oldest first; nothing where that is damaged."""
    try:
        with files.own(_place(repository)) as file:
            rows = json.loads(file.read(_MOST_BYTES))
        return [
            Applied(
                str(row["patch"]), str(row["options"]),
                {str(path): (str(both[0]), str(both[1])) for path, both in row["files"].items()},
                row["done"] is True,
            )
            for row in rows
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return []


def _keep(repository: Repository, rows: list[Applied]) -> None:
    text = json.dumps([asdict(row) for row in rows[-_KEPT:]]).encode()
    try:
        files.replace_file(_place(repository), text, durable=True)
    except OSError as error:
        raise StoreError(f"cannot write {_place(repository)}: {error.strerror}") from error


def begin(repository: Repository, one: Applied) -> None:
    """Remember what is about to be written.

    Raises:
        StoreError: that cannot be written down.
    """
    _keep(repository, [*(row for row in known(repository) if row.done), one])


def finish(repository: Repository, one: Applied) -> None:
    """Note that it was written."""
    rows = [row for row in known(repository) if row.done]
    _keep(repository, [*rows, replace(one, done=True)])


def take_back(repository: Repository, patch: str) -> None:
    """Forget the last time that a patch was applied, and that it was being taken back."""
    last = last_of(repository, patch)
    _keep(repository, [row for row in known(repository) if row.done and row != last])


def unfinished(repository: Repository, patch: str, options: str) -> Applied | None:
    """The same application that was begun and not finished, if it is the last one."""
    for last in known(repository)[-1:]:
        if not last.done and (last.patch, last.options) == (patch, options):
            return last
    return None


def last_of(repository: Repository, patch: str) -> Applied | None:
    """The last time that a patch was applied, and not taken back."""
    found = [row for row in known(repository) if row.done and row.patch == patch]
    return found[-1] if found else None
