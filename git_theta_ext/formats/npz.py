"""NumPy's .npz: a zip archive of .npy entries, stored or deflated.

Arrays in stored entries are tensors, named as `numpy.load` names them; CRC-32s are derived.
Deflated entries cannot be split: their bytes are kept in chunks cut by content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats import npy
from git_theta_ext.formats.base import Layout, Literal, Source, Span
from git_theta_ext.formats.layout.storages import Piece
from git_theta_ext.formats.layout.tiles import Names
from git_theta_ext.formats.zips.archive import STORED, Entry, read_entries
from git_theta_ext.formats.zips.build import Member, archive
from git_theta_ext.formats.zips.layout import Assembly

NAME = "npz"
_LOCAL_MAGIC = b"PK\x03\x04"
_SUFFIX = ".npy"
_OPAQUE_FROM = 4096
"""Smaller entries that are no array stay in the skeleton."""


def sniff(head: bytes, source: Source) -> bool:
    """Whether the file is a zip archive whose first entry is named as an array's."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(_LOCAL_MAGIC) and head[30 : 30 + length].endswith(_SUFFIX.encode())


def layout(source: Source) -> Layout:
    """Arrays as tensors, deflated entries as opaque bytes."""
    entries = read_entries(source)
    names = Names()
    pieces = [piece for entry in entries if (piece := _piece(source, entry, names)) is not None]
    return Layout(NAME, tuple(Assembly(source, entries, pieces).segments()))


def _piece(source: Source, entry: Entry, names: Names) -> Piece | None:
    """What an archive entry is: the values of an array, opaque bytes if it is large, or None."""
    name = entry.name.removesuffix(_SUFFIX)
    if entry.method == STORED:
        stop = entry.data_offset + entry.size
        try:
            start, tensor = npy.read_header(source, entry.data_offset, stop, name)
        except FormatError:
            tensor = None
        if tensor is not None and start + tensor.nbytes == stop and tensor.nbytes:
            info = TensorInfo(names.free(name), tensor.dtype, tensor.shape, tensor.order)
            return Piece(start, tensor.nbytes, Span(info))
    if entry.compressed < _OPAQUE_FROM:
        return None
    kind = "content" if entry.method == STORED else "compressed"
    info = TensorInfo(names.free(f"{name} ({kind})"), DTYPES["U8"], (entry.compressed,))
    return Piece(entry.data_offset, entry.compressed, Span(info, opaque=True))


def build(
    tensors: Mapping[str, TensorInfo],
    model: Layout | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Layout:
    """The layout of an archive of these arrays, stored; Fortran order is kept.

    There is no place for metadata in such a file.

    Raises:
        FormatError: NumPy has no such element type, or a name would leave the folder that somebody
            unpacks the archive into.
    """
    for name in tensors:
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or "\0" in name:
            raise FormatError(f"tensor {name!r}: that is no name for a member of an archive")
    members = [
        Member(
            f"{name}{_SUFFIX}", [Literal(npy.header(info)), *([Span(info)] if info.nbytes else [])]
        )
        for name, info in tensors.items()
    ]
    return Layout(NAME, archive(members))
