"""A project: the folder of a `models.toml`, with its lock and what was written into it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import RepositoryError, StoreError, UsageError
from git_theta_ext.core.text import nearest, printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.work_tree import WorkTree, is_link
from git_theta_ext.objects.store.locks import Busy, Lock
from git_theta_ext.packages.locking.lock_file import LockedModel, lock_text, parse_lock
from git_theta_ext.packages.locking.requirements import FILE, LOCK, STATE, Requirement, parse
from git_theta_ext.packages.locking.state import State
from git_theta_ext.packages.sources import absolute

_EXAMPLE = 'write models.toml: [[model]], name = "base", url = "https://host/org/base"'

_IGNORED = b"# Made by git theta sync; safe to delete.\n*\n"

INCOMING = f"{STATE}/incoming"
"""Where files are made before they get their places."""

Say = Callable[[str], object]
"""Gets one line for people."""


@dataclass(slots=True)
class Project:
    """The folder, what its `models.toml` asks for, and what its `theta.lock` holds, by name."""

    folder: Path
    wanted: tuple[Requirement, ...]
    locked: dict[str, LockedModel]
    state: State = field(init=False)
    _top: Path = field(init=False)

    def __post_init__(self) -> None:
        """Read what was written here before."""
        self.state = State.read(self.folder)
        self._top = Path(os.path.realpath(_top_of(self.folder) or self.folder))

    @classmethod
    def read(cls, folder: Path) -> Project:
        """That of a folder.

        Raises:
            UsageError: a file cannot be read, or is not usable.
        """
        wanted = parse(_bytes(folder / FILE, limits.SETTINGS_BYTES))
        lock = folder / LOCK
        locked = parse_lock(_bytes(lock, limits.LOCK_BYTES)) if lock.exists() else {}
        return cls(folder, wanted, locked)

    def url(self, one: Requirement | LockedModel) -> str:
        """Where a model is; a relative path counts from the folder of `models.toml`.

        Raises:
            UsageError: it is a folder of this work tree: anybody can commit what Git takes for a
                repository, with settings of its own.
        """
        url = absolute(one.url, self.folder)
        path = _path_of(url)
        place = Path(os.path.realpath(path))
        inside = os.path.isabs(path) and place.is_relative_to(self._top)
        if inside and not place.is_file():
            raise UsageError(
                f"{FILE}: {one.name}: {printable(one.url)} leads into the work tree that {FILE} is "
                "in: nothing is fetched from there",
                hint="name a repository elsewhere, or a bundle",
            )
        return url

    def row(self, one: Requirement) -> LockedModel | None:
        """What is locked for an entry, if that still is the version that it asks for."""
        row = self.locked.get(one.name)
        return row if row is not None and row.is_version_of(one) else None

    def named(self, names: Iterable[str]) -> list[Requirement]:
        """The entries of these names; all, where there is none.

        Raises:
            UsageError: there is no entry of a name.
        """
        known = {one.name: one for one in self.wanted}
        for name in (names := list(names)):
            if name not in known:
                near = nearest(name, known) if known else None
                raise UsageError(
                    f"{FILE} has no model {printable(name)!r}",
                    hint=f"did you mean {near}?" if near else f"it has: {', '.join(known)}",
                )
        return [known[name] for name in dict.fromkeys(names)] if names else list(self.wanted)

    def write_lock(self, models: Mapping[str, LockedModel]) -> None:
        """Write `theta.lock`, if it says something else than before.

        Raises:
            StoreError: it cannot be written.
        """
        text = lock_text(models.values())
        if not (self.folder / LOCK).exists() or models != self.locked:
            WorkTree(self.folder).replace(LOCK, text)
        self.locked = dict(models)


def find(folder: Path) -> Path:
    """The folder of the `models.toml` that counts in a folder: its own, else the repository's.

    Raises:
        UsageError: there is none.
    """
    if (folder / FILE).is_file():
        return folder
    top = _top_of(folder)
    if top is not None and (top / FILE).is_file():
        return top
    where = "here" if top is None else "here, nor at the top of the repository"
    raise UsageError(f"there is no {FILE} {where}", hint=_EXAMPLE)


def _path_of(url: str) -> str:
    """The path that a URL is, or a `file://` leads to, as Git reads that."""
    match = re.match(r"(?i)file://[^/]*(/.*)", url, re.DOTALL)
    path = url if match is None else unquote(match[1])
    return path[1:] if match and re.match(r"/[A-Za-z]:/", path) else path


def _top_of(folder: Path) -> Path | None:
    """The top of the work tree that a folder is in; None outside of any."""
    with suppress(RepositoryError):
        return Repository.discover_quickly(folder).work_tree
    return None


@contextmanager
def alone(folder: Path, say: Say) -> Iterator[None]:
    """One command at a time works on a folder; another one waits, and says so.

    Raises:
        StoreError: the folder cannot be written.
    """
    place = folder / STATE
    if is_link(place):
        raise StoreError(f"{printable(str(place))} is a symbolic link", hint="remove it")
    try:
        place.mkdir(exist_ok=True)
        ignore = f"{STATE}/.gitignore"
        if not WorkTree(folder).has_file(ignore):
            WorkTree(folder).replace(ignore, _IGNORED)
        try:
            lock = Lock(place / "lock", alone=True, timeout=0.0)
        except Busy:
            say("another git theta is at work here: waiting for it")
            lock = Lock(place / "lock", alone=True)
    except OSError as error:
        raise StoreError(f"cannot write {printable(str(place))}: {error.strerror}") from error
    try:
        _clear(folder / INCOMING)  # of a command that was killed
        yield
    finally:
        lock.release()


def _clear(place: Path) -> None:
    try:
        shutil.rmtree(place)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"cannot remove {printable(str(place))}: {error.strerror}") from error


def _bytes(path: Path, most: int) -> bytes:
    try:
        with files.plain(path, follow=True) as file:
            return file.read(most + 1)
    except OSError as error:
        raise UsageError(f"cannot read {printable(str(path))}: {error.strerror}") from error
