"""Plain pickles and joblib's: NumPy arrays as tensors, all else literal.

Arrays have raw bytes from protocol 3 on (and in pickles of Python 2); before, they are text, and
the file is opaque. Big-endian arrays and long byte strings are opaque spans. So are structured
arrays, by their names: scikit-learn has the nodes of a tree as one (`estimators_.0.tree_.nodes`).
"""

from __future__ import annotations

from dataclasses import replace

from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Layout, Source, Span
from git_theta_ext.formats.layout.storages import OPAQUE_BYTES, Piece, Storage, tile
from git_theta_ext.formats.layout.tiles import assemble
from git_theta_ext.formats.layout.views import View
from git_theta_ext.formats.pickles.stream import StreamMachine
from git_theta_ext.formats.torch.names import find_views

NAME = "pickle"


def sniff(head: bytes, source: Source) -> bool:
    """The PROTO opcode and a protocol from 2 to 5."""
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def layout(source: Source) -> Layout:
    """Arrays as tensors, named by their path from the top of the pickle.

    Raises:
        FormatError: damaged, past a limit, or without any array.
    """
    machine = StreamMachine(source, 0)
    by_key: dict[str, list[View]] = {}
    for view in find_views(machine.run()):
        by_key.setdefault(view.key, []).append(view)
    storages, views = [], []
    for number, raw in enumerate(machine.raws):
        named = by_key.pop(raw.key, [])
        if named or raw.length >= OPAQUE_BYTES:
            storages.append(Storage(f"bytes.{number}", raw.offset, raw.length))
            views.append(named)
    if not storages:
        raise FormatError("pickle: no arrays with raw bytes")
    tiled = tile(storages, views)
    records = {view.name for group in views for view in group if view.dtype is None}
    pieces = [
        _kept_whole(piece) if piece.span.tensor.name in records else piece for piece in tiled.pieces
    ]
    return Layout(NAME, assemble(source, pieces), tiled.aliases, ties=tiled.ties)


def _kept_whole(piece: Piece) -> Piece:
    """The bytes of a structured array: no part of them means anything by itself."""
    return replace(piece, span=Span(piece.span.tensor, opaque=True))
