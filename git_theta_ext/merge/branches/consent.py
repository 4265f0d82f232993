"""Commands that a repository names run only after its user has allowed that very text.

What was allowed is kept outside the repository, in the user's configuration folder: one small file
for each command and repository, named by a hash of both. A changed command, a moved repository, or
another one with the same command asks again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.git.launch import shell_word
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.store.verified import only_ours

_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Allowed:
    """A command that the user allowed, and the repository (its Git folder) that names it."""

    repository: str
    command: str

    @property
    def name(self) -> str:
        """What it is kept and revoked under."""
        text = f"{self.repository}\0{self.command}".encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest()


class Consent:
    """What one user has allowed."""

    def __init__(self, folder: Path) -> None:
        """`folder` need not exist."""
        self._folder = folder

    @classmethod
    def of(cls, repository: Repository | None, environment: Mapping[str, str]) -> Consent:
        """The consent of the user whose environment this is.

        Raises:
            UsageError: the folder would lie in the repository, where a commit could bring consent.
        """
        folder = _configuration(environment) / "git-theta" / "allowed"
        if repository is not None:
            inside = [repository.common_dir, repository.git_dir, repository.work_tree]
            if any(place and folder.resolve().is_relative_to(place.resolve()) for place in inside):
                raise UsageError(
                    f"{folder} is inside this repository, so a commit could allow its own command",
                    hint="set XDG_CONFIG_HOME to a folder outside of it",
                )
        return cls(folder)

    def given(self, wanted: Allowed) -> bool:
        """Whether this command was allowed for this repository."""
        return self._is_ours() and self._read(self._folder / wanted.name) == wanted

    def give(self, wanted: Allowed) -> None:
        """Allow a command.

        Raises:
            StoreError: that cannot be written down.
        """
        path = self._folder / wanted.name
        row = {"repository": wanted.repository, "command": wanted.command}
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.mkdir(exist_ok=True, mode=0o700)
            if not self._is_ours():
                raise StoreError(
                    f"others can write to {self._folder}, and could allow commands in your name",
                    hint=f"chmod go-w {shell_word(str(self._folder))} "
                    f"{shell_word(str(self._folder.parent))}   (both must be yours)",
                )
            files.replace_file(path, json.dumps(row).encode("ascii"), mode=0o600)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error

    def all(self) -> Iterator[Allowed]:
        """Everything that was allowed, by repository."""
        found = [self._read(path) for path in self._folder.glob("*")] if self._is_ours() else []
        rows = [one for one in found if one is not None]
        yield from sorted(rows, key=lambda one: (one.repository, one.command))

    def revoke(self, one: Allowed) -> None:
        """Allow a command no more.

        Raises:
            StoreError: it cannot be removed.
        """
        path = self._folder / one.name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error

    def _is_ours(self) -> bool:
        """Whether nobody else can put files there, or another folder in its place."""
        with suppress(OSError):
            return all(only_ours(os.stat(one)) for one in (self._folder, self._folder.parent))
        return False

    def _read(self, path: Path) -> Allowed | None:
        """What a file allows; nothing if it is another user's, or is not named by what it says."""
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            with files.own(path) as file:
                if not only_ours(os.fstat(file.fileno())):
                    return None
                row = json.loads(file.read(_MAX_BYTES))
            found = Allowed(str(row["repository"]), str(row["command"]))
            return found if found.name == path.name else None
        return None


def evaluation_of(repository: Repository, command: str) -> Allowed:
    """An evaluation command as this repository names it."""
    return Allowed(os.fspath(repository.common_dir.resolve()), command)


def _configuration(environment: Mapping[str, str]) -> Path:
    """The folder of the user's configuration: XDG's, or Windows'."""
    for name in ("XDG_CONFIG_HOME", "APPDATA" if os.name == "nt" else ""):
        folder = environment.get(name, "")
        if os.path.isabs(folder):
            return Path(folder)
    try:
        return Path.home() / ".config"
    except RuntimeError as error:
        raise UsageError("there is no home folder in which to keep what you allow") from error
