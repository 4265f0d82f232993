"""What a manifest says in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.formats.layout.places import skeleton_length
from git_theta_ext.manifest.model import Block, Manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.reachable import objects


@dataclass(frozen=True, slots=True)
class Summary:
    """What a manifest says in numbers; sizes in bytes.

    `parameters` counts the elements of all tensors; `stored` the objects it names, each once.
    `raw` is the length of the file, without `exact` about so: the structure of the file, which
    tells how long it is, is not on this machine.
    """

    format: str
    tensors: int
    parameters: int
    raw: int
    stored: int
    opaque: int
    exact: bool = True


def summarise(manifest: Manifest, blocks: Blocks) -> Summary:
    """The numbers of one manifest; spans of unknown meaning count as no tensors."""
    length = file_size(manifest, blocks)
    tensors = [entry.tensor for entry in manifest.entries if not entry.opaque]
    return Summary(
        format=manifest.format,
        tensors=len(tensors),
        parameters=sum(tensor.count for tensor in tensors),
        raw=sum(block.nbytes for block in _blocks(manifest)) if length is None else length,
        stored=sum(objects(manifest).values()),
        opaque=sum(
            block.nbytes for entry in manifest.entries if entry.opaque for block in entry.blocks
        ),
        exact=length is not None,
    )


def file_size(manifest: Manifest, blocks: Blocks) -> int | None:
    """The length of the file in bytes; None where its structure is not here, or is damaged.

    Nothing is fetched, and no tensor is read.
    """
    if not all(blocks.store.has(ref.oid, ref.size) for ref in manifest.skeleton.objects()):
        return None
    tensors = {entry.tensor.name: entry.tensor.nbytes for entry in manifest.entries}
    try:
        segments = blocks.skeleton(manifest).segments
        return sum(skeleton_length(segment, tensors) for segment in segments)
    except (ThetaError, KeyError):
        return None


def _blocks(manifest: Manifest) -> Iterator[Block]:
    yield manifest.skeleton
    for entry in manifest.entries:
        yield from entry.blocks
