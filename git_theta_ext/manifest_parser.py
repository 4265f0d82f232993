"""Reads manifests: strict, one legal encoding, every error names its line."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import NoReturn

from git_theta_ext.errors import ManifestError
from git_theta_ext.manifest import (
    FIRST_LINE,
    Block,
    Entry,
    Manifest,
    UpdateRef,
    natural_key,
    quote,
    tree_digest,
)
from git_theta_ext.tensors import BLOCK_BYTES, DTYPES, INLINE_BYTES, DType, TensorInfo, cut

MAX_BYTES = 64 << 20
"""Longest manifest that is read; a checkpoint of ten thousand tensors needs 3 MB."""
_MAX_AXES = 64
_MAX_INT = 2**63 - 1

_NUMBER = "(?:0|[1-9][0-9]{0,18})"
_HASH = "sha256:([0-9a-f]{64})"
_FORMAT = re.compile(r"format ([a-z][a-z0-9-]*)")
_NAME = re.compile(r"(tensor|opaque) (.+)", re.DOTALL)
_HEAD = re.compile(
    rf"  ([A-Z][A-Z0-9_]*) \[({_NUMBER}(?:, {_NUMBER})*)?\](?: order=({_NUMBER}(?:,{_NUMBER})*))?"
    rf"(?: (?:{_HASH}|inline:((?:[0-9a-f]{{2}})*)))?"
)
_BLOCK = re.compile(rf"  block ({_NUMBER}) (?:{_HASH}|inline:((?:[0-9a-f]{{2}})*))")
_UPDATE = re.compile(rf"  ([a-z][a-z0-9-]*) {_HASH} ({_NUMBER})((?: [a-z-]+=[!-~]+)*)")
_CONFLICT = ("<<<<<<< ", "=======", ">>>>>>> ", "||||||| ")


def parse(text: bytes) -> Manifest:
    """Read a manifest; see `Manifest.parse`."""
    return _Parser(text).manifest()


class _Parser:
    def __init__(self, text: bytes) -> None:
        if not text.startswith(FIRST_LINE):
            first = text[:40].split(b"\n")[0].decode("utf-8", "replace")
            raise ManifestError(f"line 1: expected {FIRST_LINE.decode()[:-1]!r}, found {first!r}")
        if len(text) > MAX_BYTES:
            raise ManifestError(f"a manifest has at most {MAX_BYTES} bytes, this has {len(text)}")
        try:
            self._lines = text.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            line = text.count(b"\n", 0, error.start) + 1
            raise ManifestError(f"line {line}: not UTF-8") from error
        if self._lines.pop():
            raise ManifestError(f"line {len(self._lines) + 1}: the last line has no newline")
        self._position = 1

    def manifest(self) -> Manifest:
        format_name = self._match(_FORMAT, "'format NAME'").group(1)
        if self._next() != "skeleton":
            self._fail("'skeleton'")
        skeleton = self._skeleton()
        entries: list[Entry] = []
        keys: list[object] = []
        while self._position < len(self._lines):
            if self._next() != "":
                self._fail("an empty line between entries")
            entry = self._entry()
            key = natural_key(entry.tensor.name)
            if keys and not keys[-1] < key:  # type: ignore[operator]
                self._fail(f"a name that sorts after the one before {entry.tensor.name!r}")
            keys.append(key)
            entries.append(entry)
        return Manifest(format_name, skeleton, tuple(entries))

    # -- lines -----------------------------------------------------------------------------------

    def _next(self) -> str:
        if self._position >= len(self._lines):
            self._position += 1
            self._fail("more lines")
        line = self._lines[self._position]
        self._position += 1
        return line

    def _fail(self, expected: str) -> NoReturn:
        """Complain of the line that was read last."""
        number = self._position
        found = self._lines[number - 1][:80] if number <= len(self._lines) else "the end"
        if found.startswith(_CONFLICT):
            raise ManifestError(
                f"line {number}: the manifest has conflict markers from a text merge",
                hint="take one side: git checkout --ours -- FILE   (or --theirs), then git add",
            )
        raise ManifestError(f"line {number}: expected {expected}, found {found!r}")

    def _match(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        match = pattern.fullmatch(self._next())
        if match is None:
            self._fail(expected)
        return match

    def _number(self, text: str) -> int:
        value = int(text)
        if value > _MAX_INT:
            self._fail("a number below 2^63")
        return value

    # -- entries ---------------------------------------------------------------------------------

    def _skeleton(self) -> Block:
        tensor, digest, inline = self._head("skeleton")
        if tensor.dtype.name != "U8" or len(tensor.shape) != 1 or tensor.order is not None:
            self._fail("'U8 [LENGTH]'")
        return self._block(tensor.nbytes, digest, inline)

    def _entry(self) -> Entry:
        match = self._match(_NAME, "'tensor NAME' or 'opaque NAME'")
        opaque = match.group(1) == "opaque"
        tensor, digest, inline = self._head(self._name(match.group(2)))
        if opaque:
            return self._opaque(tensor, digest, inline)
        if tensor.nbytes // BLOCK_BYTES > len(self._lines):
            self._fail(f"blocks for {tensor.nbytes} bytes below")
        lengths = [spec.nbytes for spec in cut(tensor)]
        if len(lengths) == 1:
            return Entry(tensor, (self._block(lengths[0], digest, inline),))
        if digest is not None or inline is not None:
            self._fail(f"no hash: a tensor of {tensor.nbytes} bytes has {len(lengths)} blocks")
        return Entry(tensor, tuple(self._listed_block(range(n, n + 1)) for n in lengths))

    def _opaque(self, tensor: TensorInfo, digest: str | None, inline: bytes | None) -> Entry:
        if tensor.dtype.name != "U8" or len(tensor.shape) != 1 or tensor.order is not None:
            self._fail("'U8 [LENGTH]' of opaque bytes")
        if inline is not None:
            return Entry(tensor, (self._block(tensor.nbytes, digest, inline),), True)
        line, left, blocks = self._position, tensor.nbytes, []
        while left:
            block = self._listed_block(range(1, left + 1))
            left -= block.nbytes
            blocks.append(block)
        if not blocks or tree_digest(blocks) != digest:
            self._position = line
            self._fail("the hash of the hashes of the chunks below")
        return Entry(tensor, tuple(blocks), True)

    def _name(self, text: str) -> str:
        name = text
        if text.startswith('"'):
            try:
                name = json.loads(text)
            except (ValueError, RecursionError):
                self._fail("a name in JSON's quotes")
        if not isinstance(name, str) or quote(name) != text:
            self._fail("a name in its one legal spelling")
        return name

    def _head(self, name: str) -> tuple[TensorInfo, str | None, bytes | None]:
        match = self._match(_HEAD, "'DTYPE [SHAPE] sha256:HASH' or 'DTYPE [SHAPE] inline:HEX'")
        dtype, shape, order, digest, inline = match.groups()
        if dtype not in DTYPES:
            self._fail("a dtype known to this version")
        axes = [self._number(axis) for axis in shape.split(", ")] if shape else []
        tensor = TensorInfo(name, DTYPES[dtype], tuple(axes), self._order(order, len(axes)))
        if len(axes) > _MAX_AXES or not _fits(tensor.dtype, axes):
            self._fail(f"at most {_MAX_AXES} axes and 2^63 bytes")
        return tensor, digest, None if inline is None else bytes.fromhex(inline)

    def _order(self, text: str | None, axes: int) -> tuple[int, ...] | None:
        if text is None:
            return None
        order = tuple(int(axis) for axis in text.split(","))
        if sorted(order) != list(range(axes)) or list(order) == sorted(order):
            self._fail(f"an order of {axes} axes that is not row-major")
        return order

    # -- blocks ----------------------------------------------------------------------------------

    def _block(self, nbytes: int, digest: str | None, inline: bytes | None) -> Block:
        """The block whose line was just read: with its bytes, or with the chain that follows."""
        if inline is not None:
            if len(inline) != nbytes or nbytes > INLINE_BYTES:
                self._fail(f"{nbytes} bytes, at most {INLINE_BYTES} of them inline")
            return Block(nbytes, hashlib.sha256(inline).hexdigest(), (), inline)
        if digest is None or nbytes <= INLINE_BYTES:
            self._fail(f"sha256:HASH for more than {INLINE_BYTES} bytes, inline:HEX for fewer")
        return Block(nbytes, digest, self._chain())

    def _listed_block(self, lengths: range) -> Block:
        """One of several blocks, on a line of its own, of one of these lengths."""
        expected = f"a block of {lengths[0]} to {lengths[-1]} bytes"
        match = self._match(_BLOCK, f"'block LENGTH sha256:HASH', {expected}")
        length, digest, inline = match.groups()
        nbytes = self._number(length)
        if nbytes not in lengths:
            self._fail(expected)
        return self._block(nbytes, digest, None if inline is None else bytes.fromhex(inline))

    def _chain(self) -> tuple[UpdateRef, ...]:
        chain = [self._update()]
        while self._position < len(self._lines) and self._more_updates():
            chain.append(self._update())
        return tuple(chain)

    def _more_updates(self) -> bool:
        line = self._lines[self._position]
        return line.startswith("  ") and not line.startswith("  block ")

    def _update(self) -> UpdateRef:
        match = self._match(_UPDATE, "'KIND sha256:HASH SIZE'")
        kind, oid, size, info = match.groups()
        pairs = tuple(_pair(item) for item in info.split())
        return UpdateRef(kind, oid, self._number(size), pairs)


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    return key, value


def _fits(dtype: DType, axes: list[int]) -> bool:
    # A zero axis makes the product zero, but the others must be reasonable all the same.
    return math.prod(axis or 1 for axis in axes) * dtype.bits < 2**63
