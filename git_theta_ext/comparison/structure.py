"""What a checkpoint says besides its tensors: metadata, pickled settings and counters, order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from git_theta_ext.errors import FormatError, ManifestError
from git_theta_ext.formats import safetensors, skeleton
from git_theta_ext.formats.base import Layout, Literal
from git_theta_ext.formats.skeleton import Skeleton, SpanRef
from git_theta_ext.manifest import Manifest
from git_theta_ext.merge.pickles import contents
from git_theta_ext.names import natural_key
from git_theta_ext.sharded import container

_PLAIN = {"int", "float", "str", "bool", "NoneType"}
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Note:
    """One thing outside the tensors that differs; None where it is not there."""

    name: str
    old: str | None
    new: str | None


def compare_structures(
    old: tuple[Manifest, bytes], new: tuple[Manifest, bytes]
) -> tuple[Note, ...]:
    """What differs outside the tensors of two versions, by name.

    Args:
        old, new: a manifest and the bytes of its skeleton.
    """
    try:
        before, after = skeleton.decode(old[1]), skeleton.decode(new[1])
        then, now = _facts(old[0], before), _facts(new[0], after)
    except (FormatError, ManifestError) as error:
        return (Note("structure", None, f"cannot be read: {error.message}"),)
    names = sorted({*then, *now}, key=natural_key)
    notes = [
        Note(name, then.get(name), now.get(name))
        for name in names
        if then.get(name) != now.get(name)
    ]
    if _reordered(before, after):
        notes.append(Note("order of the tensors", None, "changed"))
    return tuple(notes)


def _reordered(before: Skeleton, after: Skeleton) -> bool:
    then, now = _order(before), _order(after)
    common = set(then) & set(now)
    return [name for name in then if name in common] != [name for name in now if name in common]


def _order(found: Skeleton) -> list[str]:
    return [segment.name for segment in found.segments if isinstance(segment, SpanRef)]


def _facts(manifest: Manifest, found: Skeleton) -> Mapping[str, str]:
    if container(manifest) == safetensors.NAME and found.segments:
        first = found.segments[0]
        if isinstance(first, Literal):
            return _safetensors(first)
    if manifest.format == "torch-zip":
        lengths = {entry.tensor.name: entry.tensor.nbytes for entry in manifest.entries}
        return _pickled(found, lengths)
    return {}


def _safetensors(header: Literal) -> dict[str, str]:
    metadata = safetensors.metadata(Layout(safetensors.NAME, (header,)))
    return {f"metadata.{key}": _cut(value) for key, value in metadata.items()}


def _pickled(found: Skeleton, lengths: Mapping[str, int]) -> dict[str, str]:
    """The plain values of the pickles, by path; where a tensor lies is not one of them."""
    facts = {}
    for path, (kind, value) in contents(found, lengths).leaves.items():
        if kind in _PLAIN and not {"()", "args", "persistent"} & set(path):
            facts[".".join(path[1:])] = _cut(repr(value) if kind == "str" else str(value))
    return facts


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"
