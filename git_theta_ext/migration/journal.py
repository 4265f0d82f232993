"""What a migration has done so far, so that one that was stopped goes on, and never twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError
from git_theta_ext.core.version import VERSION
from git_theta_ext.git.object_pipes import ObjectPipes
from git_theta_ext.git.repository import Repository

FOLDER = "theta-migrate"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of a commit, and the patterns that its tree tracks because of the migration."""

    new: str
    patterns: frozenset[str] = frozenset()


class Journal:
    """A file of lines: commits with what became of them, and blobs; None of it is in any ref.

    What it says follows from its name, which is a hash of what was asked for, and from the objects
    alone. So it may be lost, and be read by a later run that is asked for the same.
    """

    def __init__(self, path: Path | None, pipes: ObjectPipes) -> None:
        """Read what is there; without a path nothing is kept.

        Raises:
            StoreError: it cannot be written.
        """
        self.commits: dict[str, Rewritten] = {}
        self.blobs: dict[str, str] = {}
        self._path = path
        self._file = None
        if path is None:
            return
        try:
            path.parent.mkdir(exist_ok=True)
            self._read(path, pipes)
            self._file = files.appending(path, mode=0o600)
            self._file.write(b"\n")  # the last line may have been cut short
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error

    @property
    def goes_on(self) -> bool:
        """Whether there is something of an earlier run."""
        return bool(self.commits or self.blobs)

    def _read(self, path: Path, pipes: ObjectPipes) -> None:
        """Take the lines whose objects are here; a line that was cut short is none."""
        with suppress(FileNotFoundError), files.own(path) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    row: Any = json.loads(line)
                    kind, old, new = row["kind"], row["old"], row["new"]
                except (ValueError, KeyError, TypeError):
                    continue
                found = pipes.size(new) if isinstance(new, str) else None
                if kind == "commit" and found is not None and found[0] == "commit":
                    self.commits[old] = Rewritten(new, frozenset(row.get("patterns", ())))
                elif kind == "blob" and found is not None and found[0] == "blob":
                    self.blobs[old] = new

    def moved(self, commit: str) -> str:
        """What became of a commit; itself, if it was not rewritten."""
        found = self.commits.get(commit)
        return commit if found is None else found.new

    def patterns(self, commit: str) -> Iterable[str]:
        """The patterns that the migration has a commit track."""
        found = self.commits.get(commit)
        return () if found is None else found.patterns

    def note_commit(self, old: str, new: str, patterns: frozenset[str]) -> None:
        """Keep what became of a commit."""
        self.commits[old] = Rewritten(new, patterns)
        self._line({"kind": "commit", "old": old, "new": new, "patterns": sorted(patterns)})

    def note_blob(self, key: str, new: str) -> None:
        """Keep what became of a blob, by a name that says all that it depends on."""
        self.blobs[key] = new
        self._line({"kind": "blob", "old": key, "new": new})

    def _line(self, row: dict[str, Any]) -> None:
        if self._file is not None:
            text = json.dumps(row, separators=(",", ":"))
            self._file.write(text.encode("ascii") + b"\n")
            self._file.flush()

    def close(self, *, done: bool = False) -> None:
        """Close the file; `done` removes it."""
        if self._file is not None:
            self._file.close()
        if done and self._path is not None:
            files.remove_quietly(self._path)
            with suppress(OSError):
                self._path.parent.rmdir()


def place(repository: Repository, *asked: object) -> Path:
    """Where the journal of a migration is, by everything that its result depends on."""
    text = json.dumps([VERSION, *map(repr, asked)])
    name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return repository.common_dir / FOLDER / name
