"""Keras 3's `.keras`: a zip archive with the weights as HDF5 inside.

The datasets of a stored HDF5 entry are tensors, named by their paths in it; CRC-32s are derived. A
deflated one is kept in chunks cut by content. Source: keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.hdf5 import container
from git_theta_ext.formats.layout.source import PartSource
from git_theta_ext.formats.layout.storages import Piece
from git_theta_ext.formats.layout.tiles import assemble
from git_theta_ext.formats.zips.archive import STORED, Entry, read_entries
from git_theta_ext.formats.zips.layout import Assembly

NAME = "keras"
_LOCAL_MAGIC = b"PK\x03\x04"
_SUFFIX = ".h5"
_MEMBERS = ("metadata.json", "config.json")


def sniff(head: bytes, source: Source) -> bool:
    """A zip archive that begins with one of Keras' own files."""
    length = int.from_bytes(head[26:28], "little")
    name = head[30 : 30 + length].decode("latin-1")
    return head.startswith(_LOCAL_MAGIC) and (name in _MEMBERS or name.endswith(_SUFFIX))


def layout(source: Source) -> Layout:
    """The datasets of the HDF5 entries; those of a second one are called `ENTRY/PATH`.

    Raises:
        FormatError: there is no HDF5 entry, or the archive is damaged.
    """
    entries = read_entries(source)
    weights = [entry for entry in entries if entry.name.endswith(_SUFFIX) and entry.compressed]
    if not weights:
        raise FormatError("keras: no entry with weights")
    pieces: list[Piece] = []
    aliases: dict[str, str] = {}
    for number, entry in enumerate(weights):
        prefix = f"{entry.name}/" if number else ""
        found, names = _pieces(source, entry, prefix)
        pieces += found
        aliases |= names
    return Layout(NAME, tuple(Assembly(source, entries, pieces).segments()), aliases)


def _pieces(source: Source, entry: Entry, prefix: str) -> tuple[list[Piece], dict[str, str]]:
    if entry.method == STORED:
        part = PartSource(source, entry.data_offset, entry.data_offset + entry.size)
        try:
            found, names = container.read_pieces(part, prefix)
            assemble(part, found)
        except FormatError:
            pass
        else:
            moved = [Piece(p.offset + entry.data_offset, p.length, p.span) for p in found]
            return moved, dict(names)
    kind = "content" if entry.method == STORED else "compressed"
    info = TensorInfo(f"{entry.name} ({kind})", DTYPES["U8"], (entry.compressed,))
    return [Piece(entry.data_offset, entry.compressed, Span(info, opaque=True))], {}
