"""Git's pkt-line framing, on byte streams: four hexadecimal digits of length, then the payload.

Source: gitprotocol-common(5) and gitattributes(5), "Long Running Filter Process".
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterator
from typing import BinaryIO

from git_theta_ext.core.errors import ProtocolError

MAX_PAYLOAD = 65516
"""Bytes of payload that one packet may carry."""

_GATHER_BYTES = 1 << 20


class PacketReader:
    """Reads packets from a buffered stream that supports `readinto`."""

    def __init__(self, stream: BinaryIO) -> None:
        """`stream` should be buffered: the header of a packet is four bytes."""
        self._stream = stream
        self._buffer = bytearray(MAX_PAYLOAD)

    def packet_into(self, buffer: memoryview) -> int | None:
        """Read the next packet's payload into `buffer`; its length, or None for a flush packet.

        `buffer` must have room for `MAX_PAYLOAD` bytes.

        Raises:
            EOFError: the stream ended between packets.
            ProtocolError: it ended within one, or the length is none that the protocol allows.
        """
        header = self._stream.read(4)
        if not header:
            raise EOFError
        if header == b"0000":
            return None
        try:
            length = int.from_bytes(unhexlify(header), "big") - 4
        except ValueError:
            length = -1
        if len(header) < 4 or not 0 < length <= MAX_PAYLOAD:
            raise ProtocolError(f"Git sent a packet of length {header!r}")
        filled = 0
        while filled < length:
            count = self._stream.readinto(buffer[filled:length])  # type: ignore[attr-defined]
            if not count:
                raise ProtocolError("Git's stream ended in the middle of a packet")
            filled += count
        return length

    def packet(self) -> memoryview | None:
        """The payload of the next packet, valid until the next call; None for a flush packet.

        Raises:
            EOFError, ProtocolError: see `packet_into`.
        """
        view = memoryview(self._buffer)
        length = self.packet_into(view)
        return None if length is None else view[:length]

    def lines(self) -> list[bytes]:
        """The text lines up to a flush packet, without their newlines.

        Raises:
            EOFError: the stream ended before the first of them.
        """
        found = []
        while (payload := self.packet()) is not None:
            found.append(bytes(payload).removesuffix(b"\n"))
        return found

    def content(self) -> Iterator[memoryview]:
        """The packets up to a flush packet; each is valid until the next is asked for."""
        while (payload := self.packet()) is not None:
            yield payload


class PacketWriter:
    """Writes packets, gathered so that a gigabyte does not take thousands of small writes."""

    def __init__(self, stream: BinaryIO) -> None:
        """`stream` is flushed whenever something is sent."""
        self._stream = stream
        self._pending = bytearray()

    def lines(self, *lines: bytes) -> None:
        """Write text lines, then a flush packet."""
        for line in lines:
            self.write(line + b"\n")
        self.flush()

    def write(self, data: bytes | memoryview) -> None:
        """Write data as packets."""
        view = memoryview(data)
        for start in range(0, len(view), MAX_PAYLOAD):
            payload = view[start : start + MAX_PAYLOAD]
            self._pending += b"%04x" % (len(payload) + 4)
            self._pending += payload
            if len(self._pending) >= _GATHER_BYTES:
                self._send()

    def flush(self) -> None:
        """Write a flush packet and send everything."""
        self._pending += b"0000"
        self._send()

    def _send(self) -> None:
        try:
            with memoryview(self._pending) as whole:
                sent = 0
                while sent < len(whole):
                    sent += self._stream.write(whole[sent:])
            self._stream.flush()
        except BrokenPipeError:
            raise  # Git has ended: nobody is there to be told
        except OSError as error:
            # What Git got of the packet is not known, so nothing else can be said to it.
            raise ProtocolError(f"cannot write to Git: {error.strerror or error}") from error
        self._pending.clear()
