"""Layouts of containers without checksums: spans where the tensors lie, literals in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Literal, Segment, Source, Span
from git_theta_ext.formats.layout.storages import Piece

OPAQUE_FROM = 1 << 20
"""A longer run of bytes that is no tensor may be cut into chunks, not kept literal."""


def tile(name: str, source: Source, tensors: Iterable[tuple[int, TensorInfo]]) -> Layout:
    """The layout of a file in which tensors lie at these offsets and all else is literal.

    Empty tensors have no bytes and are left out. Names that come twice are numbered.

    Raises:
        FormatError: see `assemble`.
    """
    return Layout(name, assemble(source, _named(tensors, Names())))


def tile_with_gaps(name: str, source: Source, tensors: Iterable[tuple[int, TensorInfo]]) -> Layout:
    """As `tile`, but long runs of bytes between the tensors are opaque, not literal.

    Raises:
        FormatError: see `assemble`.
    """
    names = Names()
    pieces = _named(tensors, names)
    return Layout(name, assemble(source, [*pieces, *gaps(source, pieces, names)]))


def _named(tensors: Iterable[tuple[int, TensorInfo]], names: Names) -> list[Piece]:
    """Tensors with bytes, by their offsets, each with a name of its own."""
    pieces = []
    for offset, tensor in sorted(tensors, key=lambda item: item[0]):
        if tensor.nbytes:
            named = TensorInfo(names.free(tensor.name), tensor.dtype, tensor.shape, tensor.order)
            pieces.append(Piece(offset, tensor.nbytes, Span(named)))
    return pieces


def gaps(
    source: Source, pieces: Sequence[Piece], names: Names, prefix: str = ""
) -> Iterator[Piece]:
    """Opaque spans for what lies between the pieces (sorted) where that is long.

    Args:
        source: the file.
        pieces: sorted by offset, without overlap; offsets and lengths in bytes.
        names: those in use; each gap gets a free one.
        prefix: put before the names.
    """
    position = 0
    for offset, length in [*((piece.offset, piece.length) for piece in pieces), (source.size, 0)]:
        if offset - position >= OPAQUE_FROM:
            size = offset - position
            info = TensorInfo(names.free(f"{prefix}(content)"), DTYPES["U8"], (size,))
            yield Piece(position, size, Span(info, opaque=True))
        position = offset + length


def assemble(source: Source, pieces: Iterable[Piece]) -> tuple[Segment, ...]:
    """Segments that tile the file: the spans of `pieces`, and all other bytes as literals.

    Raises:
        FormatError: tensors overlap or leave the file, or more than 64 MiB lie in none.
    """
    ordered = sorted(pieces, key=lambda piece: (piece.offset, piece.length))
    literal = source.size - sum(piece.length for piece in ordered)
    if literal > limits.STRUCTURE_BYTES:
        raise BoundError(
            f"{literal} bytes lie outside all tensors; at most {limits.STRUCTURE_BYTES} are kept"
        )
    segments: list[Segment] = []
    position = 0
    for piece in ordered:
        if piece.offset < position:
            raise FormatError(
                f"tensor {piece.span.tensor.name!r} begins at offset {piece.offset}, inside its "
                f"neighbour, which ends at {position}"
            )
        if piece.offset > position:
            segments.append(Literal(source.read(position, piece.offset - position)))
        segments.append(piece.span)
        position = piece.offset + piece.length
    if position > source.size:
        raise FormatError(f"a tensor ends at offset {position} of a file of {source.size} bytes")
    if position < source.size:
        segments.append(Literal(source.read(position, source.size - position)))
    return tuple(segments)


class Names:
    """Gives every tensor a name of its own: `w`, then `w#2`, `w#3`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def free(self, wanted: str) -> str:
        """`wanted`, or that with the first number that makes it new; never empty."""
        wanted = wanted or "unnamed"
        # From the last number on: from the first, a file of one name for all would take the square.
        found, number = wanted, self._last.get(wanted, 1)
        while found in self._taken:
            number += 1
            found = f"{wanted}#{number}"
        self._last[wanted] = number
        self._taken.add(found)
        return found
