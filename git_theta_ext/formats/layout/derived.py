"""Fields that are a function of other bytes: CRC-32s, and PyTorch's serialization id."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

from git_theta_ext.formats.base import Crc32, SerializationId

_POLYNOMIAL = 0xEDB88320
CRC_BYTES = 4
ID_BYTES = 20
_COVERED_EACH = 8


def derived_length(segment: Crc32 | SerializationId) -> int:
    """Bytes that a derived field takes in the file."""
    return CRC_BYTES if isinstance(segment, Crc32) else ID_BYTES


def crc32_combine(first: int, second: int, length: int) -> int:
    """The CRC-32 of A + B, given those of A and of B and the length of B in bytes.

    Appending a byte multiplies the CRC of what came before by x^8 modulo the polynomial, over
    GF(2); x^(8n) is found by repeated squaring (as zlib's crc32_combine does).
    """
    return _multiply(_power(length), first) ^ second


def _multiply(a: int, b: int) -> int:
    """The product of two polynomials modulo the CRC's, bits reflected as zlib keeps them."""
    product, bit = 0, 1 << 31
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@cache
def _square(exponent: int) -> int:
    """x^(2^exponent) modulo the polynomial."""
    if exponent == 0:
        return 1 << 30
    half = _square(exponent - 1)
    return _multiply(half, half)


def _power(length: int) -> int:
    """x^(8 * length) modulo the polynomial."""
    result, exponent = 1 << 31, 3
    while length:
        if length & 1:
            result = _multiply(_square(exponent), result)
        length >>= 1
        exponent += 1
    return result


def serialization_id(crcs: Sequence[int]) -> bytes:
    """The digits that PyTorch appends to `.data/serialization_id`: a fold over entries' CRC-32s.

    Source: `PyTorchStreamWriter::writeSerializationId` and `c10::hash_combine`.
    """
    value = 0
    for crc in crcs:
        value ^= (crc + 0x9E3779B9 + (value << 6) + (value >> 2)) & (2**64 - 1)
        value &= 2**64 - 1
    return b"%020d" % value


def dependency_problem(segments: Sequence[object]) -> str | None:
    """What makes the derived fields of a file impossible, or too dear, to compute; else None.

    A field may depend on another one, and that one on literals and tensors only (an entry's CRC-32
    covers the serialization id, which is made of other entries'). All of them together may cover
    each segment eight times: what is computed grows with the file, whatever a skeleton says.
    """
    limit = _COVERED_EACH * len(segments) + 64
    inner: dict[int, list[int]] = {}
    for number, segment in enumerate(segments):
        ranges = _ranges(segment)
        limit -= sum(stop - first for first, stop in ranges)
        if limit < 0:
            return f"segment {number}: the fields up to it cover too much"
        if isinstance(segment, (Crc32, SerializationId)):
            inner[number] = [n for first, stop in ranges for n in range(first, stop)]
    for number, covered in inner.items():
        inner[number] = [n for n in covered if n in inner]
    for number, fields in inner.items():
        deep = next((n for n in fields if inner[n]), None)
        if deep is not None:
            return f"segment {number} depends on segment {deep}, which depends on a derived field"
    return None


class Checksums:
    """The derived fields of one file, while its segments are written or read ahead."""

    def __init__(self, segments: Sequence[object], lengths: Sequence[int]) -> None:
        """`lengths` are the segments' lengths in bytes, in order."""
        self._segments = segments
        self._lengths = lengths
        self._sums = [0] * len(segments)
        self._fed = [0] * len(segments)
        self._covered = [False] * len(segments)
        self._stored: dict[int, bytes] = {}
        self._ranges: dict[tuple[int, int], int] = {}
        for segment in segments:
            for first, stop in _ranges(segment):
                for number in range(first, stop):
                    self._covered[number] = True

    def covered(self, number: int) -> bool:
        """Whether a segment's bytes go into some checksum."""
        return self._covered[number]

    def feed(self, number: int, data: bytes | memoryview) -> None:
        """Take the next bytes of a covered segment; those of a complete one are ignored."""
        if self._fed[number] < self._lengths[number]:
            self._sums[number] = zlib.crc32(data, self._sums[number])
            self._fed[number] += len(data)

    def store(self, number: int, data: bytes) -> None:
        """Take a derived field's bytes as the file has them, instead of computing them."""
        self._stored[number] = data

    def needed(self, number: int) -> list[int]:
        """The literals and tensors that a derived field depends on and that are not fed yet."""
        ahead = [n for first, stop in _ranges(self._segments[number]) for n in range(first, stop)]
        through = [n for n in ahead if n not in self._stored and _ranges(self._segments[n])]
        ahead += [m for n in through for a, b in _ranges(self._segments[n]) for m in range(a, b)]
        return [
            n
            for n in dict.fromkeys(ahead)
            if self._fed[n] < self._lengths[n]
            and not isinstance(self._segments[n], (Crc32, SerializationId))
        ]

    def value(self, number: int) -> bytes:
        """The bytes of a derived field, once all that it needs has been fed."""
        segment = self._segments[number]
        if isinstance(segment, SerializationId):
            return serialization_id(
                [c if isinstance(c, int) else self._sum(*c) for c in segment.crcs]
            )
        first, stop = _ranges(segment)[0]
        return self._sum(first, stop).to_bytes(4, "little")

    def _sum(self, first: int, stop: int) -> int:
        """The CRC-32 of a range, computed once: several fields have it."""
        known = self._ranges.get((first, stop))
        if known is not None:
            return known
        total = 0
        for number in range(first, stop):
            if isinstance(self._segments[number], (Crc32, SerializationId)):
                data = self._stored.get(number) or self.value(number)
                total = zlib.crc32(data, total)
            else:
                total = crc32_combine(total, self._sums[number], self._lengths[number])
        self._ranges[first, stop] = total
        return total


def _ranges(segment: object) -> list[tuple[int, int]]:
    if isinstance(segment, Crc32):
        return [(segment.first, segment.stop)]
    if isinstance(segment, SerializationId):
        return [item for item in segment.crcs if isinstance(item, tuple)]
    return []
