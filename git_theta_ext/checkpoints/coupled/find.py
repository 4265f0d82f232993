"""The quantised weights of a version: of which kind, with how many bits, in which groups."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from git_theta_ext.checkpoints.coupled import integers, libraries, small_floats
from git_theta_ext.checkpoints.coupled.ggml import DECODE
from git_theta_ext.checkpoints.coupled.layouts import module_of
from git_theta_ext.checkpoints.coupled.schemes import Numbers, Parts, Scheme, Table, Weight
from git_theta_ext.formats import gguf

_BY_LAST = {
    "qweight": integers.gptq_or_awq,
    "q_weight": integers.exllama,
    "trellis": integers.exllama,
    "_weight_qdata": libraries.torchao,
    "W_q": libraries.hqq,
    "qdata": libraries.torchao_saved,
}
"""What looks at a module, by the last part of the name of its codes."""


def weights(table: Table) -> dict[str, Weight]:
    """The quantised weights of a version, by their names, in the order of their codes.

    Where two kinds would fit, none is named.
    """
    found: dict[str, Weight] = {}
    twice: set[str] = set()
    for name in table.tensors:
        for weight in _of(table, name):
            if weight.name in found:
                twice.add(weight.name)
            found[weight.name] = weight
    return {name: weight for name, weight in found.items() if name not in twice}


def _of(table: Table, name: str) -> Iterator[Weight]:
    """The weights whose codes a tensor may be."""
    module = module_of(name)
    last = name[len(module) + bool(module) :]
    candidates: list[Weight | None] = []
    if name in table.types:
        candidates.append(_ggml(table, name))
    elif last in _BY_LAST:
        candidates.append(_BY_LAST[last](table, module))
    elif last == "weight_packed":
        candidates += [integers.compressed(table, module), small_floats.packed(table, module)]
    elif last == "_data":
        owner = module.removesuffix("._data")
        candidates.append(libraries.quanto(table, owner))
    elif last.endswith("_blocks"):
        candidates.append(small_floats.blocks(table, name.removesuffix("_blocks")))
    elif last == "weight":
        candidates += [
            libraries.bitsandbytes(table, name),
            *integers.mlx(table, module),
            small_floats.mlx(table, module),
            small_floats.packed(table, module),
            small_floats.eight_bits(table, module),
        ]
    yield from filter(None, candidates)


_QUANTISED = frozenset(DECODE) | {
    "Q8_1", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ3_S", "IQ2_S", "IQ1_M"
}  # fmt: skip


def _ggml(table: Table, name: str) -> Weight | None:
    """A tensor in blocks of a GGUF type, which the file states."""
    tensor, kind = table.of(name, "U8"), table.types[name]
    if tensor is None or kind not in _QUANTISED or len(tensor.shape) < 2:
        return None
    *rows, blocks, size = tensor.shape
    group = gguf.block_of(kind)
    if not size or group[1] != size:
        return None
    decode = partial(_blocks, name=name, size=size, kind=kind) if kind in DECODE else None
    count = tensor.count // size
    scheme = Scheme(kind, _code_bits(kind), None, f"blocks of {group[0]}")
    shape = (*rows, blocks * group[0])
    return Weight(name, scheme, (name,), shape, count, group[0], decode)


def _code_bits(kind: str) -> float:
    """Bits of a code, which the names of the types have: `Q4_K`; TQ1_0 has digits of three."""
    return 1.58 if kind == "TQ1_0" else float(next(filter(str.isdigit, kind)))


def _blocks(parts: Parts, start: int, stop: int, *, name: str, size: int, kind: str) -> Numbers:
    data = parts.raw(name, start * size, stop * size).reshape(-1, size)
    with np.errstate(over="ignore", invalid="ignore"):
        return DECODE[kind](data)
