"""Files that PyTorch and DeepSpeed wrote, as the scripts in `tests/golden` kept them."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path

_GOLDEN = Path(__file__).parents[1] / "golden"


@cache
def torch_files() -> dict[str, bytes]:
    """All of them, by their paths."""
    found = {}
    for name in ("torch_files.tar.xz", "zero.tar.xz"):
        with tarfile.open(_GOLDEN / name) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found
