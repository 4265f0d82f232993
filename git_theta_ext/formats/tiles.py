"""Spans at known offsets, with literals between them: how most containers become a layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from git_theta_ext.errors import FormatError
from git_theta_ext.formats.base import Layout, Literal, Segment, Source, Span
from git_theta_ext.tensors import TensorInfo

MAX_LITERAL_BYTES = 64 << 20


def tile(name: str, source: Source, tensors: Iterable[tuple[int, TensorInfo]]) -> Layout:
    """The layout of a file in which tensors lie at these offsets and all else is literal.

    Empty tensors have no bytes and are left out. Names that come twice are numbered.

    Raises:
        FormatError: tensors overlap or reach past the end, or too much lies outside of them.
    """
    segments: list[Segment] = []
    names = Names()
    position = 0
    for offset, tensor in sorted(tensors, key=lambda item: item[0]):
        if not tensor.nbytes:
            continue
        if offset < position or offset + tensor.nbytes > source.size:
            raise FormatError(
                f"{name}: tensor {tensor.name!r} takes bytes {offset} to {offset + tensor.nbytes}; "
                f"expected from {position} to {source.size} at most"
            )
        segments += _literal(name, source, position, offset)
        renamed = TensorInfo(names.free(tensor.name), tensor.dtype, tensor.shape, tensor.order)
        segments.append(Span(renamed))
        position = offset + tensor.nbytes
    segments += _literal(name, source, position, source.size)
    return Layout(name, tuple(segments))


def _literal(name: str, source: Source, start: int, stop: int) -> Iterator[Literal]:
    if stop - start > MAX_LITERAL_BYTES:
        raise FormatError(f"{name}: {stop - start} bytes at offset {start} belong to no tensor")
    if stop > start:
        yield Literal(source.read(start, stop - start))


class Names:
    """Gives every tensor a name of its own: `w`, then `w#2`, `w#3`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def free(self, wanted: str) -> str:
        """`wanted`, or that with the first number that makes it new; never empty."""
        wanted = wanted or "unnamed"
        found, number = wanted, 1
        while found in self._taken:
            number += 1
            found = f"{wanted}#{number}"
        self._taken.add(found)
        return found
