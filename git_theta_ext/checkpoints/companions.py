"""Layouts of files that only a file beside them explains, so that the same bytes stay the same.

First the manifest that the index or HEAD has of the path: if its blocks are those of the file, its
layout is the file's, whatever lies beside. Then the neighbour in the work tree, if it fits. Then
the file is opaque. So a checkout needs no neighbour, and neither does cleaning it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from git_theta_ext import formats
from git_theta_ext.core import limits
from git_theta_ext.core.errors import ManifestError, ThetaError
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.formats import neighbours
from git_theta_ext.formats.base import (
    Crc32,
    Layout,
    Literal,
    Segment,
    SerializationId,
    Source,
    Span,
)
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.places import segment_length
from git_theta_ext.formats.layout.settle import settle
from git_theta_ext.formats.layout.skeleton import SpanRef
from git_theta_ext.formats.layout.source import BytesSource, FileSource
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.objects.blocks import Blocks


def read_layout(
    source: Source, path: str, folder: Path | None, known: Iterable[Manifest], blocks: Blocks | None
) -> Layout:
    """How a file is made up, asking what describes it from outside where it says nothing itself.

    Args:
        source: the file.
        path: from `folder`, with slashes.
        folder: where neighbours lie; None where there is no work tree.
        known: manifests of the same path, the likeliest first.
        blocks: where their skeletons are read; None if there are none.

    Raises:
        ChangedWhileReadError: the file became shorter while it was read.
    """
    found = formats.read_layout(source)
    if not neighbours.has_neighbour(path):
        return found
    from git_theta_ext.formats import companions  # few files ask for it, and it has many readers

    tells = found.format not in (opaque.NAME, *companions.names())
    named = not any(isinstance(segment, Span) for segment in found.segments)
    if tells or named:
        return found
    for manifest in known:
        adopted = _adopted(source, manifest, blocks) if blocks is not None else None
        if adopted is not None:
            return adopted
    told = _told(source, path, folder) if folder is not None else None
    if told is None or told.format != opaque.NAME:
        return told or found
    return replace(found, remark=told.remark)


def _told(source: Source, path: str, folder: Path) -> Layout | None:
    """The layout by the file beside this one, read whole: it may be written to meanwhile."""
    from git_theta_ext.formats import companions

    def opened(name: str) -> Source | None:
        if not WorkTree(folder).has_file(name):
            return None
        with suppress(OSError, ThetaError), FileSource(folder / name) as file:
            if file.size <= limits.NEIGHBOUR_BYTES:
                return BytesSource(file.read(0, file.size))
        return None

    def part(name: str, offset: int, length: int) -> bytes | None:
        if name == path:
            return source.read(offset, length)
        if not WorkTree(folder).has_file(name):
            return None
        with suppress(OSError, ThetaError), FileSource(folder / name) as file:
            return file.read(offset, length)
        return None

    return companions.read_layout(source, path, opened, part)


def _adopted(source: Source, manifest: Manifest, blocks: Blocks) -> Layout | None:
    """The layout that a manifest has, if the file's bytes are those that it stands for."""
    from git_theta_ext.formats import companions

    if manifest.format not in (*companions.names(), opaque.NAME):
        return None
    try:
        blocks.ensure(manifest.skeleton.objects())
        segments = blocks.skeleton(manifest).segments
    except ThetaError:
        return None
    entries = manifest.by_name()
    made: list[Segment] = []
    places: list[tuple[int, BlockSpec, str]] = []
    offset = 0
    for segment in segments:
        if isinstance(segment, SpanRef) and segment.name in entries:
            entry = entries[segment.name]
            made.append(Span(entry.tensor, entry.opaque))
            places += _places(entry, offset)
            offset += entry.tensor.nbytes
        elif isinstance(segment, Literal):
            made.append(segment)
            at, offset = offset, offset + len(segment.data)
            if offset > source.size or source.read(at, len(segment.data)) != segment.data:
                return None
        elif isinstance(segment, Crc32 | SerializationId):
            made.append(segment)
            offset += segment_length(segment)
        else:
            return None
    if offset != source.size:
        return None

    def same(place: tuple[int, BlockSpec, str]) -> bool:
        data = source.read(place[0], place[1].nbytes)
        return hashlib.sha256(data).hexdigest() == place[2]

    answers = ordered_map(same, places, lambda place: place[1].nbytes)
    layout = Layout(manifest.format, tuple(made))
    return layout if all(answers) and settle(layout, source) == layout else None


def _places(entry: Entry, offset: int) -> Iterable[tuple[int, BlockSpec, str]]:
    specs = entry.specs()
    if len(specs) != len(entry.blocks):
        raise ManifestError(f"tensor {entry.tensor.name!r} does not have its blocks")
    for spec, block in zip(specs, entry.blocks, strict=True):
        yield offset, spec, block.sha256
        offset += spec.nbytes
