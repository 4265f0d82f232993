"""The skeleton as bytes: which segments a file is made of, then all its literal bytes in a row.

    git-theta skeleton v1
    literal 1024
    tensor "encoder.weight"
    crc32 3 5
    serialization-id 3:5 7:8 1234567
    <an empty line, then the literal bytes>

The text stands first and the literals together, so that two skeletons that differ in a step counter
compress well against each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.formats.base import Crc32, Layout, Literal, SerializationId, Span
from git_theta_ext.formats.layout.derived import dependency_problem

_FIRST = b"git-theta skeleton v1\n"
_RANGE = re.compile(r"(\d{1,18}):(\d{1,18})")
_CRC = re.compile(r"crc32 (\d{1,18}) (\d{1,18})")
_LITERAL = re.compile(r"literal (\d{1,18})")


@dataclass(frozen=True, slots=True)
class SpanRef:
    """Where the bytes of the tensor of this name belong."""

    name: str


SkeletonSegment = Literal | SpanRef | Crc32 | SerializationId


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The segments of a file, its tensors by name only: dtypes and shapes are the manifest's."""

    segments: tuple[SkeletonSegment, ...]


def encode(layout: Layout | Skeleton) -> bytes:
    """A layout's skeleton as bytes."""
    lines: list[str] = []
    literals: list[bytes] = []
    for segment in layout.segments:
        if isinstance(segment, Literal):
            lines.append(f"literal {len(segment.data)}")
            literals.append(segment.data)
        elif isinstance(segment, Span):
            lines.append(f"tensor {json.dumps(segment.tensor.name)}")
        elif isinstance(segment, SpanRef):
            lines.append(f"tensor {json.dumps(segment.name)}")
        elif isinstance(segment, Crc32):
            lines.append(f"crc32 {segment.first} {segment.stop}")
        else:
            items = (f"{c[0]}:{c[1]}" if isinstance(c, tuple) else str(c) for c in segment.crcs)
            lines.append(" ".join(("serialization-id", *items)))
    text = "".join(f"{line}\n" for line in lines)
    return b"".join([_FIRST, text.encode("ascii"), b"\n", *literals])


def decode(data: bytes) -> Skeleton:
    """The skeleton that `encode` wrote.

    Raises:
        ManifestError: it is damaged; names the line.
    """
    if not data.startswith(_FIRST):
        raise ManifestError(f"a skeleton begins with {_FIRST!r}, not {data[:24]!r}")
    end = data.find(b"\n\n", len(_FIRST) - 1)
    if end < 0:
        raise ManifestError("the skeleton has no empty line before its literal bytes")
    lines = data[len(_FIRST) : end].decode("latin-1").split("\n") if end >= len(_FIRST) else []
    reader = _Reader(data, end + 2, len(lines))
    segments = tuple(reader.segment(number, line) for number, line in enumerate(lines))
    if reader.position != len(data):
        raise ManifestError(f"{len(data) - reader.position} bytes follow the skeleton's literals")
    if problem := dependency_problem(segments):
        raise ManifestError(f"skeleton: {problem}")
    return Skeleton(segments)


class _Reader:
    def __init__(self, data: bytes, position: int, count: int) -> None:
        self._data = data
        self.position = position
        self._count = count

    def segment(self, number: int, line: str) -> SkeletonSegment:
        kind, _, rest = line.partition(" ")
        try:
            if kind == "literal" and (match := _LITERAL.fullmatch(line)):
                return self._literal(int(match.group(1)))
            if kind == "tensor" and isinstance(name := json.loads(rest), str):
                return SpanRef(name)
            if kind == "crc32" and (match := _CRC.fullmatch(line)):
                return Crc32(*self._range(number, int(match.group(1)), int(match.group(2))))
            if kind == "serialization-id":
                return SerializationId(tuple(self._inputs(number, rest)))
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"skeleton, line {number + 2}: {error}: {line[:80]!r}") from error
        raise ManifestError(f"skeleton, line {number + 2}: not a segment: {line[:80]!r}")

    def _literal(self, length: int) -> Literal:
        start, self.position = self.position, self.position + length
        if self.position > len(self._data):
            raise ValueError(f"{length} literal bytes, {len(self._data) - start} are left")
        return Literal(self._data[start : self.position])

    def _range(self, number: int, first: int, stop: int) -> tuple[int, int]:
        if not 0 <= first < stop <= self._count or first <= number < stop:
            raise ValueError(f"segments {first} to {stop} of {self._count}")
        return first, stop

    def _inputs(self, number: int, text: str) -> Iterator[tuple[int, int] | int]:
        for item in text.split():
            if match := _RANGE.fullmatch(item):
                yield self._range(number, int(match.group(1)), int(match.group(2)))
            elif item.isascii() and item.isdigit() and int(item) < 2**32:
                yield int(item)
            else:
                raise ValueError(f"{item[:20]!r} is neither a range nor a CRC-32")
