"""Packs of Git as a patch holds them: what is read of honest ones, and which are refused."""

from __future__ import annotations

import hashlib
import io
import zlib

import pytest

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.packages.patches import git_packs
from git_theta_ext.packages.patches.deltas import apply_delta
from git_theta_ext.packages.patches.git_packs import BLOB, PackReader, PackWriter


def name_of(data: bytes, kind: bytes = b"blob") -> str:
    return hashlib.sha1(b"%s %d\0" % (kind, len(data)) + data).hexdigest()


def entry(kind: int, size: int, content: bytes, base: bytes = b"") -> bytes:
    """An entry of a pack, which may say a size that is not its own."""
    return git_packs._head(kind, size) + base + zlib.compress(content)


def pack(*entries: bytes, count: int | None = None) -> bytes:
    data = b"PACK\0\0\0\2" + (len(entries) if count is None else count).to_bytes(4, "big")
    data += b"".join(entries)
    return data + hashlib.sha1(data).digest()


def copy_all(base: bytes) -> bytes:
    """A delta that makes of a base the base."""
    length = len(base)
    assert length < 128
    return bytes([length, length, 0x90, length])


BASE = b"what is there" * 3


def read(data: bytes) -> PackReader:
    return PackReader(io.BytesIO(b"lines\n\n" + data), 7, "sha1")


def test_what_is_written_is_read() -> None:
    contents = [b"", b"x", bytes(3 << 20), b"abc" * 1000]
    out = io.BytesIO()
    writer = PackWriter(out.write, len(contents), "sha1")
    names = [
        writer.add(BLOB, len(one), [one[:9], one[9:]], level)
        for level, one in zip((6, 0, 0, 6), contents, strict=True)
    ]
    writer.finish()
    assert names == [name_of(one) for one in contents]
    found = read(out.getvalue())
    assert [found.read(name, BLOB) for name in names] == contents
    digests = [hashlib.sha256(one).hexdigest() for one in contents]
    assert [b"".join(found.pieces(found.by_sha256[one])) for one in digests] == contents


def test_deltas_are_resolved_whatever_their_order_and_kept_with_their_bases() -> None:
    whole = entry(BLOB, len(BASE), BASE)
    longer = BASE + b"!"
    delta = bytes([len(BASE), len(longer), 0x90, len(BASE), 1]) + b"!"
    again = bytes([len(longer), len(longer) + 1, 0x90, len(longer), 1]) + b"?"
    at_last = entry(7, len(delta), delta, bytes.fromhex(name_of(BASE)))
    found = read(pack(at_last, whole))
    assert found.read(name_of(longer), BLOB) == longer
    first = entry(6, len(delta), delta, bytes([len(whole)]))
    found = read(pack(whole, first, entry(6, len(again), again, bytes([len(first)]))))
    assert found.read(name_of(longer + b"?"), BLOB) == longer + b"?"
    out = io.BytesIO()
    found.write_some([name_of(longer + b"?")], out.write)
    alone = read(out.getvalue())
    assert set(alone.entries) == {name_of(one) for one in (BASE, longer, longer + b"?")}
    # A blob that is stored as a delta is no object of ours, whatever it says.
    assert hashlib.sha256(longer).hexdigest() not in alone.by_sha256


REFUSED = {
    "no pack": b"JUNK" + pack(entry(BLOB, 1, b"x"))[4:],
    "another version": pack(entry(BLOB, 1, b"x")).replace(b"\0\0\0\2", b"\0\0\0\3", 1),
    "cut short": pack(entry(BLOB, 1, b"x"))[:-25],
    "a flipped bit": pack(entry(BLOB, 1, b"x"))[:-1] + b"\0",
    "more follows": pack(entry(BLOB, 1, b"x")) + b"more",
    "too many": pack(count=limits.PATCH_OBJECTS + 1),
    "fewer than it says": pack(entry(BLOB, 1, b"x"), count=2),
    "an unknown kind": pack(entry(5, 1, b"x")),
    "longer than it says": pack(entry(BLOB, 1, b"xy")),
    "shorter than it says": pack(entry(BLOB, 3, b"xy")),
    "a length without end": pack(b"\xff" * 30),
    "not deflated": pack(git_packs._head(BLOB, 3) + b"abc"),
    "its base is not there": pack(entry(7, 4, copy_all(BASE), bytes(20))),
    "its base lies before the pack": pack(entry(6, 4, copy_all(BASE), b"\x7f")),
    "deltas in a circle": pack(*[entry(7, 4, copy_all(BASE), bytes.fromhex(name_of(BASE)))] * 2),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_damaged_or_out_of_proportion_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read(data)


def test_what_unpacks_to_far_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATCH_INFLATED", 1 << 20)
    zeros, grown = bytes(1 << 20), bytes([len(BASE), 0x80, 0x80, 0x40]) + b"\x90\x24" * 29128
    assert read(pack(entry(BLOB, 1 << 20, zeros)))
    with pytest.raises(FormatError, match="far more"):
        read(pack(*[entry(BLOB, 1 << 20, zeros)] * 3))
    base = bytes.fromhex(name_of(BASE))
    with pytest.raises(FormatError, match=r"far more|makes"):
        read(pack(entry(BLOB, len(BASE), BASE), *[entry(7, len(grown), grown, base)] * 9))


def test_chains_of_deltas_have_an_end() -> None:
    one = entry(BLOB, len(BASE), BASE)
    entries, content = [one], BASE
    for number in range(limits.PATCH_DELTAS + 1):
        after = BASE[:-1] + bytes([number])
        delta = bytes([len(content), len(after), 0x90, len(BASE) - 1, 1, number])
        entries.append(entry(7, len(delta), delta, bytes.fromhex(name_of(content))))
        content = after
    assert read(pack(*entries[:-1])).read(name_of(BASE[:-1] + b"\x3f"), BLOB)
    with pytest.raises(FormatError, match="on each other"):
        read(pack(*entries))


@pytest.mark.parametrize(
    "delta",
    [
        b"",
        b"\x80" * 12,
        bytes([len(BASE) + 1, 1, 1, 65]),  # of another base
        bytes([len(BASE), 1, 0]),  # an instruction that means nothing
        bytes([len(BASE), 1, 0x91, 0x7F, 1]),  # copies from beyond the base
        bytes([len(BASE), 1, 5, 65]),  # inserts what is not there
        bytes([len(BASE), 1, 0x90]),  # cut short
        bytes([len(BASE), 1, 2, 65, 65]),  # makes more
        bytes([len(BASE), 3, 1, 65]),  # makes less
        bytes([len(BASE), 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1, 65]),  # promises 34 GB
    ],
)
def test_damaged_deltas_are_refused(delta: bytes) -> None:
    with pytest.raises(FormatError):
        apply_delta(BASE, delta)
