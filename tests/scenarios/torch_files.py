"""Files that PyTorch itself wrote, as `tests/golden/make_torch_files.py` kept them."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path

_ARCHIVE = Path(__file__).parents[1] / "golden/torch_files.tar.xz"


@cache
def torch_files() -> dict[str, bytes]:
    """All of them, by their paths."""
    found = {}
    with tarfile.open(_ARCHIVE) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found
