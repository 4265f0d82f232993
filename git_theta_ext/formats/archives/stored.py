"""zip archives of checkpoints that are stored, not deflated: TorchServe's `.mar`, and others.

Each stored member is split as it is alone; CRC-32s are derived. Deflated ones are chunked. Sources:
PKWARE's APPNOTE 6.3.10; pytorch/serve, model-archiver (`zip-store`).
"""

from __future__ import annotations

from collections.abc import Iterator

from git_theta_ext.formats.archives.members import Members
from git_theta_ext.formats.archives.tar import Member
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.zips.archive import STORED, read_entries
from git_theta_ext.formats.zips.layout import Assembly

NAME = "zip"
_LOCAL_MAGIC = b"PK\x03\x04"


def sniff(head: bytes, source: Source) -> bool:
    """The beginning of any zip archive; PyTorch's, NumPy's and Keras' are tried before."""
    return head.startswith(_LOCAL_MAGIC)


def members(source: Source) -> Iterator[Member]:
    """Every entry of an archive, in order.

    Raises:
        FormatError: it is damaged.
    """
    for entry in read_entries(source):
        yield Member(entry.name, entry.data_offset, entry.compressed)


def layout(source: Source) -> Layout:
    """The layouts of all stored members that are containers; tensors are called `MEMBER/TENSOR`.

    Raises:
        FormatError: damaged, past a limit, or without such a member.
    """
    found = Members(source, summed=True)
    entries = read_entries(source)
    for entry in entries:
        stored = entry.method == STORED
        found.add(entry.name, entry.data_offset, entry.compressed, plain=stored)
    return found.layout(NAME, Assembly(source, entries, found.pieces).segments())
