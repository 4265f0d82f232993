"""Folders of arrays that Orbax, TensorStore and zarr wrote, and nodes of OCDBT made by hand."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path

from tests.scenarios.containers import crc32c

_ARCHIVE = Path(__file__).parents[1] / "golden/arrays.tar.xz"
MANIFEST, NODE = 0x0CDB3A2A, 0x0CDB20DE


@cache
def array_files() -> dict[str, bytes]:
    """All files of `tests/golden/arrays.tar.xz`, by their paths."""
    with tarfile.open(_ARCHIVE) as archive:
        members = [(member, archive.extractfile(member)) for member in archive]
        return {member.name: file.read() for member, file in members if file is not None}


def below(folder: str) -> dict[str, bytes]:
    """The files below a folder, by their paths from it."""
    prefix = f"{folder}/"
    files = array_files().items()
    return {path.removeprefix(prefix): data for path, data in files if path.startswith(prefix)}


def frame(body: bytes, magic: int = NODE, packed: int = 0) -> bytes:
    """A node or a manifest around a body, with its checksum."""
    head = magic.to_bytes(4, "big") + (len(body) + 18).to_bytes(8, "little") + bytes([0, packed])
    return head + body + crc32c(head + body).to_bytes(4, "little")


def varint(value: int) -> bytes:
    """A number as protocol buffers write it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def manifest(length: int, height: int = 0, file: bytes = b"d/" + b"0" * 32) -> bytes:
    """A manifest whose root is the first node of a file."""
    config = bytes(16) + b"\0\x08\x7f\x04\0"
    table = b"\1" + varint(len(file)) + b"\0" + file
    version = b"\1\1" + bytes([height]) + b"\0\0" + varint(length) + b"\0\0\0" + bytes(8)
    return frame(config + table + version + b"\0", MANIFEST)


def leaf(entries: dict[bytes, bytes]) -> bytes:
    """A node of values that stand in it, without any file."""
    count = varint(len(entries))
    keys = b"".join(map(varint, [0] * (len(entries) - 1))) + b"".join(
        varint(len(key)) for key in entries
    )
    sizes = b"".join(varint(len(value)) for value in entries.values())
    body = b"".join(entries) + sizes + bytes(len(entries)) + b"".join(entries.values())
    return frame(b"\0\0" + count + keys + body)
