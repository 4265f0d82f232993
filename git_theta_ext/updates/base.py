"""The contract of an update: a prediction of a block, and the exact residual to the truth.

An update turns the values of a block into a *parameter file* (a safetensors file whose metadata
says how to decode it) given the values of its predecessor, and back. The law, tested for every
kind, every dtype and every bit pattern of the 8- and 16-bit ones:

    decode(encode(new, base), base) == new, bit for bit

whatever the prediction was: a wrong guess costs space, never correctness. Decoding is determined
by the parameter file and the base alone; it does not depend on the machine, on the number of
threads, or on a linear-algebra library.

Values are flat arrays of unsigned integers (`uint8`, `uint16`, `uint32`, `uint64`, little-endian
in the file), the raw bits of the elements in file order. Complex elements are two consecutive
values; dtypes without a numeric order (BOOL, packed sub-byte types) are bytes.

A predecessor may be of another dtype or shape than its successor. The successor's parameter file
then says so in its setting `base` (`dtype` and `shape`), and a chain is read from its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BLOCK_BYTES, DTYPES, BlockSpec
from git_theta_ext.core.values import Values


def base_spec(settings: Mapping[str, Any]) -> BlockSpec | None:
    """What the predecessor of an update is, where that is not what the update's own block is.

    Raises:
        CorruptObjectError: the settings name no such block, or one larger than blocks are.
    """
    stated = settings.get("base")
    if stated is None:
        return None
    try:
        dtype, shape = DTYPES[stated["dtype"]], tuple(stated["shape"])
        fits = all(type(extent) is int and 0 <= extent <= BLOCK_BYTES for extent in shape)
    except (KeyError, TypeError) as error:
        raise CorruptObjectError(f"a predecessor of {stated!r} is not known") from error
    spec = BlockSpec(dtype, shape)
    if not fits or len(shape) > 64 or spec.nbytes > BLOCK_BYTES:
        raise CorruptObjectError(f"a predecessor of {stated!r} is no block")
    return spec


Part = bytes | bytearray | memoryview | NDArray[Any]
"""The content of one named tensor of a parameter file."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An update, ready to be stored: the pieces of its parameter file, in order.

    `info` is what a reader of the manifest wants to know (`rank=8`, `change=0.9%`): short,
    deterministic, never needed to decode.
    """

    kind: str
    pieces: Sequence[bytes | memoryview]
    info: tuple[tuple[str, str], ...] = ()

    @property
    def nbytes(self) -> int:
        """Length of the parameter file."""
        return sum(memoryview(piece).nbytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Parameters:
    """A parsed parameter file: its kind, its JSON settings, and its parts as raw bytes."""

    kind: str
    settings: Mapping[str, Any]
    parts: Mapping[str, memoryview] = field(default_factory=dict)


class Update(Protocol):
    """One kind of update. A module of `updates` offers one, and the registry names it."""

    kind: ClassVar[str]
    needs_base: ClassVar[bool]

    def encode(self, spec: BlockSpec, new: Values, base: Values | None) -> Encoded | None:
        """The update that makes `new` of `base`, or None where this kind does not apply.

        `new` and `base` must not be written to.
        """
        ...

    def decode(self, spec: BlockSpec, parameters: Parameters, base: Values | None) -> Values:
        """The values that were encoded. May write into `base` and return it.

        Raises:
            CorruptObjectError: the parameters do not describe a block of this spec. Memory and
                time stay within a small multiple of the block's size whatever they say.
        """
        ...
