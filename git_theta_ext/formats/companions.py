"""Containers whose data files are described by another file beside them.

Git's filter gets the content of one path at a time, and the neighbour may be absent, older or newer
than what is added. So a neighbour is a claim that is checked against the data: a tensor's CRC-32C,
or where there is none that all it says lies within the file and fills it. Whether it is asked at
all is decided in `git_theta_ext.checkpoints.companions`; a checkout never needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, ChangedWhileReadError, FormatError
from git_theta_ext.formats import check, distcp, neighbours, onnx, openvino
from git_theta_ext.formats.arrays import n5, orbax, zarr
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.settle import settle
from git_theta_ext.formats.tensorflow import checkpoint
from git_theta_ext.formats.torch import zero, zipped

_KINDS = (
    (checkpoint.NAME, neighbours.tensorflow_index, checkpoint.layout_beside),
    (onnx.EXTERNAL, neighbours.onnx_model, onnx.layout_beside),
    (openvino.NAME, neighbours.openvino_graph, openvino.layout_beside),
    (distcp.NAME, neighbours.distcp_metadata, distcp.layout_beside),
    (zipped.NAME, neighbours.zero_states, zero.layout_beside),
)

Open = Callable[[str], Source | None]
"""Gives the file at a path, None if there is none."""

Part = Callable[[str, int, int], bytes | None]
"""Gives bytes of the file at a path, at an offset, of a length; None if they are not there."""

_Attempt = tuple[str, Callable[[], Layout | None]]


def names() -> list[str]:
    """The containers that are told by a neighbour."""
    return [*(name for name, _, _ in _KINDS), zarr.NAME, n5.NAME, orbax.NAME]


def read_layout(source: Source, path: str, opened: Open, part: Part | None = None) -> Layout | None:
    """The layout of a data file by the files beside it, checked; None where they do not fit.

    An opaque one with a remark where that is past a limit.

    Args:
        source: the file.
        path: where it lies, with slashes.
        opened: gives the whole of a file that describes others.
        part: gives parts of a data file beside it; by default of what `opened` gives.
    """
    remark = ""
    for name, attempt in _attempts(source, path, opened, part or partial(_part, opened)):
        try:
            found = attempt()
            if found is None:
                continue
            found = replace(found, format=name)
            check(found, source.size)
            found = settle(found, source)
        except BoundError as error:
            remark = error.message
            continue
        except (FormatError, ChangedWhileReadError, RecursionError, MemoryError):
            continue
        return found
    return replace(opaque.layout(source), remark=remark) if remark else None


def _attempts(source: Source, path: str, opened: Open, part: Part) -> Iterator[_Attempt]:
    """What may tell of a file of this name, and what reads its layout by that."""
    for name, find, read in _KINDS:
        wanted = find(path)
        other = opened(wanted) if wanted is not None else None
        if other is not None and other.size <= limits.NEIGHBOUR_BYTES:
            yield name, partial(read, source, path, other)
    if neighbours.is_zarr_chunk(path):
        yield zarr.NAME, partial(zarr.layout_within, source, path, opened)
    if neighbours.is_n5_block(path):
        yield n5.NAME, partial(n5.layout_within, source, path, opened)
    if neighbours.orbax_data(path):
        yield orbax.NAME, partial(orbax.layout_within, source, path, opened, part)


def _part(opened: Open, path: str, offset: int, length: int) -> bytes | None:
    """Bytes of a file; None where it is not there, or too short."""
    found = opened(path)
    if found is None or offset + length > found.size:
        return None
    return found.read(offset, length)
