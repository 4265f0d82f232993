"""Git's deltas: instructions that copy from a base, or insert.

Source: gitformat-pack(5), "Deltified representation".
"""

from __future__ import annotations

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError


def apply_delta(base: bytes, delta: bytes) -> bytes:
    """What Git's delta makes of its base.

    Raises:
        FormatError: it is damaged, or makes more than an object may have.
    """
    promised, at = _varint(delta, 0)
    size, at = _varint(delta, at)
    if promised != len(base) or size > limits.PATCH_OBJECT_BYTES:
        raise FormatError("a delta does not fit its base, or makes too much of it")
    made = bytearray()
    while at < len(delta):
        code = delta[at]
        at += 1
        if code & 0x80:
            offset, length, at = _copy(delta, code, at)
            if offset + length > len(base):
                raise FormatError("a delta copies what is not there")
            made += base[offset : offset + length]
        elif code and at + code <= len(delta):
            made += delta[at : at + code]
            at += code
        else:
            raise FormatError("a delta is damaged")
        if len(made) > size:
            raise FormatError("a delta makes more than it says")
    if len(made) != size:
        raise FormatError("a delta makes less than it says")
    return bytes(made)


def _copy(delta: bytes, code: int, at: int) -> tuple[int, int, int]:
    """Offset and length of a copy of the base, and where what says so ends."""
    numbers = [0, 0]
    for bit in range(7):
        if code >> bit & 1:
            if at >= len(delta):
                raise FormatError("a delta is cut short")
            which, shift = (0, 8 * bit) if bit < 4 else (1, 8 * (bit - 4))
            numbers[which] |= delta[at] << shift
            at += 1
    return numbers[0], numbers[1] or 0x10000, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        found |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return found, at
    raise FormatError("the length of a delta is damaged")
