"""Weights in integers with scales: GPTQ, AWQ, compressed-tensors, EXL2 and EXL3, MLX.

Sources: AutoGPTQ's and GPTQModel's `pack` and `dequantize_weight`; AutoAWQ's `WQLinear_GEMM`;
compressed-tensors' `pack_to_int32`; MLX's `mx.quantize`; exllamav2's and exllamav3's loaders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.coupled.bits import unpack
from git_theta_ext.checkpoints.coupled.layouts import joined
from git_theta_ext.checkpoints.coupled.schemes import (
    Numbers,
    Parts,
    Scheme,
    Table,
    Weight,
    divided,
    whole,
)

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The column of each nibble of a word, from the lowest."""
_MLX_BITS = (2, 3, 4, 5, 6, 8)
_MLX_GROUPS = (32, 64, 128)


def gptq_or_awq(table: Table, module: str) -> Weight | None:
    """`qweight`, `qzeros` and `scales`, whose shapes say along which axis codes are packed."""
    names = [joined(module, last) for last in ("qweight", "qzeros", "scales")]
    codes, zeros = table.of(names[0], "I32 U32", 2), table.of(names[1], "I32 U32", 2)
    scales = table.floats(names[2], 2)
    if codes is None or zeros is None or scales is None or zeros.shape[0] != scales.shape[0]:
        return None
    (groups, outputs), packed = scales.shape, codes.shape
    bits = divided(32 * zeros.shape[1], outputs)
    if bits not in (2, 3, 4, 8):
        return None
    if packed[1] == outputs:
        inputs = divided(32 * packed[0], bits)
        return None if inputs is None else _gptq(table, module, bits, (outputs, inputs, groups))
    if bits == 4 and packed[1] * 8 == outputs and (group := divided(packed[0], groups)):
        scheme = Scheme("AWQ", 4, group)
        decode = _Awq(names, group)
        shape = (outputs, packed[0])
        return Weight(joined(module, "weight"), scheme, tuple(names), shape, *shape, decode)
    return None


def _gptq(table: Table, module: str, bits: int, sizes: tuple[int, int, int]) -> Weight | None:
    """The weight of codes packed along the inputs.

    Args:
        table: the version.
        module: whose weight it is.
        bits: of a code.
        sizes: outputs, inputs and groups of these.
    """
    outputs, inputs, groups = sizes
    names = [joined(module, last) for last in ("qweight", "qzeros", "scales", "g_idx")]
    places = table.of(names[3], "I32 I64", 1)
    if places is not None and places.shape != (inputs,):
        return None
    stated = _method(table.config)
    group = divided(inputs, groups)
    size = stated.get("group_size")
    if group is None and type(size) is int and size > 0 and -(-inputs // size) == groups:
        group = size
    offset = 0 if stated.get("checkpoint_format") == "gptq_v2" else 1
    decode = None
    if places is not None or group is not None:
        decode = _Gptq(names, bits, (inputs, outputs), offset, None if places else group)
    parts = tuple(names if places is not None else names[:3])
    scheme = Scheme("GPTQ", bits, group)
    return Weight(
        joined(module, "weight"), scheme, parts, (outputs, inputs), outputs, inputs, decode
    )


def _method(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("quantization_config")
    return found if isinstance(found, Mapping) else {}


class _Gptq:
    """Codes along the inputs, zero points along the outputs, stored less one but for version 2."""

    def __init__(
        self, names: list[str], bits: int, sizes: tuple[int, int], offset: int, group: int | None
    ) -> None:
        self._names, self._bits, self._sizes = names, bits, sizes
        self._offset, self._group = offset, group

    def __call__(self, parts: Parts, start: int, stop: int) -> Numbers:
        codes, zeros, scales, places = self._names
        bits, (inputs, outputs) = self._bits, self._sizes
        words = np.ascontiguousarray(parts.whole(codes)[:, start:stop].T)
        found = unpack(words, bits, inputs).astype(np.int16)
        zero = unpack(parts.whole(zeros), bits, outputs)[:, start:stop].astype(np.int16)
        zero = (zero + self._offset) & ((1 << bits) - 1)
        scale = parts.all_numbers(scales)[:, start:stop]
        if self._group is None:
            at = parts.whole(places).astype(np.int64)
        else:
            at = np.arange(inputs) // self._group
        return (found - zero.T[:, at]) * scale.T[:, at]


class _Awq:
    """Eight codes of neighbouring outputs in a word, in an order of their own."""

    def __init__(self, names: list[str], group: int) -> None:
        self._codes, self._zeros, self._scales = names
        self._group = group

    def __call__(self, parts: Parts, start: int, stop: int) -> Numbers:
        first, last = start // 8, -(-stop // 8)
        within = slice(start - 8 * first, stop - 8 * first)
        codes, zeros = (
            self._columns(parts.whole(name)[:, first:last])[:, within]
            for name in (self._codes, self._zeros)
        )
        scale = parts.all_numbers(self._scales)[:, start:stop]
        at = np.arange(len(codes)) // self._group
        found: Numbers = ((codes - zeros[at]) * scale[at]).T
        return found

    @staticmethod
    def _columns(words: Any) -> Any:
        nibbles = unpack(words, 4, 8 * words.shape[1]).reshape(len(words), -1, 8)
        ordered = np.empty_like(nibbles)
        ordered[:, :, list(_AWQ_ORDER)] = nibbles
        return ordered.reshape(len(words), -1).astype(np.int16)


def compressed(table: Table, module: str) -> Weight | None:
    """`weight_packed` in words of 32 bits with `weight_shape`, as compressed-tensors packs it."""
    names = {last: joined(module, f"weight_{last}") for last in ("packed", "scale", "zero_point")}
    codes, scale = table.of(names["packed"], "I32", 2), table.floats(names["scale"])
    shape = table.integers(joined(module, "weight_shape"))
    if codes is None or scale is None or shape is None or len(shape) != 2:
        return None
    rows, columns = shape
    fitting = [bits for bits in range(1, 9) if -(-columns * bits // 32) == codes.shape[1]]
    groups = scale.count // rows if rows > 0 and scale.count % rows == 0 else 0
    if rows != codes.shape[0] or len(fitting) != 1 or (scale.count != 1 and not groups):
        return None
    group = divided(columns, groups) if groups else None
    if groups and group is None:
        return None
    (bits,) = fitting
    zeros = table.of(names["zero_point"], "I32", 2)
    parts = [names["packed"], names["scale"], joined(module, "weight_shape")]
    if names["zero_point"] in table.tensors:
        if zeros is None or zeros.shape != (-(-rows * bits // 32), groups):
            return None
        parts.append(names["zero_point"])
    ordered = joined(module, "weight_g_idx")
    if ordered in table.tensors:
        parts.append(ordered)
    words = "" if groups > 1 else "a scale for each row" if groups else "one scale"
    scheme = Scheme("compressed-tensors", bits, group if groups > 1 else None, words)
    decode = None
    if ordered not in table.tensors:
        zero = names["zero_point"] if zeros is not None else None
        decode = _Compressed(parts[0], parts[1], zero, (rows, columns, bits), max(groups, 1))
    return Weight(joined(module, "weight"), scheme, tuple(parts), shape, rows, columns, decode)


class _Compressed:
    """Codes in a row of bits, moved up by half their range; zero points are packed by rows."""

    def __init__(
        self, codes: str, scales: str, zeros: str | None, sizes: tuple[int, int, int], groups: int
    ) -> None:
        self._codes, self._scales, self._zeros = codes, scales, zeros
        self._sizes, self._groups = sizes, groups

    def __call__(self, parts: Parts, start: int, stop: int) -> Numbers:
        rows, columns, bits = self._sizes
        words = -(-columns * bits // 32)
        packed = parts.raw(self._codes, start * words, stop * words).reshape(-1, words)
        codes = unpack(packed, bits, columns).astype(np.int16) - (1 << bits - 1)
        grouped = codes.reshape(stop - start, self._groups, -1).astype(np.float32)
        scales = parts.all_numbers(self._scales).ravel()
        scale = scales.reshape(rows, -1)[start:stop] if len(scales) > 1 else scales.reshape(1, 1)
        if self._zeros is not None:
            zero = unpack(np.ascontiguousarray(parts.whole(self._zeros).T), bits, rows)
            grouped -= (zero.T[start:stop].astype(np.int16) - (1 << bits - 1))[:, :, None]
        return (grouped * scale[:, :, None]).reshape(stop - start, columns)


def exllama(table: Table, module: str) -> Weight | None:
    """EXL2 and EXL3, by how many bits a weight takes; what their codes mean is left alone."""
    codes, order = (joined(module, last) for last in ("q_weight", "q_invperm"))
    scales = [joined(module, last) for last in ("q_scale", "q_scale_max", "q_groups")]
    words, places = table.of(codes, "I32", 2), table.of(order, "I16 I32", 1)
    name = joined(module, "weight")
    if words is not None and places is not None and all(one in table.tensors for one in scales):
        outputs, inputs = words.shape[1], places.shape[0]
        if not inputs or not outputs:
            return None
        found = Scheme("EXL2", 32 * words.shape[0] / inputs)
        return Weight(name, found, (codes, order, *scales), (outputs, inputs))
    codes = joined(module, "trellis")
    tiles = table.of(codes, "I16", 3)
    signs = [joined(module, last) for last in ("suh", "svh", "su", "sv")]
    beside = [one for one in signs if one in table.tensors]
    if tiles is None or len(beside) != 2 or not (bits := divided(tiles.shape[2], 16)):
        return None
    shape = (16 * tiles.shape[1], 16 * tiles.shape[0])
    return Weight(name, Scheme("EXL3", bits), (codes, *beside), shape) if bits <= 8 else None


def mlx(table: Table, module: str) -> Iterator[Weight]:
    """Codes in U32 with `scales` and `biases`: MLX's affine quantisation.

    Codes of 4 bits in groups of 64 have the shapes of those of 8 bits in groups of 32: the
    configuration tells them, for the whole model or for a layer.
    """
    names = tuple(joined(module, last) for last in ("weight", "scales", "biases"))
    codes, scales, biases = table.of(names[0], "U32"), *(table.floats(one) for one in names[1:])
    if codes is None or scales is None or biases is None or biases.shape != scales.shape:
        return
    if len(codes.shape) < 2 or codes.shape[:-1] != scales.shape[:-1] or not scales.shape[-1]:
        return
    product = whole(32 * codes.shape[-1] / scales.shape[-1])
    fitting = [
        (bits, product // bits)
        for bits in _MLX_BITS
        if product and product % bits == 0 and product // bits in _MLX_GROUPS
    ]
    stated = mlx_settings(table.config, module)
    if stated is not None:
        fitting = [one for one in fitting if one == (stated.get("bits"), stated.get("group_size"))]
    if len(fitting) != 1:
        return
    ((bits, group),) = fitting
    columns = group * scales.shape[-1]
    shape = (*codes.shape[:-1], columns)
    decode = _Mlx(names, bits, group)
    yield Weight(names[0], Scheme("MLX", bits, group), names, shape, scales.count, group, decode)


def mlx_settings(config: Mapping[str, Any], module: str) -> Mapping[str, Any] | None:
    """What a configuration says of a module: its own settings before those of all."""
    found = config.get("quantization")
    if not isinstance(found, Mapping):
        return None
    own = found.get(module)
    return {**found, **own} if isinstance(own, Mapping) else found


class _Mlx:
    """Codes times a scale plus a bias; rows here are groups."""

    def __init__(self, names: tuple[str, ...], bits: int, group: int) -> None:
        self._names, self._bits, self._group = names, bits, group

    def __call__(self, parts: Parts, start: int, stop: int) -> Numbers:
        codes, scales, biases = self._names
        size = self._bits * self._group // 32
        words = parts.raw(codes, start * size, stop * size).reshape(-1, size)
        found = unpack(words, self._bits, self._group).astype(np.float32)
        scale, bias = (parts.numbers(name, start, stop)[:, None] for name in (scales, biases))
        return found * scale + bias
