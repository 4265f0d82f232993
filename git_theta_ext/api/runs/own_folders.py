"""Which folders of checkpoints a run's `save` has written, also before it was killed.

Those are its to remove, when `keep` lets them go; what a trainer has written is not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from git_theta_ext.api.runs.side_tree import is_in
from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError


class OwnFolders:
    """Paths from the top of the work tree, kept in a file in Git's folder from save to save."""

    def __init__(self, place: Path, below: str) -> None:
        """Read what an earlier process has left.

        Args:
            place: the file.
            below: the run's folder, from the top; nothing else is ever named.
        """
        self._place = place
        self._paths: dict[str, None] = {}
        said: Any = []
        with suppress(OSError, ValueError), files.own(place) as file:
            said = json.loads(file.read())
        for path in said if isinstance(said, list) else ():
            if isinstance(path, str) and path != below and is_in(path, [below]):
                self._paths[path] = None

    def add(self, path: str) -> None:
        """Note a folder that is about to be written.

        Raises:
            StoreError: that cannot be kept.
        """
        self._paths[path] = None
        self._write()

    def take_others(self, kept: Collection[str]) -> Iterator[str]:
        """The folders that are to go, as they are not among those that are kept.

        Raises:
            StoreError: what is left cannot be kept.
        """
        gone = [path for path in self._paths if path not in kept]
        for path in gone:
            yield path
            del self._paths[path]
        if gone:
            self._write()

    def _write(self) -> None:
        try:
            files.replace_file(self._place, json.dumps(list(self._paths)).encode("ascii"))
        except OSError as error:
            raise StoreError(f"{self._place}: {error.strerror or error}") from error
