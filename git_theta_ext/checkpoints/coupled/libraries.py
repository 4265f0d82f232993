"""Weights as libraries on top of PyTorch save them: bitsandbytes, quanto, torchao, HQQ.

Sources: bitsandbytes' `QuantState.as_dict` and `dequantize_4bit`; optimum-quanto's `qbits` and
`packed`; torchao's `safetensors_support`; HQQ's `bitpack` and `Quantizer.dequantize`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.coupled.layouts import joined
from git_theta_ext.checkpoints.coupled.schemes import (
    Numbers,
    Parts,
    Scheme,
    Table,
    Weight,
    divided,
)
from git_theta_ext.checkpoints.coupled.small_floats import by_rows

_STATE = ".quant_state.bitsandbytes__"
_LARGEST_GROUP = 4096
"""bitsandbytes knows no larger ones."""
_HQQ_SLOTS = {8: ("U8", 1), 4: ("U8", 2), 3: ("I32", 10), 2: ("U8", 4), 1: ("U8", 8)}
"""Bits of a code -> the type of what holds some of them, and how many."""


def bitsandbytes(table: Table, name: str) -> Weight | None:
    """A weight of 4 bits (its state is a tensor of JSON), or of 8 with `SCB` beside it."""
    for kind in ("nf4", "fp4"):
        if f"{name}{_STATE}{kind}" in table.tensors:
            return _four_bits(table, name, kind)
    codes = table.of(name, "I8", 2)
    scale = f"{name.removesuffix('weight')}SCB"
    if codes is None or not name.endswith("weight") or (found := table.floats(scale, 1)) is None:
        return None
    rows, columns = codes.shape
    if found.shape != (rows,):
        return None
    decode = partial(by_rows, names=(name, scale), columns=columns, divisor=127.0)
    scheme = Scheme("bitsandbytes", 8, None, "a scale for each row")
    return Weight(name, scheme, (name, scale), codes.shape, rows, columns, decode)


def _four_bits(table: Table, name: str, kind: str) -> Weight | None:
    """The weight of codes that name numbers of a table; all about it stands in a tensor of JSON."""
    state = f"{name}{_STATE}{kind}"
    codes, stated = table.of(name, "U8"), _json(table.small(state))
    scales, numbers = f"{name}.absmax", f"{name}.quant_map"
    values = table.of(numbers, "F32", 1)
    group, shape = stated.get("blocksize"), stated.get("shape")
    if codes is None or values is None or values.count != 16 or type(group) is not int:
        return None
    if not isinstance(shape, list) or not all(type(one) is int and one > 0 for one in shape):
        return None
    count = prod(shape)
    if (
        not 2 <= group <= _LARGEST_GROUP
        or group % 2
        or codes.count != -(-count // 2)
        or stated.get("quant_type") != kind
    ):
        return None
    parts, nested = [name, scales, numbers, state], None
    held = table.tensors.get(scales)
    if held is None or held.count != -(-count // group):
        return None
    if held.dtype.name == "U8":
        inner = [f"{name}.nested_{last}" for last in ("absmax", "quant_map")]
        size = stated.get("nested_blocksize")
        if type(size) is not int or size < 1 or any(table.of(one, "F32") is None for one in inner):
            return None
        nested = (inner[0], inner[1], size, float(stated.get("nested_offset") or 0.0))
        parts += inner
    decode = None
    if count % group == 0:
        decode = partial(_table_of_16, names=(name, scales, numbers), group=group, nested=nested)
    scheme = Scheme(f"bitsandbytes {kind.upper()}", 4, group, "")
    return Weight(name, scheme, tuple(parts), tuple(shape), count // group, group, decode)


def _json(data: bytes | None) -> Mapping[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _table_of_16(
    parts: Parts, start: int, stop: int, *, names: tuple[str, str, str], group: int,
    nested: tuple[str, str, int, float] | None,
) -> Numbers:  # fmt: skip
    """Codes that name numbers of a table, the high half of a byte first; each group has a scale."""
    codes = parts.raw(names[0], start * group // 2, stop * group // 2)
    places = np.stack([codes >> 4, codes & 15], axis=1).reshape(-1, group)
    if nested is None:
        scales = parts.numbers(names[1], start, stop)
    else:
        outer, numbers, size, offset = nested
        which = parts.raw(names[1], start, stop)
        over = parts.all_numbers(outer).ravel()[np.arange(start, stop) // size]
        scales = parts.all_numbers(numbers).ravel()[which] * over + np.float32(offset)
    return parts.all_numbers(names[2]).ravel()[places] * scales[:, None]


def quanto(table: Table, name: str) -> Weight | None:
    """`_data` and `_scale` below a weight's name; of 4 and 2 bits `_data._data` and `_shift`."""
    names = tuple(f"{name}.{last}" for last in ("_data", "_scale", "_data._data", "_shift"))
    scales = table.floats(names[1])
    if scales is None:
        return None
    codes = table.of(names[0], "I8 F8_E4M3 F8_E5M2", 2)
    if codes is not None:
        rows, columns = codes.shape
        if scales.count != 1 and scales.shape not in ((rows,), (rows, 1)):
            return None
        decode = partial(by_rows, names=(names[0], names[1]), columns=columns)
        words = "one scale" if scales.count == 1 else "a scale for each row"
        kind = "quanto" if codes.dtype.name == "I8" else f"quanto FP8 ({codes.dtype.name[3:]})"
        scheme = Scheme(kind, 8, None, words)
        return Weight(name, scheme, names[:2], codes.shape, rows, columns, decode)
    held, shift = table.of(names[2], "U8", 2), table.floats(names[3])
    if held is None or shift is None or shift.shape != scales.shape or scales.shape[1:] != (1,):
        return None
    rows, columns = scales.shape[0], held.shape[1]
    fitting = [bits for bits in (2, 4) if held.shape[0] == -(-rows * bits // 8)]
    if len(fitting) != 1:
        return None
    decode = partial(
        _quanto, names=(names[2], names[1], names[3]), bits=fitting[0], columns=columns
    )
    parts = (names[2], names[1], names[3])
    return Weight(name, Scheme("quanto", fitting[0], columns), parts, None, rows, columns, decode)


def _quanto(
    parts: Parts, start: int, stop: int, *, names: tuple[str, str, str], bits: int, columns: int
) -> Numbers:  # fmt: skip
    """Row *r* of codes lies in row *r* modulo the rows held, its first ones in the lowest bits."""
    codes = parts.whole(names[0])
    slot, row = np.divmod(np.arange(start, stop), len(codes))
    found = (codes[row] >> (bits * slot)[:, None].astype(np.uint8)) & ((1 << bits) - 1)
    scale, shift = (parts.numbers(name, start, stop)[:, None] for name in names[1:])
    return found * scale - shift


def torchao_saved(table: Table, name: str) -> Weight | None:
    """`qdata` and `scale` below a weight's name, as PyTorch's own files have them: floats only.

    Of integers nothing but the class says how many bits they have.
    """
    codes, scale = f"{name}.qdata", f"{name}.scale"
    found, scales = table.of(codes, "F8_E4M3 F8_E5M2", 2), table.floats(scale, 2)
    if found is None or scales is None or scales.shape not in ((1, 1), (found.shape[0], 1)):
        return None
    words = "one scale" if scales.count == 1 else "a scale for each row"
    scheme = Scheme(f"torchao FP8 ({found.dtype.name[3:]})", 8, None, words)
    rows, columns = found.shape
    decode = partial(by_rows, names=(codes, scale), columns=columns)
    return Weight(name, scheme, (codes, scale), found.shape, rows, columns, decode)


def torchao(table: Table, module: str) -> Weight | None:
    """Tensors of a flattened subclass, which the file's metadata describe."""
    name = joined(module, "weight")
    codes, scale, zero = (
        joined(module, f"_weight_{end}") for end in ("qdata", "scale", "zero_point")
    )
    stated = _json(table.metadata.get(name, "").encode())
    found, scales = table.of(codes, "I8 F8_E4M3 F8_E5M2", 2), table.floats(scale, 2)
    if found is None or scales is None or scales.shape[0] not in (1, found.shape[0]):
        return None
    rows, columns = found.shape
    kinds = {"Int8Tensor": 8.0, "Float8Tensor": 8.0, "IntxUnpackedToInt8Tensor": 0.0}
    kind, data = stated.get("_type"), stated.get("_data")
    group = divided(columns, scales.shape[1])
    if kind not in kinds or not isinstance(data, dict) or group is None:
        return None
    bits = kinds[kind]
    if not bits:
        target = data.get("target_dtype")
        text = str(target.get("_data")) if isinstance(target, dict) else ""
        if not (text.startswith("int") and text[3:].isdigit() and 0 < int(text[3:]) <= 8):
            return None
        bits = float(text[3:])
    zeros = table.of(zero, "I8 U8 I32 F32 F16 BF16", 2)
    if zero in table.tensors and (zeros is None or zeros.shape != scales.shape):
        return None
    parts = (codes, scale, zero) if zeros is not None else (codes, scale)
    words = "" if scales.shape[1] > 1 else "a scale for each row"
    words = "one scale" if scales.count == 1 else words
    label = "torchao" if kind != "Float8Tensor" else f"torchao FP8 ({found.dtype.name[3:]})"
    scheme = Scheme(label, bits, group if scales.shape[1] > 1 else None, words)
    decode = partial(_torchao, names=parts, group=group, columns=columns)
    return Weight(name, scheme, parts, found.shape, rows, columns, decode)


def _torchao(
    parts: Parts, start: int, stop: int, *, names: tuple[str, ...], group: int, columns: int
) -> Numbers:  # fmt: skip
    codes = parts.numbers(names[0], start * columns, stop * columns).reshape(
        -1, columns // group, group
    )
    scales, *zeros = (parts.all_numbers(name) for name in names[1:])
    some = slice(start, stop) if len(scales) > 1 else slice(0, 1)
    for zero in zeros:
        codes = codes - zero[some][:, :, None]
    scaled: Numbers = (codes * scales[some][:, :, None]).reshape(-1, columns)
    return scaled


def hqq(table: Table, module: str) -> Weight | None:
    """`W_q`, `scale` and `zero`, with the settings as tensors beside them."""
    names = tuple(joined(module, last) for last in ("W_q", "scale", "zero"))
    found = [table.integers(joined(module, last)) for last in ("nbits", "group_size", "axis")]
    shape = table.integers(joined(module, "shape"))
    flags = [table.integers(joined(module, last)) for last in ("quant_scale", "quant_zero",
                                                               "view_as_float")]  # fmt: skip
    if shape is None or len(shape) != 2 or any(one is None or len(one) != 1 for one in found):
        return None
    bits, group, axis = (one[0] for one in found if one)
    scales, zeros = table.floats(names[1], 2), table.floats(names[2], 2)
    if bits not in _HQQ_SLOTS or axis not in (0, 1) or scales is None or zeros is None:
        return None
    count, (dtype, slots) = prod(shape), _HQQ_SLOTS[bits]
    lines = divided(count, group)
    held = table.of(names[0], dtype, 2)
    if (
        held is None
        or lines is None
        or min(shape) < 1
        or any(one not in (None, (0,)) for one in flags)
    ):
        return None
    rows, columns = (lines, group) if axis else (group, lines)
    scaled = (lines, 1) if axis else (1, lines)
    if held.shape != (-(-rows // slots), columns) or {scales.shape, zeros.shape} != {scaled}:
        return None
    decode = partial(_hqq, names=names, bits=bits, slots=slots, axis=axis)
    scheme = Scheme("HQQ", bits, group)
    return Weight(joined(module, "weight"), scheme, names, shape, rows, columns, decode)


def _hqq(
    parts: Parts, start: int, stop: int, *, names: tuple[str, ...], bits: int, slots: int, axis: int
) -> Numbers:  # fmt: skip
    """Row *r* of codes lies in row *r* modulo the rows held, its first ones in the highest bits."""
    codes = parts.whole(names[0])
    slot, row = np.divmod(np.arange(start, stop), len(codes))
    shift = (bits * (slots - 1 - slot))[:, None].astype(codes.dtype)
    found = ((codes[row] >> shift) & codes.dtype.type((1 << bits) - 1)).astype(np.float32)
    some = slice(start, stop) if axis else slice(0, 1)
    scaled: Numbers = (found - parts.all_numbers(names[2])[some]) * parts.all_numbers(names[1])[
        some
    ]
    return scaled
