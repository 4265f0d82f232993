"""CRC-32C (Castagnoli), as TensorFlow's checkpoints and tables use it, over many lanes at once.

Source: RFC 3720, appendix B.4, and the table format of LevelDB (`util/crc32c.h`) for the mask. A
slice is cut into lanes of equal length whose CRCs are computed side by side by NumPy, then joined:
appending n bytes to a message is a linear map of its CRC, over GF(2).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.formats.base import Source

_POLYNOMIAL = 0x82F63B78
_SLICE_BYTES = 4 << 20
_LANE_BYTES = 1024
_FEW_BYTES = 16 << 10
"""Below this, a plain loop is quicker."""
_MASK = 0xA282EAD8

_Words = NDArray[np.uint32]


def masked(crc: int) -> int:
    """The CRC as it is stored: rotated right by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def crc32c(source: Source, offset: int, length: int) -> int:
    """The CRC-32C of a range of a file, read slice by slice.

    Raises:
        FormatError: the range is not inside the file.
    """
    found = 0
    for start in range(offset, offset + length, _SLICE_BYTES):
        data = source.read(start, min(_SLICE_BYTES, offset + length - start))
        found = int(_shift(len(data), np.array([found], np.uint32))[0]) ^ _of(data)
    return found


def _of(data: bytes) -> int:
    lanes = len(data) // _LANE_BYTES if len(data) >= _FEW_BYTES else 0
    lanes = 1 << lanes.bit_length() - 1 if lanes else 0
    whole = lanes * _LANE_BYTES
    crc = _of_lanes(np.frombuffer(data, np.uint8, whole).reshape(lanes, -1)) if lanes else 0
    rest = data[whole:]
    if len(rest) >= _FEW_BYTES:
        return int(_shift(len(rest), np.array([crc], np.uint32))[0]) ^ _of(rest)
    table = _table().tolist()
    crc ^= 0xFFFFFFFF
    for byte in rest:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return int(crc ^ 0xFFFFFFFF)


def _of_lanes(rows: NDArray[np.uint8]) -> int:
    """The CRC of rows one after another; their number is a power of two."""
    table = _table()
    crcs = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in np.ascontiguousarray(rows.T):
        crcs = table[(crcs ^ column) & 0xFF] ^ crcs >> np.uint32(8)
    crcs ^= np.uint32(0xFFFFFFFF)
    length = rows.shape[1]
    while len(crcs) > 1:
        crcs = _shift(length, crcs[0::2]) ^ crcs[1::2]
        length *= 2
    return int(crcs[0])


@cache
def _table() -> _Words:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = values >> np.uint32(1) ^ (values & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return values


def _shift(length: int, crcs: _Words) -> _Words:
    """CRCs as they are after `length` more bytes whose own CRC is to be added."""
    power = 0
    while length:
        if length & 1:
            crcs = _apply(_operator(power), crcs)
        length >>= 1
        power += 1
    return crcs


@cache
def _operator(power: int) -> tuple[int, ...]:
    """What appending 2^power bytes makes of each bit of a CRC."""
    if power == 0:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return tuple((_table()[bits & 0xFF] ^ bits >> np.uint32(8)).tolist())
    half = _operator(power - 1)
    return tuple(_apply(half, np.array(half, np.uint32)).tolist())


def _apply(operator: tuple[int, ...], crcs: NDArray[Any]) -> _Words:
    found = np.zeros_like(crcs)
    for bit, image in enumerate(operator):
        found ^= (crcs >> np.uint32(bit) & np.uint32(1)) * np.uint32(image)
    return found
