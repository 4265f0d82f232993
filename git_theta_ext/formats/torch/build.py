"""New files of `torch.save`: a flat state dict, written without torch.

The pickle is written opcode by opcode: nothing but strings, numbers and the names that
`torch.load(weights_only=True)` allows. Sources: torch/serialization.py and
torch/_tensor.py (`_reduce_ex_internal`) of PyTorch 2.13.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats.base import Layout, Literal, Span
from git_theta_ext.formats.zips.build import Member, archive

_STORAGES = {
    "F64": "Double", "F32": "Float", "F16": "Half", "BF16": "BFloat16", "I64": "Long", "I32": "Int",
    "I16": "Short", "I8": "Char", "U8": "Byte", "BOOL": "Bool", "C64": "ComplexFloat",
    "C128": "ComplexDouble",
}  # fmt: skip
_NEWER = {
    "U16": "uint16", "U32": "uint32", "U64": "uint64", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu", "C32": "complex32",
}  # fmt: skip
"""Element types without a storage class of their own."""
_PLAIN = {"QI8": "I8", "QU8": "U8", "QI32": "I32"}
"""Codes without their scales are plain integers."""
_ALIGNMENT = 64


def build(
    tensors: Mapping[str, TensorInfo],
    model: Layout | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Layout:
    """The layout of a file that holds these tensors; memory orders are kept as strides.

    There is no place for metadata in such a file.

    Raises:
        FormatError: torch has no such element type.
    """
    members = [
        Member("archive/data.pkl", [Literal(_pickle(tensors))]),
        Member("archive/.format_version", [Literal(b"1")]),
        Member("archive/.storage_alignment", [Literal(b"%d" % _ALIGNMENT)]),
        Member("archive/byteorder", [Literal(b"little")]),
    ]
    for number, info in enumerate(tensors.values()):
        members.append(Member(f"archive/data/{number}", [Span(info)]))
    members.append(Member("archive/version", [Literal(b"3\n")]))
    return Layout("torch-zip", archive(members, _ALIGNMENT))


def _pickle(tensors: Mapping[str, TensorInfo]) -> bytes:
    """Protocol 2: a dictionary of tensors."""
    items = [
        _text(name) + _tensor(info, str(number))
        for number, (name, info) in enumerate(tensors.items())
    ]
    return b"\x80\x02}(" + b"".join(items) + b"u."


def _tensor(info: TensorInfo, key: str) -> bytes:
    """The pickle opcodes for a dense tensor on the CPU whose values are the storage `key`."""
    name = _PLAIN.get(info.dtype.name, info.dtype.name)
    if name in _STORAGES:
        rebuild, storage, size = (
            "_rebuild_tensor_v2",
            f"torch\n{_STORAGES[name]}Storage",
            info.count,
        )
        last = b""
    elif name in _NEWER:
        rebuild, storage, size = "_rebuild_tensor_v3", "torch.storage\nUntypedStorage", info.nbytes
        last = _global(f"torch\n{_NEWER[name]}")
    else:
        raise FormatError(f"tensor {info.name!r}: torch has no element type {name}")
    persistent = b"(" + _text("storage") + _global(storage) + _text(key) + _text("cpu")
    persistent += _number(size) + b"tQ"
    hooks = _global("collections\nOrderedDict") + b")R"
    where = _number(0) + _numbers(info.shape) + _numbers(_strides(info))
    return _global(f"torch._utils\n{rebuild}") + b"(" + persistent + where + b"\x89" + hooks + (
        last + b"tR"
    )  # fmt: skip


def _strides(info: TensorInfo) -> tuple[int, ...]:
    """Elements from one index to the next, along each axis."""
    strides = [1] * len(info.shape)
    step = 1
    for axis in reversed(info.order or range(len(info.shape))):
        strides[axis] = step
        step *= max(1, info.shape[axis])
    return tuple(strides)


def _global(name: str) -> bytes:
    return b"c" + name.encode("ascii") + b"\n"


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(_number(value) for value in values) + b"t"


def _number(value: int) -> bytes:
    """The shortest opcode for a natural number."""
    if value < 1 << 8:
        return b"K" + bytes([value])
    if value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(data)]) + data
