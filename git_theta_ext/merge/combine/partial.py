"""A manifest of some tensors of another version, and all else as it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from git_theta_ext.core.errors import FormatError, ManifestError
from git_theta_ext.formats import gguf
from git_theta_ext.formats.base import Layout, Literal
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.merge.combine.apply import Merged, carry_out
from git_theta_ext.merge.combine.skeleton import Structure
from git_theta_ext.merge.decide.decisions import content_of
from git_theta_ext.merge.decide.partial import expected, plan_part, why_open
from git_theta_ext.objects.blocks import Blocks

Reasons = Mapping[str, str]
"""Why it cannot be made, by the names of tensors."""


def combine_part(
    now: Manifest, source: Manifest, wanted: Collection[str], blocks: Blocks, *, joined: bool
) -> Manifest | Reasons:
    """The wanted tensors as the source has them, all others as they are; or why that cannot be.

    Args:
        now: gives all else, and the structure where the tensors fit into it.
        source: one that lacks a wanted tensor takes it away.
        wanted: names.
        blocks: structures are read from it, and one that was built is written to it.
        joined: whether these are the shards of models: then each finds its own structure later.

    Raises:
        ThetaError: an object is missing or damaged, or the store cannot be written.
    """
    hope = {name: content_of(one) for name, one in expected(now, source, wanted).items()}
    if hope == {name: content_of(one) for name, one in now.by_name().items()}:
        return now
    if now.format == source.format == gguf.NAME:
        if reasons := _other_types(now, source, wanted, blocks):
            return reasons
        source = replace(source, skeleton=now.skeleton)
    plan = plan_part(now, source, wanted)
    if reasons := why_open(plan, wanted):
        return reasons
    if joined and plan.side == "theirs" and now.skeleton.sha256 != source.skeleton.sha256:
        return {plan.coupled: "it needs the structure that all shards have there"}
    holds = {one.name: one.standing for one in plan.decisions if one.standing is not None}
    holder = Structure(now.format, now.skeleton, holds, "ours") if joined else None
    merged = carry_out(plan, blocks, None, None, holder)
    if merged.open:
        return _unfit(merged, now, wanted)
    found = {name: content_of(one) for name, one in merged.manifest.by_name().items()}
    lost = [name for name in {**hope, **found} if hope.get(name) != found.get(name)]
    return dict.fromkeys(lost, "it cannot be taken by itself") if lost else merged.manifest


def _other_types(
    now: Manifest, source: Manifest, wanted: Collection[str], blocks: Blocks
) -> dict[str, str]:
    """The tensors of GGUF files that have another type in the source: the header gives it.

    Blocks of several types have the same form, so that neither shape nor length tells.
    """
    here, there = (_types(one, blocks) for one in (now, source))
    both = now.by_name().keys() & source.by_name().keys() & set(wanted)
    return {
        name: f"{here.get(name)} now, {there.get(name)} in the source"
        for name in sorted(both)
        if name not in here or here[name] != there.get(name)
    }


def _types(manifest: Manifest, blocks: Blocks) -> dict[str, str]:
    first = blocks.skeleton(manifest).segments[:1]
    try:
        return gguf.types(Layout(gguf.NAME, tuple(s for s in first if isinstance(s, Literal))))
    except FormatError as error:
        raise ManifestError(f"the structure is damaged: {error.message}") from error


def _unfit(merged: Merged, now: Manifest, wanted: Collection[str]) -> dict[str, str]:
    """Why a result does not fit into a structure; where tensors are not why, as the merge says."""
    before, found = now.by_name(), {}
    for one in merged.outcomes:
        tensor, then = one.decision.standing, before.get(one.name)
        held = None if then is None else then.tensor
        if one.name not in wanted or held == tensor:
            continue
        if held is None:
            found[one.name] = "it is not there now"
        elif tensor is None:
            found[one.name] = "it is not in the source"
        else:
            found[one.name] = (
                f"{held.dtype.name} {list(held.shape)} now, {tensor.dtype.name} "
                f"{list(tensor.shape)} in the source"
            )
    more = f", and a {now.format} file cannot be given other tensors"
    return {name: why + more for name, why in found.items()} or merged.open


def differences(
    before: Manifest, after: Manifest
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The names of the tensors that changed, came, and went."""
    old, new = before.by_name(), after.by_name()
    return (
        tuple(n for n, one in new.items() if n in old and content_of(one) != content_of(old[n])),
        tuple(name for name in new if name not in old),
        tuple(name for name in old if name not in new),
    )
