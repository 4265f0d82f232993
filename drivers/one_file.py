"""The filter's streams for a client that starts one process a file: `clean` and `smudge` commands.

Source: gitattributes(5), "filter": the content comes on standard input, what it becomes goes to
standard output, and the exit status says whether it counts. Git itself has no use for these where
`process` is set, whatever that holds; JGit knows only these.
"""

from __future__ import annotations

from typing import BinaryIO

from git_theta_ext.drivers.pktline import MAX_PAYLOAD, PacketReader, PacketWriter

COMMANDS = ("clean", "smudge")


class WholeInput(PacketReader):
    """Reads a stream to its end as if it came in packets."""

    def __init__(self, stream: BinaryIO) -> None:
        """`stream` should be buffered."""
        super().__init__(stream)
        self._whole = stream

    def packet_into(self, buffer: memoryview) -> int | None:
        """Fill `buffer` with the next bytes; how many, or None at the end."""
        return self._whole.readinto(buffer[:MAX_PAYLOAD]) or None  # type: ignore[attr-defined]


class PlainOutput(PacketWriter):
    """Writes the content of an answer as it is, and keeps its last status."""

    def __init__(self, stream: BinaryIO) -> None:
        """`stream` gets nothing before the content: all of it counts, or none, by the status."""
        super().__init__(stream)
        self._plain = stream
        self.status = b""

    @property
    def succeeded(self) -> bool:
        """Whether what was written is the answer."""
        return self.status == b"status=success"

    def lines(self, *lines: bytes) -> None:
        """Take note of a status."""
        self.status = lines[-1] if lines else self.status

    def write(self, data: bytes | memoryview) -> None:
        """Write content.

        Raises:
            OSError: the client has closed its end, or the disk that it writes to is full.
        """
        with memoryview(data) as whole:
            sent = 0
            while sent < len(whole):
                sent += self._plain.write(whole[sent:])

    def flush(self) -> None:
        """Nothing is held back."""
