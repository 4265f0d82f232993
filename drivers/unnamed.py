"""Which file a client cleans that does not say so, as dulwich does: told by the content."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.drivers.content import WINDOW_BYTES
from git_theta_ext.formats.layout.source import FileSource


def path_of(content: FileSource, top: Path, paths: Iterable[str]) -> str:
    """The first path whose file holds just this content; the empty string if none does.

    What is found decides only what the content is compared with, never what is stored.

    Args:
        content: what is cleaned.
        top: the folder that the paths count from.
        paths: those of tracked files.
    """
    return next((path for path in paths if _is_in(content, top / path)), "")


def _is_in(content: FileSource, path: Path) -> bool:
    with suppress(OSError, ThetaError):  # it may become shorter meanwhile
        if os.path.islink(path) or os.stat(path).st_size != content.size:
            return False
        with FileSource(path) as file:
            spans = range(0, content.size, WINDOW_BYTES)
            lengths = ((at, min(WINDOW_BYTES, content.size - at)) for at in spans)
            return all(content.read(*span) == file.read(*span) for span in lengths)
    return False
