"""What git-lfs does meanwhile: its progress file, of lines `direction n/total bytes/total name`.

git-lfs writes whatever a server sends to the disk, and waits for as long as a byte comes now and
then; only at the end it compares. So it is watched: an object that grows past its size, and a
transfer that all but stands still, end the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from git_theta_ext.core.errors import TransferError

_NAME_BYTES = 64
_LEAST_BYTES = 65_536
"""What has to come within `theta.transferTimeout`, unless an object is finished: of a server that
sends a byte now and then a transfer would never end."""


class Watch:
    """Reads the progress file of one run of git-lfs."""

    def __init__(
        self,
        path: Path,
        timeout: float,
        advance: Callable[[int], object],
        sizes: Mapping[str, int],
    ) -> None:
        """`advance` is called with bytes done; `sizes` are those that objects have, by id."""
        self.path = path
        self._timeout = timeout
        self._advance = advance
        self._sizes = sizes
        self._offset = 0
        self._done: dict[str, int] = {}
        self._last = time.monotonic()
        self._since = 0

    @property
    def moved(self) -> set[str]:
        """The ids of the objects that something was sent, or had, of."""
        return set(self._done)

    def tick(self) -> None:
        """Report progress.

        Raises:
            TransferError: an object is longer than it should be, or there was next to no progress
                for as long as `theta.transferTimeout` allows.
        """
        now = time.monotonic()
        if self.report():
            self._last = now
        elif self._timeout and now - self._last > self._timeout:
            raise TransferError(
                f"git-lfs made no progress for {self._timeout:g} seconds and was stopped",
                hint="does it wait for a password? try: git lfs fetch   (to wait longer: git config"
                " theta.transferTimeout SECONDS, 0 for ever)",
            )

    def report(self) -> bool:
        """Pass on what was done since the last call; whether that is progress.

        Raises:
            TransferError: an object is longer than it should be.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return False
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        finished = False
        for line in whole.split(b"\n"):
            fields = line.split(b" ", 3)
            done = fields[2].partition(b"/")[0] if len(fields) == 4 else b""
            if done.isdigit() and len(done) < 20:
                name = fields[3][-_NAME_BYTES:].decode("ascii", "replace")
                finished |= self._note(name, int(done))
        if finished or self._since >= _LEAST_BYTES:
            self._since = 0
            return True
        return False

    def _note(self, name: str, done: int) -> bool:
        """Note how far an object is; whether it is finished."""
        size = self._sizes.get(name)
        if size is not None and done > size:
            raise TransferError(
                f"the server sent more than the {size:,} bytes of object {name}, and the download"
                " was stopped"
            )
        count = done - self._done.get(name, 0)
        self._done[name] = done
        self._advance(count)
        self._since += max(count, 0)
        return done == size
