"""NumPy's .npy: a header that says dtype, shape and order, then the values.

Source: numpy.lib.format, versions 1.0 to 3.0. The header is a Python literal and read as such,
never evaluated. Arrays of objects are pickles and are not split. Big-endian values, strings and
dates have no element type here: their bytes are U8, with one more axis for the bytes of an item.
"""

from __future__ import annotations

import ast
import re

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.tiles import tile

NAME = "npy"
MAGIC = b"\x93NUMPY"
_DESCR = re.compile(r"([<>|=])([a-zA-Z])(\d{1,6})(?:\[\w+\])?")
_KINDS = {
    "b1": "BOOL", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u1": "U8", "u2": "U16",
    "u4": "U32", "u8": "U64", "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64", "c16": "C128",
}  # fmt: skip

_CODES = {"QI8": "I8", "QU8": "U8", "QI32": "I32"}
VOID = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""Types that NumPy has from `ml_dtypes` alone, by their names there; it saves them as V2 or V1."""
_GROWTH = 21


def sniff(head: bytes, source: Source) -> bool:
    """Whether the file begins as an array does."""
    return head.startswith(MAGIC)


def layout(source: Source) -> Layout:
    """The header as a literal, then the array."""
    start, tensor = read_header(source, 0, source.size, "array")
    if start + tensor.nbytes != source.size:
        raise FormatError(
            f"npy: {tensor.nbytes} bytes of values at offset {start} in a file of {source.size}"
        )
    return tile(NAME, source, [(start, tensor)])


def read_header(source: Source, start: int, stop: int, name: str) -> tuple[int, TensorInfo]:
    """Where the values of an array lie that begins at `start`, and what they are.

    Args:
        source: the file.
        start, stop: byte offsets between which the array lies.
        name: of the tensor.

    Raises:
        FormatError: no such header, or the array holds objects.
    """
    lead = source.read(start, min(12, stop - start))
    if len(lead) < 10 or not lead.startswith(MAGIC) or lead[6] not in (1, 2, 3):
        raise FormatError(f"npy: no header at offset {start}")
    width = 2 if lead[6] == 1 else 4
    length = int.from_bytes(lead[8 : 8 + width], "little")
    values = start + 8 + width + length
    if values > stop:
        raise FormatError(f"npy: a header of {length} bytes at offset {start}")
    if length > limits.NPY_HEADER_BYTES:
        raise BoundError(f"npy: a header of {length} bytes at offset {start}")
    text = source.read(start + 8 + width, length)
    try:
        header = ast.literal_eval(text.decode("latin-1" if lead[6] < 3 else "utf-8").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise FormatError(f"npy: the header at offset {start} cannot be read") from error
    if not _is_shape(shape) or not isinstance(fortran, bool):
        raise FormatError(f"npy: the header at offset {start} has no shape")
    return values, tensor_of(name, descr, fortran, shape, start)


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) < limits.AXES
        and all(type(axis) is int and 0 <= axis < 2**63 for axis in shape)
    )


def tensor_of(
    name: str, descr: object, fortran: bool, shape: tuple[int, ...], start: int
) -> TensorInfo:
    """What an array is whose element type NumPy writes as `descr`, such as `<f4`.

    Args:
        name: of the tensor.
        descr: the array protocol's name of the element type.
        fortran: whether the first axis is the fastest.
        shape: its axes.
        start: where it lies, for the message.

    Raises:
        FormatError: the array holds objects or records.
    """
    match = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    if match is None or match[2] == "O":
        raise FormatError(f"npy: the array at offset {start} holds objects or records")
    order = tuple(reversed(range(len(shape)))) if fortran and len(shape) > 1 else None
    known = _KINDS.get(match[2] + match[3])
    if known is not None and (match[1] != ">" or match[3] == "1"):
        return TensorInfo(name, DTYPES[known], shape, order)
    size = int(match[3]) * (4 if match[2] == "U" else 1)
    if match[2] in "mM":
        size = 8
    last = None if order is None else (*order, len(shape))
    return TensorInfo(name, DTYPES["U8"], (*shape, size), last)


def header(info: TensorInfo) -> bytes:
    """The header of a new array, as `numpy.save` writes it: padded to a multiple of 64 bytes.

    The types of `VOID` are written as it writes them with `ml_dtypes`: nothing says which they are.

    Raises:
        FormatError: NumPy has no such element type, or no such order of the axes.
    """
    codes = {name: code for code, name in reversed(_KINDS.items())}
    name = _CODES.get(info.dtype.name, info.dtype.name)
    void = f"V{info.dtype.itemsize}" if name in VOID else None
    if void is None and name not in codes:
        raise FormatError(f"tensor {info.name!r} is {info.dtype.name}, which NumPy does not have")
    fortran = info.order is not None and len(info.shape) > 1
    if fortran and info.order != tuple(reversed(range(len(info.shape)))):
        raise FormatError(f"tensor {info.name!r} lies in memory in an order that .npy cannot tell")
    code = void or codes[name]
    mark = "|" if code[1:] == "1" and void is None else "<"
    shape = f"({info.shape[0]},)" if len(info.shape) == 1 else str(info.shape)
    text = f"{{'descr': '{mark}{code}', 'fortran_order': {fortran}, 'shape': {shape}, }}"
    # NumPy leaves room for the first axis to grow, when it is written to while it is read.
    grows = info.shape[-1 if fortran else 0] if info.shape else 0
    text += " " * (_GROWTH - len(str(grows))) if info.shape else ""
    length = -(-(10 + len(text) + 1) // 64) * 64 - 10
    text = text.ljust(length - 1) + "\n"
    return MAGIC + b"\1\0" + length.to_bytes(2, "little") + text.encode("latin-1")
