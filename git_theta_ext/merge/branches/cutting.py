"""The tensors of a result, cut into shards as a version of the model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from git_theta_ext.checkpoints import shards as sharded
from git_theta_ext.checkpoints.shards import Model
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.formats import safetensors
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.skeleton import Skeleton, SpanRef
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.merge.combine.skeleton import merge_metadata, merge_order
from git_theta_ext.objects.blocks import Blocks


def places_of(model: Model) -> dict[str, str]:
    """Which shard holds each tensor; the first one of a tensor that several hold alike."""
    found: dict[str, str] = {}
    for path, manifest in model.shards:
        for entry in manifest.entries:
            found.setdefault(entry.tensor.name, path)
    return found


def cut_as(
    mine: Model, other: Model, base: Model | None, result: Manifest, blocks: Blocks
) -> dict[str, Manifest]:
    """The manifest of every shard of a result, by its path.

    Args:
        mine: the version that says which shard holds what; its metadata stands.
        other: where the tensors are from that it lacks: each follows its predecessor there.
        base: what both come from, for their metadata.
        result: all tensors.
        blocks: skeletons are read from it, and built ones are written to it.

    Raises:
        UsageError: a container that cannot be given other tensors would have to be.
    """
    entries = result.by_name()
    places = places_of(mine)
    orders = [_order(one, blocks) for one in (mine, other)]
    held: dict[str, list[str]] = {path: [] for path, _ in mine.shards}
    last = next(iter(held))
    for name in merge_order(*orders):
        last = places.get(name, last)
        if name in entries:
            held[last].append(name)
    texts = [_metadata(one, blocks) for one in (base, other)]
    return {
        path: _shard(path, manifest, [entries[name] for name in held[path]], texts, blocks)
        for path, manifest in mine.shards
        if held[path] or not manifest.entries
    }


def _read(manifest: Manifest, blocks: Blocks) -> Skeleton:
    return blocks.skeleton(manifest)


def _order(model: Model, blocks: Blocks) -> list[str]:
    """The names of all tensors, shard by shard, in the order in which the files hold them."""
    names = dict.fromkeys(
        segment.name
        for manifest in model.parts
        for segment in _read(manifest, blocks).segments
        if isinstance(segment, SpanRef)
    )
    return list(names)


def _metadata(model: Model | None, blocks: Blocks) -> dict[str, str]:
    """The metadata of all shards; the first one's where they differ."""
    found: dict[str, str] = {}
    for manifest in model.parts if model else ():
        found = {**sharded.metadata(manifest, _read(manifest, blocks).segments), **found}
    return found


def _shard(
    path: str,
    manifest: Manifest,
    entries: Sequence[Entry],
    texts: Sequence[Mapping[str, str]],
    blocks: Blocks,
) -> Manifest:
    """One shard of the result: a side's own structure where the tensors fit, else a new header.

    Args:
        path: of the shard, for messages.
        manifest: that of the side that says which shard holds what.
        entries: what the shard is to hold, in order.
        texts: the metadata of the base and of the other side, all shards together.
        blocks: skeletons are read from it, and a built one is written to it.
    """
    fits = {one.tensor.name: one.tensor for one in entries} == {
        one.tensor.name: one.tensor for one in manifest.entries
    }
    base, other = texts
    own = sharded.metadata(manifest, _read(manifest, blocks).segments)
    merged, _ = merge_metadata(base, own, other, "ours")
    block = manifest.skeleton
    if manifest.format == safetensors.NAME and (merged != own or not fits):
        layout = safetensors.build({one.tensor.name: one.tensor for one in entries}, None, merged)
        block = blocks.write_bytes(skeleton.encode(layout), predecessor=block)
        blocks.store.flush()
    elif not fits:
        raise UsageError(
            f"{path}: a {manifest.format} file cannot be given the tensors of the other side",
            hint="take a side: --strategy ours or theirs; or save the shards as safetensors",
        )
    ordered = sorted(entries, key=lambda entry: natural_key(entry.tensor.name))
    return Manifest(manifest.format, block, tuple(ordered))
