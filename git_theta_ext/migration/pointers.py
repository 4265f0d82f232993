"""Pointers of git-lfs in histories: all that git-lfs reads, not only what it writes. Pure.

It reads line ends of Windows, a missing last line end, and the names that the format had before. A
pointer that is taken for a plain file would be moved in place of the file that it stands for.
"""

from __future__ import annotations

import re

from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES

_VERSIONS = frozenset({
    b"https://git-lfs.github.com/spec/v1", b"https://hawser.github.com/spec/v1",
    b"http://git-media.io/v/2",
})  # fmt: skip
_OID = re.compile(rb"sha256:([0-9a-f]{64})")
_SIZE = re.compile(rb"[0-9]{1,18}")


def read_any_pointer(text: bytes) -> tuple[UpdateRef, bool] | None:
    """The object that a pointer names, and whether it has extensions; None for any other file.

    The object of one with extensions is not the file: their programs make that from it.
    """
    if len(text) > POINTER_BYTES:
        return None
    fields: list[tuple[bytes, bytes]] = []
    for line in text.strip().split(b"\n"):
        key, _, value = line.removesuffix(b"\r").partition(b" ")
        if key:
            fields.append((key, value))
    keys = [key for key, _ in fields]
    if keys[:1] != [b"version"] or keys[-2:] != [b"oid", b"size"] or fields[0][1] not in _VERSIONS:
        return None
    extensions = keys[1:-2]
    oid, nbytes = _OID.fullmatch(fields[-2][1]), _SIZE.fullmatch(fields[-1][1])
    if oid is None or nbytes is None or not all(one.startswith(b"ext-") for one in extensions):
        return None
    return UpdateRef("lfs", oid[1].decode("ascii"), int(nbytes[0])), bool(extensions)
