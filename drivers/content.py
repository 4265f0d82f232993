"""The content of a clean request, as it comes through the pipe."""

from __future__ import annotations

from typing import BinaryIO

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.drivers.pktline import MAX_PAYLOAD, PacketReader
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.manifest.model import HEAD_BYTES

WINDOW_BYTES = 256 << 10
"""Content compared at once: it and its mirror stay in the processor's cache."""


class Content:
    """The content that Git sends for a clean, read once, and compared with the work-tree file."""

    def __init__(self, reader: PacketReader) -> None:
        self._reader = reader
        self._ended = False
        self._window = bytearray(WINDOW_BYTES + MAX_PAYLOAD)
        self._filled = 0
        self._matched = 0
        self._fill(HEAD_BYTES)
        self.head = bytes(self._window[: min(self._filled, HEAD_BYTES)])

    def _fill(self, length: int = WINDOW_BYTES) -> None:
        """Have at least `length` bytes in the window, or all that is left."""
        view = memoryview(self._window)
        while self._filled < length and not self._ended:
            count = self._reader.packet_into(view[self._filled :])
            if count is None:
                self._ended = True
            else:
                self._filled += count

    def equals(self, source: FileSource) -> bool:
        """Whether the content is that of `source`; what was equal is forgotten."""
        mirror = bytearray(len(self._window))
        with memoryview(self._window) as window, memoryview(mirror) as copy:
            while True:
                self._fill()
                if not self._filled:
                    return self._matched == source.size
                if self._matched + self._filled > source.size:
                    return False
                source.read_into(self._matched, copy[: self._filled])
                # The windows are compared whole, as bytearrays: that is one memcmp.
                if self._filled < len(mirror):
                    copy[self._filled :] = window[self._filled :]
                if self._window != mirror:
                    return False
                self._matched += self._filled
                self._filled = 0

    def spool(self, file: BinaryIO, prefix: FileSource | None) -> None:
        """Write the whole content; `prefix` is the file that its first part was found equal to."""
        done = 0
        while prefix is not None and done < self._matched:
            length = min(WINDOW_BYTES, self._matched - done)
            file.write(prefix.read(done, length))
            done += length
        while self._filled:
            file.write(memoryview(self._window)[: self._filled])
            self._filled = 0
            self._fill()

    def read_all(self, limit: int) -> bytes:
        """The whole content, which must be no longer than `limit` bytes."""
        whole = bytearray()
        while self._filled and len(whole) <= limit:
            whole += memoryview(self._window)[: self._filled]
            self._filled = 0
            self._fill()
        if len(whole) > limit:
            raise ManifestError(f"begins like a manifest, but is longer than {limit} bytes")
        return bytes(whole)

    def drain(self) -> None:
        """Read what is left, so that the next request can be read."""
        while not self._ended:
            self._filled = 0
            self._fill(1)
