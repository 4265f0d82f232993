"""Weights in floats of 4 and 8 bits with scales: MXFP4, NVFP4, MXFP8, FP8.

Sources: OCP Microscaling Formats 1.0; NVIDIA's ModelOpt and compressed-tensors for NVFP4; gpt-oss
for blocks beside scales; MLX's modes; DeepSeek-V3's `weight_scale_inv`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np

from git_theta_ext.checkpoints.coupled.bits import E2M1, e4m3, powers, unpack
from git_theta_ext.checkpoints.coupled.integers import mlx_settings
from git_theta_ext.checkpoints.coupled.layouts import joined
from git_theta_ext.checkpoints.coupled.schemes import Numbers, Parts, Scheme, Table, Weight

_SCALES = "U8 F8_E8M0"


def fours(
    parts: Parts, start: int, stop: int, *, codes: str, scale: Callable[[Parts, int, int], Numbers],
    group: int,
) -> Numbers:  # fmt: skip
    """Groups of 4-bit floats, the low half of a byte first, times the scale of each.

    Args:
        parts: the weight's tensors.
        start, stop: groups, from one to before another.
        codes: the name of the tensor with the floats.
        scale: gives the scales of some groups.
        group: floats that share one.
    """
    held = parts.raw(codes, 0, 1).dtype.itemsize
    size = group // 2 // held
    words = parts.raw(codes, start * size, stop * size).reshape(-1, size)
    return E2M1[unpack(words, 4, group)] * scale(parts, start, stop)[:, None]


def _powers(parts: Parts, start: int, stop: int, *, name: str) -> Numbers:
    return powers(parts.raw(name, start, stop))


def _scaled(
    parts: Parts, start: int, stop: int, *, name: str, whole: str | None = None,
    divides: bool = False,
) -> Numbers:  # fmt: skip
    """Scales of 8 bits, times or divided by one for the whole tensor."""
    found = e4m3(parts.raw(name, start, stop).view(np.uint8))
    if whole is None:
        return found
    one = parts.all_numbers(whole).ravel()[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled: Numbers = found / one if divides else found * one
    return scaled


def packed(table: Table, module: str) -> Weight | None:
    """Two codes in a byte of `weight_packed` or `weight`, with `weight_scale`: NVFP4 or MXFP4."""
    parts: tuple[str, ...]
    scale, weight = joined(module, "weight_scale"), joined(module, "weight")
    divisor, factor = joined(module, "weight_global_scale"), joined(module, "weight_scale_2")
    name = joined(module, "weight_packed")
    codes = table.of(name, "U8", 2) or table.of(name := weight, "U8", 2)
    if codes is None:
        return None
    rows, columns = codes.shape[0], 2 * codes.shape[1]
    small, one = table.of(scale, "F8_E4M3", 2), table.floats(divisor) or table.floats(factor)
    if small is not None and one is not None and one.count == 1:
        if small.shape != (rows, columns // 16) or columns % 16:
            return None
        scales = partial(_scaled, name=scale, whole=one.name, divides=one.name == divisor)
        parts, group, kind = (name, scale, one.name), 16, "NVFP4"
    elif name != weight and (exponents := table.of(scale, _SCALES, 2)) is not None:
        if exponents.shape != (rows, columns // 32) or columns % 32:
            return None
        scales = partial(_powers, name=scale)
        parts, group, kind = (name, scale), 32, "MXFP4"
    else:
        return None
    decode = partial(fours, codes=name, scale=scales, group=group)
    count = rows * columns // group
    return Weight(weight, Scheme(kind, 4, group), parts, (rows, columns), count, group, decode)


def blocks(table: Table, stem: str) -> Weight | None:
    """`*_blocks` of 16 bytes with an exponent for each in `*_scales`, as gpt-oss has them."""
    names = (f"{stem}_blocks", f"{stem}_scales")
    codes, scales = table.of(names[0], "U8"), table.of(names[1], _SCALES)
    if codes is None or scales is None or codes.shape != (*scales.shape, 16):
        return None
    if len(scales.shape) < 2:
        return None
    decode = partial(fours, codes=names[0], scale=partial(_powers, name=names[1]), group=32)
    return Weight(stem, Scheme("MXFP4", 4, 32), names, None, scales.count, 32, decode)


def mlx(table: Table, module: str) -> Weight | None:
    """Words with `scales` and without biases, of a mode that the configuration states."""
    names = joined(module, "weight"), joined(module, "scales")
    codes, scales = table.of(names[0], "U32"), table.of(names[1], "U8")
    stated = mlx_settings(table.config, module)
    if (
        codes is None
        or scales is None
        or stated is None
        or joined(module, "biases") in table.tensors
    ):
        return None
    mode = stated.get("mode")
    known = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}
    if not isinstance(mode, str) or mode not in known or len(codes.shape) < 2:
        return None
    bits, group = known[mode]
    shape = (*scales.shape[:-1], scales.shape[-1] * group)
    if prod(shape) * bits != codes.count * 32 or codes.shape[:-1] != shape[:-1]:
        return None
    scale = partial(_scaled if mode == "nvfp4" else _powers, name=names[1])
    make = fours if bits == 4 else eights
    decode = partial(make, codes=names[0], scale=scale, group=group)
    return Weight(
        names[0], Scheme(mode.upper(), bits, group), names, shape, scales.count, group, decode
    )


def eights(
    parts: Parts, start: int, stop: int, *, codes: str, scale: Callable[[Parts, int, int], Numbers],
    group: int,
) -> Numbers:  # fmt: skip
    """Groups of 8-bit floats in words, times the scale of each.

    Args:
        parts, start, stop, codes, scale, group: as for `fours`.
    """
    words = parts.raw(codes, start * group // 4, stop * group // 4)
    return e4m3(words.view(np.uint8)).reshape(-1, group) * scale(parts, start, stop)[:, None]


def eight_bits(table: Table, module: str) -> Weight | None:
    """`weight` of 8 bits, floats or integers, with `weight_scale` or `weight_scale_inv`."""
    name = joined(module, "weight")
    codes = table.of(name, "F8_E4M3 F8_E5M2 I8", 2)
    if codes is None:
        return None
    rows, columns = codes.shape
    kind = "INT8" if codes.dtype.name == "I8" else f"FP8 ({codes.dtype.name[3:]})"
    inverse = joined(module, "weight_scale_inv")
    if (scales := table.floats(inverse, 2)) is not None and codes.dtype.name != "I8":
        side = _block_side(table, codes.shape, scales.shape)
        if side is None:
            return None
        decode = partial(_by_blocks, names=(name, inverse), side=side, columns=columns)
        scheme = Scheme(kind, 8, None, f"blocks of {side[0]} × {side[1]}")
        return Weight(name, scheme, (name, inverse), codes.shape, rows, columns, decode)
    found = table.floats(scale := joined(module, "weight_scale"))
    if found is None or joined(module, "weight_zero_point") in table.tensors:
        return None
    if found.count != 1 and found.shape not in ((rows,), (rows, 1)):
        return None
    words = "one scale" if found.count == 1 else "a scale for each row"
    decode = partial(by_rows, names=(name, scale), columns=columns)
    return Weight(
        name, Scheme(kind, 8, None, words), (name, scale), codes.shape, rows, columns, decode
    )


def by_rows(
    parts: Parts, start: int, stop: int, *, names: tuple[str, str], columns: int,
    divisor: float = 1.0,
) -> Numbers:  # fmt: skip
    """Codes times one scale, or that of their row; all divided by a number.

    Args:
        parts: the weight's tensors.
        start, stop: rows, from one to before another.
        names: of codes and scales.
        columns: codes of a row.
        divisor: what the products are divided by.
    """
    codes = parts.numbers(names[0], start * columns, stop * columns).reshape(-1, columns)
    scales = parts.all_numbers(names[1]).ravel()
    scale = scales[start:stop] if len(scales) > 1 else scales
    return codes * scale[:, None] / np.float32(divisor)


def _block_side(
    table: Table, shape: tuple[int, ...], scales: tuple[int, ...]
) -> tuple[int, int] | None:
    """Rows and columns that share a scale: as stated, else 128 each, if that gives the shapes."""
    found = table.config.get("quantization_config")
    stated = found.get("weight_block_size") if isinstance(found, dict) else None
    side = stated if isinstance(stated, list) and len(stated) == 2 else [128, 128]
    if not all(type(one) is int and one > 0 for one in side):
        return None
    fits = all(-(-n // by) == count for n, by, count in zip(shape, side, scales, strict=True))
    return (side[0], side[1]) if fits else None


def _by_blocks(
    parts: Parts, start: int, stop: int, *, names: tuple[str, str], side: tuple[int, int],
    columns: int,
) -> Numbers:  # fmt: skip
    codes = parts.numbers(names[0], start * columns, stop * columns).reshape(-1, columns)
    scales = parts.all_numbers(names[1])[np.arange(start, stop) // side[0]]
    return codes * scales[:, np.arange(columns) // side[1]]
