"""Tensors on their way into another file: which ones, under which names, in which dtypes.

Values that are cast are rounded once, to nearest, ties to even; a NaN becomes the quiet one with
its sign. Integers, booleans, complex numbers, and elements of eight bits and less are never cast:
the latter mean nothing without their scales, and scales stay as they are, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.core import patterns
from git_theta_ext.core.arrays import as_array
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import DTYPES, DType, TensorInfo
from git_theta_ext.core.values import Values, raw_bytes, to_odd, values_dtype
from git_theta_ext.formats.base import Layout, Literal, Span
from git_theta_ext.formats.layout.derived import Checksums
from git_theta_ext.formats.layout.places import segment_length
from git_theta_ext.updates.arithmetic import first_special, pieces
from git_theta_ext.updates.cast import convert

_CAST = ("F64", "F32", "F16", "BF16")
_SPELLED = {
    "f64": "F64", "fp64": "F64", "float64": "F64", "double": "F64",
    "f32": "F32", "fp32": "F32", "float32": "F32", "float": "F32",
    "f16": "F16", "fp16": "F16", "float16": "F16", "half": "F16",
    "bf16": "BF16", "bfloat16": "BF16",
}  # fmt: skip

Pieces = Callable[[str], Iterable[memoryview]]
"""The bytes of the tensor of a name, in pieces of a bounded size where that can be."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One tensor of a checkpoint, and what it becomes in the new file."""

    source: TensorInfo
    """As the checkpoint has it, by its name there."""
    reads: str
    """The tensor of the checkpoint that has its bytes; it has another name where two are tied."""
    becomes: TensorInfo

    @property
    def is_cast(self) -> bool:
        """Whether its values are rounded, or widened."""
        return self.source.dtype != self.becomes.dtype


def dtype_named(text: str) -> DType:
    """The element type that `--dtype` stands for: `bf16`, `float16`, `F32` and so on.

    Raises:
        UsageError: there is none of that name, or values are not cast to it.
    """
    found = _SPELLED.get(text.removeprefix("torch.").lower())
    if found is None:
        raise UsageError(f"unknown dtype {text!r}; known: bf16, f16, f32, f64")
    return DTYPES[found]


def casts(dtype: DType) -> bool:
    """Whether elements of a type may be cast to another one."""
    return dtype.name in _CAST


def outgoing(
    infos: Iterable[TensorInfo],
    *,
    ties: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    strip_prefix: str = "",
    dtype: DType | None = None,
) -> dict[str, Outgoing]:
    """What becomes of tensors, by their new names, in their order.

    Args:
        infos: of the tensors that are wanted.
        ties: names among them that the checkpoint has under another one.
        drop: patterns of names, as they are in the checkpoint, that are left out.
        strip_prefix: what names lose at the beginning; those that do not begin so stay.
        dtype: what floats are cast to; None leaves them.

    Raises:
        UsageError: a pattern or the prefix matches nothing, all are dropped, or two tensors would
            have one name.
    """
    left = list(infos)
    for pattern in drop:
        matching = set(patterns.select((info.name for info in left), [pattern]))
        if not matching:
            raise UsageError(f"--drop {pattern!r} matches no tensor")
        left = [info for info in left if info.name not in matching]
    if drop and not left:
        raise UsageError("--drop leaves no tensor over")
    if strip_prefix and not any(info.name.startswith(strip_prefix) for info in left):
        raise UsageError(f"--strip-prefix {strip_prefix!r}: no tensor begins so")
    found: dict[str, Outgoing] = {}
    scales = scales_among(left)
    for info in left:
        name = info.name.removeprefix(strip_prefix)
        if not name:
            raise UsageError(f"--strip-prefix {strip_prefix!r} leaves nothing of a tensor's name")
        if name in found:
            raise UsageError(
                f"--strip-prefix {strip_prefix!r}: {found[name].source.name!r} and {info.name!r} "
                f"would both be {name!r}",
                hint="leave one of them out with --drop",
            )
        kept = info.name in scales or not casts(info.dtype)
        becomes = replace(info, name=name, dtype=info.dtype if kept or dtype is None else dtype)
        found[name] = Outgoing(info, (ties or {}).get(info.name, info.name), becomes)
    return found


_CODES = frozenset(
    {"I8", "U8", "I32", "U32", "QI8", "QU8", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
     "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "QU4X2", "QU2X4"}
)  # fmt: skip
"""Element types of quantised weights."""


def scales_among(infos: Iterable[TensorInfo]) -> set[str]:
    """The names of floats that stand beside codes: in their module, or below their name.

    Codes are tensors of two or more axes of the types that weights are quantised to; `q.scales`
    stands beside `q.qweight`, and `q.weight.absmax` below `q.weight`.
    """
    infos = list(infos)
    codes = {info.name for info in infos if info.dtype.name in _CODES and len(info.shape) >= 2}
    modules = {name.rpartition(".")[0] for name in codes} - {""}
    return {
        info.name
        for info in infos
        if casts(info.dtype)
        and ((parent := info.name.rpartition(".")[0]) in modules or parent in codes)
    }


def rounded(values: Values, old: DType, new: DType) -> Values:
    """Values in another dtype, rounded once, to nearest, ties to even.

    Args:
        values: raw bits, flat, of F64, F32, F16 or BF16.
        old: their dtype.
        new: one of these.
    """
    if old.name == "F64" and new.name in ("F16", "BF16"):
        # By a float32 that is rounded to odd: its bits decide as all bits would.
        odd = np.empty(len(values), np.float32)
        for part in pieces(len(values)):
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                odd[part] = to_odd(values[part].view(np.float64))
        values, old = odd.view(np.uint32), DTYPES["F32"]
    return convert(old, new, values, saturate=False)


def _count_infinite(values: Values, dtype: DType) -> int:
    bits = values.itemsize * 8
    size = values & values.dtype.type((1 << (bits - 1)) - 1)
    return int(np.count_nonzero(size == first_special(dtype, bits)))


def pieces_of(
    checkpoint: Checkpoint, wanted: Mapping[str, Outgoing], *, allow_overflow: bool = False
) -> Pieces:
    """Reads tensors as they go out, by their new names.

    Args:
        checkpoint: has them.
        wanted: by their new names; their `becomes` says in which memory order.
        allow_overflow: numbers that the new dtype is too small for may become infinite.

    Returns:
        A function that raises UsageError where numbers become infinite and must not.
    """

    def read(name: str) -> Iterator[memoryview]:
        one = wanted[name]
        infinite = 0
        for data in _read(checkpoint, one):
            if not one.is_cast:
                yield raw_bytes(data)
                continue
            values = data.view(values_dtype(one.source.dtype))
            new = rounded(values, one.source.dtype, one.becomes.dtype)
            infinite += _count_infinite(new, one.becomes.dtype)
            infinite -= _count_infinite(values, one.source.dtype)
            yield raw_bytes(new.view(np.uint8))
        if infinite and not allow_overflow:
            raise UsageError(
                f"tensor {one.source.name!r} has {infinite:,} numbers that are too large for "
                f"{one.becomes.dtype.name}: they would be infinite",
                hint="choose bf16, which has the range of F32, or accept it with --allow-overflow",
            )

    return read


def _read(checkpoint: Checkpoint, one: Outgoing) -> Iterator[NDArray[np.uint8]]:
    if one.source.order == one.becomes.order:
        yield from checkpoint.pieces(one.reads)
        return
    array: NDArray[Any] = np.ascontiguousarray(as_array(one.source, checkpoint.raw(one.reads)))
    yield array.reshape(-1).view(np.uint8)


class Target(Protocol):
    """A file that can be sought in, if the layout has fields that follow from other bytes."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Take the next bytes; how many it took."""
        ...

    def tell(self) -> int:
        """Where the next byte goes."""
        ...

    def seek(self, offset: int, /) -> int:
        """Go on there."""
        ...


def write_layout(layout: Layout, read: Pieces, file: Target) -> None:
    """Write a layout; derived fields are filled in last.

    Args:
        layout: what is written.
        read: gives the bytes of its spans' tensors.
        file: can be sought in.
    """
    lengths = [segment_length(segment) for segment in layout.segments]
    sums = Checksums(layout.segments, lengths)
    fields: list[tuple[int, int]] = []
    for number, segment in enumerate(layout.segments):
        data: Iterable[memoryview]
        if isinstance(segment, Literal):
            data = [memoryview(segment.data)]
        elif isinstance(segment, Span):
            data = read(segment.tensor.name)
        else:
            fields.append((number, file.tell()))
            data = [memoryview(bytes(lengths[number]))]
        for piece in data:
            file.write(piece)
            if sums.covered(number):
                sums.feed(number, piece)
    for number, offset in fields:
        file.seek(offset)
        file.write(sums.value(number))
