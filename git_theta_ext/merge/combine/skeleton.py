"""What holds the merged tensors: a side's header or pickle as it is, or a header built anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from git_theta_ext.core.errors import FormatError, ManifestError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.formats import distcp, safetensors
from git_theta_ext.formats.archives import contents as archives
from git_theta_ext.formats.archives import stored, tar
from git_theta_ext.formats.base import Layout
from git_theta_ext.formats.base import Literal as LiteralSegment
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.skeleton import Skeleton, SpanRef
from git_theta_ext.formats.pickles.contents import Contents, contents
from git_theta_ext.formats.torch import distributed
from git_theta_ext.manifest.model import Block, Manifest
from git_theta_ext.merge.combine.pickles import Verdict, judge
from git_theta_ext.merge.decide.decisions import Plan
from git_theta_ext.merge.decide.decisions import Side as Version
from git_theta_ext.merge.decide.kinds import is_counter_name
from git_theta_ext.objects.blocks import Blocks

Side = Literal["ours", "theirs"]

NAME = "structure (header or pickle)"
"""How what holds the tensors is named where it is open."""
_READ: Mapping[str, Callable[[Skeleton, Mapping[str, int]], Contents]] = {
    "torch-zip": contents, distcp.NAME: distcp.contents, distributed.NAME: distributed.contents,
    **{name: partial(archives.contents, name) for name in (tar.NAME, stored.NAME)},
}  # fmt: skip
"""The containers whose structure can be compared value by value."""
_OTHER_NAMES = "needs a structure in which its tensors have other names"


@dataclass(frozen=True, slots=True)
class Structure:
    """The skeleton of the result and the tensors that fit into it.

    `side` is the version whose skeleton it is, None for one that was built; `reason` says why it is
    open (then ours stands); `tensors` are the types that the skeleton holds, by name.
    """

    format: str
    block: Block
    tensors: Mapping[str, TensorInfo]
    side: Version | None
    reason: str = ""


def settle(plan: Plan, blocks: Blocks, prefer: Side | None = None) -> Structure:
    """Find or build what holds the tensors that the plan wants.

    Args:
        plan: what the result is to hold.
        blocks: skeletons are read from it, and a built one is written to it.
        prefer: the side that is to win where both sides changed the structure differently.
    """
    wanted = {one.name: one.standing for one in plan.decisions if one.standing is not None}
    if plan.side is not None:
        return _coupled(plan, wanted, blocks, plan.side, prefer)
    base = plan.base.skeleton.sha256 if plan.base else None
    ours, theirs = plan.ours.skeleton.sha256, plan.theirs.skeleton.sha256
    fits = [
        one not in plan.followed and _fits(wanted, manifest)
        for one, manifest in (("ours", plan.ours), ("theirs", plan.theirs))
    ]
    if fits[0] and theirs in (base, ours):
        return _taken(plan, "ours")
    if fits[1] and ours == base:
        return _taken(plan, "theirs")
    formats = {plan.ours.format, plan.theirs.format}
    if formats == {safetensors.NAME}:
        return _build(plan, wanted, blocks, prefer)
    verdict = _verdict(plan, fits, blocks)
    if verdict.side is not None:
        return _taken(plan, verdict.side)
    if prefer in plan.followed:
        other: Side = "theirs" if prefer == "ours" else "ours"
        return replace(_taken(plan, other), reason=f"{prefer} has old names of renamed tensors")
    standing: Side = "theirs" if "ours" in plan.followed else "ours"
    return _taken(plan, prefer or standing, "" if prefer else verdict.reason)


def _coupled(
    plan: Plan,
    wanted: Mapping[str, TensorInfo],
    blocks: Blocks,
    side: Version,
    prefer: Side | None,
) -> Structure:
    """What must come from one version, because tensors that were taken from it need it."""
    manifest = {"ours": plan.ours, "theirs": plan.theirs, "base": plan.base}[side]
    torn = prefer is not None and prefer != side and not plan.open_group
    reason = f"{plan.coupled} comes from {side}, and needs its structure" if torn else ""
    if manifest is None:
        return _taken(plan, "ours", f"{plan.coupled} {_OTHER_NAMES}")
    renamed = side in plan.followed
    formats = {plan.ours.format, plan.theirs.format, manifest.format}
    if formats == {safetensors.NAME} and (renamed or not _fits(wanted, manifest)):
        return replace(_build(plan, wanted, blocks, prefer, side), reason=reason)
    if renamed:
        # A side that has the new names stands: the tensors are called by these.
        standing: Side = "theirs" if "ours" in plan.followed else "ours"
        return _taken(plan, standing, f"{plan.coupled} {_OTHER_NAMES}")
    return _taken(plan, side, reason)


def _fits(wanted: Mapping[str, TensorInfo], manifest: Manifest) -> bool:
    return wanted == {entry.tensor.name: entry.tensor for entry in manifest.entries}


def _taken(plan: Plan, side: Version, reason: str = "") -> Structure:
    manifest = plan.base if side == "base" else plan.theirs if side == "theirs" else plan.ours
    if manifest is None:
        raise ValueError("there is no base")
    tensors = {entry.tensor.name: entry.tensor for entry in manifest.entries}
    return Structure(manifest.format, manifest.skeleton, tensors, side, reason)


def _verdict(plan: Plan, fits: Sequence[bool], blocks: Blocks) -> Verdict:
    """Which side of a container that cannot be built may stand, or why neither."""
    if plan.base is None:
        return Verdict(None, "both sides added the file")
    if not any(fits):
        return Verdict(None, "both sides added, removed or retyped tensors")
    if plan.ours.format != plan.theirs.format:
        return Verdict(None, f"ours is {plan.ours.format}, theirs is {plan.theirs.format}")
    if plan.ours.format not in _READ or plan.base.format != plan.ours.format:
        return Verdict(None, "both sides changed it")
    try:
        versions: tuple[tuple[Version, Manifest], ...] = (
            ("base", plan.base), ("ours", plan.ours), ("theirs", plan.theirs)
        )  # fmt: skip
        sides = [_contents(one, plan.followed.get(side, {}), blocks) for side, one in versions]
    except FormatError as error:
        return Verdict(None, f"both sides changed it ({error.message})")
    verdict = judge(*sides)
    if verdict.side is not None and not fits[verdict.side == "theirs"]:
        return Verdict(None, "the side that changed the pickle lacks tensors of the other")
    return verdict


def _contents(manifest: Manifest, names: Mapping[str, str], blocks: Blocks) -> Contents:
    lengths = {
        names.get(entry.tensor.name, entry.tensor.name): entry.tensor.nbytes
        for entry in manifest.entries
    }
    return _READ[manifest.format](_read(manifest, blocks), lengths)


def _read(manifest: Manifest, blocks: Blocks) -> Skeleton:
    return blocks.skeleton(manifest)


def _build(
    plan: Plan,
    wanted: Mapping[str, TensorInfo],
    blocks: Blocks,
    prefer: Side | None,
    whole: Version | None = None,
) -> Structure:
    """A new safetensors header: the tensors in the order of both sides, the metadata merged.

    `whole` is the version whose metadata stands as it is, where not to be merged.
    """
    manifests = (plan.base, plan.ours, plan.theirs)
    skeletons = [_read(one, blocks) if one is not None else None for one in manifests]
    ours = _order(skeletons[1], plan.followed.get("ours", {}))
    theirs = _order(skeletons[2], plan.followed.get("theirs", {}))
    names = list(dict.fromkeys((*merge_order(ours, theirs), *wanted)))
    names = [name for name in names if name in wanted]
    found = [_metadata(one) for one in skeletons]
    merged, clashes = merge_metadata(found[0], found[1], found[2], prefer)
    if whole is not None:
        merged, clashes = found[("base", "ours", "theirs").index(whole)], []
    layout = safetensors.build({name: wanted[name] for name in names}, None, merged)
    data = skeleton.encode(layout)
    block = blocks.write_bytes(data, predecessor=plan.ours.skeleton)
    for side in (plan.theirs, plan.ours):
        if side.skeleton.sha256 == block.sha256:
            block = side.skeleton
    reason = f"both sides changed the metadata {', '.join(clashes[:5])}" if clashes else ""
    return Structure(safetensors.NAME, block, dict(wanted), None, reason)


def _order(found: Skeleton | None, followed: Mapping[str, str]) -> list[str]:
    new = {old: name for name, old in followed.items()}
    segments = () if found is None else found.segments
    return [
        new.get(segment.name, segment.name) for segment in segments if isinstance(segment, SpanRef)
    ]


def _metadata(found: Skeleton | None) -> dict[str, str]:
    first = found.segments[0] if found is not None and found.segments else None
    if not isinstance(first, LiteralSegment):
        return {}
    try:
        return safetensors.metadata(Layout(safetensors.NAME, (first,)))
    except FormatError as error:
        raise ManifestError(f"the structure of a side is damaged: {error.message}") from error


def merge_order(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """The names of both, in the order of ours; a name of theirs alone follows its predecessor."""
    known = set(ours)
    after: dict[str | None, list[str]] = {}
    previous: str | None = None
    for name in theirs:
        if name in known:
            previous = name
        else:
            after.setdefault(previous, []).append(name)
    merged = list(after.get(None, ()))
    for name in ours:
        merged.append(name)
        merged += after.get(name, ())
    return merged


def merge_metadata(
    base: Mapping[str, str],
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    prefer: Side | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Three-way merge, key by key: the metadata, and the keys that both changed differently.

    For those the preferred side stands, else ours; of counters (`step`, `epoch`) the larger.

    Args:
        base, ours, theirs: the metadata of the three versions.
        prefer: the side that wins; None: ours stands, and the key is reported.
    """
    merged: dict[str, str] = {}
    clashes = []
    for key in dict.fromkeys((*ours, *theirs)):
        old, mine, yours = base.get(key), ours.get(key), theirs.get(key)
        if yours in (mine, old):
            value = mine
        elif mine == old:
            value = yours
        elif is_counter_name(key) and _number(mine) is not None and _number(yours) is not None:
            value = max((mine, yours), key=lambda text: _number(text) or 0)
        else:
            value = yours if prefer == "theirs" else mine
            if prefer is None:
                clashes.append(key)
        if value is not None:
            merged[key] = value
    return merged, clashes


def _number(text: str | None) -> int | None:
    plain = text is not None and text.isascii() and text.isdigit() and len(text) < 20
    return int(text) if text is not None and plain else None
