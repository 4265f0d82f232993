"""`git-lfs-transfer`: LFS over SSH alone, objects in the same connection as the questions.

Written from git-lfs, docs/proposals/ssh_adapter.md (version 1): pkt-lines on stdin and stdout; each
message ends with a flush packet, and a delimiter parts its arguments from its data.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

_OID = re.compile(r"[0-9a-f]{64}")
_MAX_DATA = 65516


class Session:
    """One connection: reads commands until `quit` or the end."""

    def __init__(self, store: Path, reader: BinaryIO, writer: BinaryIO) -> None:
        self._store = store
        self._reader = reader
        self._writer = writer

    def run(self) -> None:
        """Answer every command."""
        self._say(["version=1"])
        while (message := self._message()) is not None:
            words, arguments, data = message
            name, _, rest = words.partition(" ")
            if name == "quit":
                self._say(["status 200"])
                return
            if name == "version":
                self._say(["status 200"])
            elif name == "batch":
                self._batch(data, arguments)
            elif name in ("put-object", "verify-object", "get-object") and _OID.fullmatch(rest):
                getattr(self, "_" + name.replace("-", "_"))(rest, arguments, data)
            else:
                self._say(["status 405"], b"unknown command")

    # -- commands ----------------------------------------------------------------------------------

    def _batch(self, data: bytes, arguments: dict[str, str]) -> None:
        del arguments
        lines = []
        for line in data.decode("ascii").splitlines():
            oid, size = line.split()[:2]
            there = self._path(oid).is_file()
            if os.environ["LFS_OPERATION"] == "upload":
                action = "noop" if there else "upload"
            else:
                action = "download" if there else "noop"
            lines.append(f"{oid} {size} {action}\n".encode())
        self._say(["status 200"], lines)

    def _put_object(self, oid: str, arguments: dict[str, str], data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != oid or len(data) != int(arguments["size"]):
            self._say(["status 400"], b"wrong hash or size")
            return
        path = self._path(oid)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{oid}.{os.getpid()}")
        temporary.write_bytes(data)
        os.replace(temporary, path)
        self._say(["status 200"])

    def _verify_object(self, oid: str, arguments: dict[str, str], data: bytes) -> None:
        del data
        path = self._path(oid)
        whole = path.is_file() and path.stat().st_size == int(arguments["size"])
        self._say(["status 200" if whole else "status 404"])

    def _get_object(self, oid: str, arguments: dict[str, str], data: bytes) -> None:
        del arguments, data
        path = self._path(oid)
        if path.is_file():
            content = path.read_bytes()
            self._say(["status 200", f"size={len(content)}"], content)
        else:
            self._say(["status 404"], b"not here")

    def _path(self, oid: str) -> Path:
        return self._store / "objects" / oid[:2] / oid[2:4] / oid

    # -- pkt-lines ---------------------------------------------------------------------------------

    def _message(self) -> tuple[str, dict[str, str], bytes] | None:
        """The next command: its words, its arguments, its data; None at the end."""
        head: list[str] = []
        data = bytearray()
        in_data = False
        while length := self._reader.read(4):
            number = int(length, 16)
            if number == 0:
                arguments = dict(item.partition("=")[::2] for item in head[1:])
                return head[0], arguments, bytes(data)
            if number == 1:
                in_data = True
                continue
            packet = self._reader.read(number - 4)
            if in_data:
                data += packet
            else:
                head.append(packet.decode("utf-8").rstrip("\n"))
        return None

    def _say(self, lines: Iterable[str], data: bytes | list[bytes] | None = None) -> None:
        for line in lines:
            self._packet(f"{line}\n".encode())
        if data is not None:
            self._writer.write(b"0001")
            pieces = data
            if isinstance(data, bytes):
                pieces = [data[at : at + _MAX_DATA] for at in range(0, len(data), _MAX_DATA)]
            for piece in pieces:
                self._packet(piece)
        self._writer.write(b"0000")
        self._writer.flush()

    def _packet(self, data: bytes) -> None:
        self._writer.write(b"%04x" % (len(data) + 4) + data)
