"""What an entry must satisfy beyond its syntax; the reader and the writer both ask here."""

from __future__ import annotations

from git_theta_ext.core import limits
from git_theta_ext.core.tensors import DTYPES, INLINE_BYTES, TensorInfo, cut, is_one_block
from git_theta_ext.manifest.model import Block, Entry

MAX_INT = (1 << 63) - 1
CHUNK_BYTES = 2 << 20
"""The longest chunk of opaque bytes."""


def entry_problem(entry: Entry) -> str | None:
    """What makes an entry impossible, or its blocks not fit its tensor; None if all is well."""
    info, blocks = entry.tensor, entry.blocks
    if problem := _tensor_problem(info):
        return problem
    if entry.opaque:
        return _opaque_problem(info, blocks)
    if is_one_block(info):
        if len(blocks) == 1 and blocks[0].nbytes == info.nbytes:
            return None
        return f"expected one block of {info.nbytes} bytes, found {_sizes(blocks)}"
    at = 0
    # Lazily, for a hostile shape has more blocks than there is memory.
    for at, spec in enumerate(cut(info), start=1):
        found = blocks[at - 1].nbytes if at <= len(blocks) else None
        if found != spec.nbytes:
            return f"expected block {at} to be of {spec.nbytes} bytes, found {found}"
    return None if at == len(blocks) else f"expected {at} blocks, found {len(blocks)}"


def _tensor_problem(info: TensorInfo) -> str | None:
    if DTYPES.get(info.dtype.name) != info.dtype:
        return f"expected a known dtype, found {info.dtype.name}"
    if len(info.shape) > limits.AXES:
        return f"expected at most {limits.AXES} axes, found {len(info.shape)}"
    if info.shape and not 0 <= min(info.shape) <= max(info.shape) <= MAX_INT:
        return "expected axes of 0 to 2^63 - 1"
    if info.order is not None and sorted(info.order) != list(range(len(info.shape))):
        return f"expected an order of {len(info.shape)} axes, found {info.order}"
    if info.nbytes > MAX_INT:
        return f"expected a tensor below 2^63 bytes, found {info.nbytes}"
    return None


def _sizes(blocks: tuple[Block, ...]) -> str:
    return f"{len(blocks)} of {sum(block.nbytes for block in blocks)} in all"


def _opaque_problem(info: TensorInfo, blocks: tuple[Block, ...]) -> str | None:
    if info.dtype.name != "U8" or len(info.shape) != 1 or info.order is not None:
        return "expected opaque bytes to be U8 with one axis"
    if sum(block.nbytes for block in blocks) != info.nbytes or not blocks:
        return f"expected chunks of {info.nbytes} bytes in all, found {_sizes(blocks)}"
    if info.nbytes <= INLINE_BYTES and len(blocks) != 1:
        return f"expected one block of {info.nbytes} bytes, found {_sizes(blocks)}"
    for block in blocks:
        if block.nbytes > CHUNK_BYTES or (block.nbytes == 0 and info.nbytes):
            return f"expected chunks of 1 to {CHUNK_BYTES} bytes, found {block.nbytes}"
    return None
