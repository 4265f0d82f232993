"""Pointers of git-lfs in histories: those that `git lfs smudge` (3.3) makes a file of."""

from __future__ import annotations

import pytest

from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.transfer.pointer_files import read_any_pointer

OID = "ab" * 32
REF = UpdateRef("lfs", OID, 7)
PLAIN = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 7\n".encode()
EXTENSION = b"ext-0-foo sha256:" + b"c" * 64 + b"\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.rstrip(),
        b"\n" + PLAIN + b"\n",
        PLAIN.replace(b"git-lfs", b"hawser"),
        PLAIN.replace(b"https://git-lfs.github.com/spec/v1", b"http://git-media.io/v/2"),
    ],
)
def test_what_git_lfs_reads_is_a_pointer(text: bytes) -> None:
    assert read_any_pointer(text) == (REF, False)
    assert read_any_pointer(text.replace(b"oid ", EXTENSION + b"oid ")) == (REF, True)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        PLAIN.replace(b"git-lfs", b"example"),
        PLAIN.replace(b"sha256", b"md5"),
        PLAIN.replace(b"size 7", b"size -7"),
        PLAIN.replace(b"size 7\n", b""),
        PLAIN + b"more 1\n",
        PLAIN.replace(b"oid ", b"other 1\noid "),
        PLAIN + b" " * 1024,
    ],
)
def test_other_files_are_none(text: bytes) -> None:
    assert read_any_pointer(text) is None
