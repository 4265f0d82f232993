"""Containers whose data files are described by another file beside them.

Git's filter gets the content of one path at a time, and the neighbour may be absent, older or newer
than what is added. So a neighbour is a claim that is checked against the data: a tensor's CRC-32C,
or where there is none that all it says lies within the file and fills it. Whether it is asked at
all is decided in `git_theta_ext.checkpoints.companions`; a checkout never needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, ChangedWhileReadError, FormatError
from git_theta_ext.formats import check, distcp, onnx, openvino
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.settle import settle
from git_theta_ext.formats.tensorflow import checkpoint
from git_theta_ext.formats.torch import zero, zipped

_KINDS = (
    (checkpoint.NAME, checkpoint.neighbour, checkpoint.layout_beside),
    (onnx.EXTERNAL, onnx.neighbour, onnx.layout_beside),
    (openvino.NAME, openvino.neighbour, openvino.layout_beside),
    (distcp.NAME, distcp.neighbour, distcp.layout_beside),
    (zipped.NAME, zero.neighbour, zero.layout_beside),
)

Open = Callable[[str], Source | None]
"""Gives the file at a path, None if there is none."""


def names() -> list[str]:
    """The containers that are told by a neighbour."""
    return [name for name, _, _ in _KINDS]


def has_neighbour(path: str) -> bool:
    """Whether a file of this name may be described by another one."""
    return any(find(path) is not None for _, find, _ in _KINDS)


def read_layout(source: Source, path: str, opened: Open) -> Layout | None:
    """The layout of a data file by the file beside it, checked; None where that does not fit.

    An opaque one with a remark where that is past a limit.
    """
    remark = ""
    for name, find, read in _KINDS:
        wanted = find(path)
        other = opened(wanted) if wanted is not None else None
        if other is None or other.size > limits.NEIGHBOUR_BYTES:
            continue
        try:
            found = replace(read(source, path, other), format=name)
            check(found, source.size)
            found = settle(found, source)
        except BoundError as error:
            remark = error.message
            continue
        except (FormatError, ChangedWhileReadError, RecursionError, MemoryError):
            continue
        return found
    return replace(opaque.layout(source), remark=remark) if remark else None
