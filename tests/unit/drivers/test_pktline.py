"""pkt-lines on byte streams."""

from __future__ import annotations

import errno
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_ext.core.errors import ProtocolError
from git_theta_ext.drivers.pktline import MAX_PAYLOAD, PacketReader, PacketWriter


def written(*chunks: bytes) -> bytes:
    stream = io.BytesIO()
    writer = PacketWriter(stream)
    for chunk in chunks:
        writer.write(chunk)
    writer.flush()
    return stream.getvalue()


def test_the_framing_is_gits() -> None:
    assert written(b"hi\n") == b"0007hi\n0000"
    assert written() == b"0000"


@given(st.lists(st.binary(max_size=3000), max_size=5))
def test_content_comes_back(chunks: list[bytes]) -> None:
    reader = PacketReader(io.BytesIO(written(*chunks)))
    assert b"".join(bytes(part) for part in reader.content()) == b"".join(chunks)


def test_large_content_is_cut_into_packets() -> None:
    data = bytes(range(256)) * 1000
    stream = written(data)
    assert stream[:4] == b"%04x" % (MAX_PAYLOAD + 4)
    assert b"".join(map(bytes, PacketReader(io.BytesIO(stream)).content())) == data


def test_lines_lose_their_newlines() -> None:
    stream = io.BytesIO()
    PacketWriter(stream).lines(b"a=1", b"b=2")
    stream.seek(0)
    assert PacketReader(stream).lines() == [b"a=1", b"b=2"]


def test_the_end_between_packets_is_the_end() -> None:
    with pytest.raises(EOFError):
        PacketReader(io.BytesIO(b"")).packet()


@pytest.mark.parametrize(
    "stream",
    [b"00", b"zzzz", b"0003", b"0004", b"fff5", b"ffff" + b"x" * 70000, b"0009hi", b"-001"],
    ids=["short", "no-hex", "three", "four", "too-long", "longest", "cut", "negative"],
)
def test_what_is_no_packet_is_refused(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        PacketReader(io.BytesIO(stream)).packet()


@given(st.binary(max_size=200))
def test_any_bytes_end_in_packets_or_an_error(stream: bytes) -> None:
    reader = PacketReader(io.BytesIO(stream))
    try:
        while True:
            reader.packet()
    except (EOFError, ProtocolError):
        pass


class _Failing(io.BytesIO):
    """A pipe that cannot be written to."""

    def write(self, data: object) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_what_cannot_be_sent_ends_the_conversation() -> None:
    with pytest.raises(ProtocolError, match="cannot write to Git: Input/output error"):
        PacketWriter(_Failing()).lines(b"status=success")
