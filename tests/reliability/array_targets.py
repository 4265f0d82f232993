"""What is fuzzed of Zarr, N5 and OCDBT: chunks by what lies beside them, and trees."""

from __future__ import annotations

from contextlib import suppress

from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.arrays import ocdbt
from tests.scenarios.array_files import MANIFEST, below, frame

BESIDE = {
    "zarr-2-beside": ("w/0.0", "w/.zarray"),
    "zarr-3-beside": ("w/c/0/0", "w/zarr.json"),
    "n5-beside": ("w/0/0", "w/attributes.json"),
}
"""Where a chunk lies, and what describes it."""

_SEEDS = {
    "zarr-2-beside": (("store2", "model/tiles"), ("store2", "model/big")),
    "zarr-3-beside": (("store3", "shards"), ("store3", "packed"), ("store3", "turned")),
    "n5-beside": (("blocks.n5", "matrix"),),
}


def beside_seeds(name: str) -> list[bytes]:
    """Two bytes of length, the file that describes a chunk, and the chunk."""
    path, wanted = (one.removeprefix("w/") for one in BESIDE[name])
    found = []
    for store, array in _SEEDS[name]:
        files = below(f"{store}/{array}")
        found.append(len(files[wanted]).to_bytes(2, "little") + files[wanted] + files[path])
    return found


def tree_seeds() -> list[bytes]:
    """Two bytes of length, the body of a manifest, and that of a node."""
    files = below("database")
    root = ocdbt.body_of(files["manifest.ocdbt"])
    bodies = map(ocdbt.body_of, nodes()[:4])
    return [len(root).to_bytes(2, "little") + root + body for body in bodies]


def nodes() -> list[bytes]:
    """Files of one node."""
    files = below("database")
    return [data for data in files.values() if _is_node(data)]


def _is_node(data: bytes) -> bool:
    try:
        ocdbt.body_of(data)
    except FormatError:
        return False
    return ocdbt.begins(data[:4])


def tree(data: bytes) -> None:
    """Read a tree all of whose nodes have one body; the checksums are right."""
    length = int.from_bytes(data[:2], "little")
    node = frame(data[2 + length :])

    def read(file: str, offset: int, length: int) -> bytes:
        return node

    with suppress(FormatError):
        for _ in ocdbt.values(frame(data[2 : 2 + length], MANIFEST), read):
            pass
