"""The opaque format: any bytes at all, cut where the content says so."""

from __future__ import annotations

from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Source, Span

NAME = "opaque"
CONTENT = "content"


def layout(source: Source) -> Layout:
    """The whole file as one opaque span."""
    tensor = TensorInfo(CONTENT, DTYPES["U8"], (source.size,))
    return Layout(NAME, (Span(tensor, opaque=True),))
