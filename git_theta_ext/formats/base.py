"""The contract of a container format: bytes in, a layout that tiles them out.

A *layout* is an ordered tuple of segments that covers the file from its first byte to its last
with no gap and no overlap. Whatever is not a tensor's bytes is the *skeleton*: literal bytes, and
fields that are a function of other bytes. A file is rebuilt by walking its layout and writing; that
needs no format module, no framework, and cannot be anything but byte-exact.

The law that `formats.read_layout` checks for every format, before a layout is used:

    b"".join(bytes of every segment of layout(source)) == all bytes of source

so a mistake in a format costs space (the file becomes opaque), never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from git_theta_ext.core.tensors import TensorInfo


class Source(Protocol):
    """Random access to the bytes of a file that does not change while it is read."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            FormatError: the range is not inside the file.
            ChangedWhileReadError: the file became shorter since it was opened.
        """
        ...


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are kept as they are: headers, pickles, zip directories, padding."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of one tensor.

    `opaque` marks bytes of unknown meaning (dtype U8, one axis) that are cut into content-defined
    chunks instead of rows, and that must never be merged piece by piece.
    """

    tensor: TensorInfo
    opaque: bool = False


@dataclass(frozen=True, slots=True)
class Crc32:
    """Four bytes: the little-endian CRC-32 of the segments `first` (included) to `stop` (not).

    The range may lie before or after the field, must not contain it, and holds only literals and
    spans. A format uses it only where the stored value agrees with the bytes; otherwise the
    field stays literal.
    """

    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class SerializationId:
    """Twenty decimal digits that PyTorch derives from CRC-32s.

    A fold, modulo 2^64, from h = 0: `h ^= crc + 0x9e3779b9 + (h << 6) + (h >> 2)`. `crcs` are its
    inputs in order: either the range of segments whose CRC-32 it is, as in `Crc32`, or the value.
    """

    crcs: tuple[tuple[int, int] | int, ...]


Segment = Literal | Span | Crc32 | SerializationId


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is made up. `aliases` maps further names of a tensor (ties) to its span's name.

    `ties` has the names that no span has: what such a tensor is, where it has all bytes of its
    span; None where it is another view of them, such as a part. Few containers tell. `remark` says
    what limit is why a file is opaque, or why tensors are without their names.
    """

    format: str
    segments: tuple[Segment, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    remark: str = field(default="", compare=False)
    ties: Mapping[str, TensorInfo | None] = field(default_factory=dict, compare=False)


class Format(Protocol):
    """One container: what a module of `formats` offers, and the registry names."""

    def sniff(self, head: bytes, source: Source) -> bool:
        """Whether the content looks like this container; cheap. `head` is the first 512 bytes."""
        ...

    def layout(self, source: Source) -> Layout:
        """The layout of the file.

        Raises:
            FormatError: the structure is damaged, hostile, compressed, or past a limit. The
                message names the tensor or record, the offset, what was expected and found.
        """
        ...


Build = Callable[[Mapping[str, TensorInfo], Layout | None, Mapping[str, str] | None], Layout]
"""Make a layout for these tensors, in this order, after the model of an existing layout, with these
metadata: what the modules of `formats.BUILDERS` offer."""
