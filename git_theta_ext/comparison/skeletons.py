"""What a checkpoint says besides its tensors: metadata, pickled settings and counters, order."""

from __future__ import annotations

from dataclasses import dataclass

from git_theta_ext.comparison.facts import facts
from git_theta_ext.core.errors import FormatError, ManifestError
from git_theta_ext.core.names import natural_key
from git_theta_ext.formats.layout import skeleton
from git_theta_ext.formats.layout.skeleton import Skeleton, SpanRef
from git_theta_ext.manifest.model import Manifest

MAX_NOTES = 2000
"""Differences that are listed; the rest is counted."""


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
        then, now = facts(old[0], before), facts(new[0], after)
    except (FormatError, ManifestError) as error:
        return (Note("structure", None, f"cannot be read: {error.message}"),)
    except (RecursionError, KeyError, ValueError) as error:
        return (Note("structure", None, f"cannot be read: {error!r}"),)
    names = sorted({*then, *now}, key=natural_key)
    notes = [
        Note(name, then.get(name), now.get(name))
        for name in names
        if then.get(name) != now.get(name)
    ]
    if len(notes) > MAX_NOTES:
        left = len(notes) - MAX_NOTES
        notes[MAX_NOTES:] = [Note("and more", None, f"{left:,} further differences")]
    if moved := _reordered(before, after):
        notes.append(Note("order of the tensors", None, f"changed, from {moved} on"))
    return tuple(notes)


def _reordered(before: Skeleton, after: Skeleton) -> str | None:
    """The first tensor that stands elsewhere among those that both have; None if none does."""
    then, now = _order(before), _order(after)
    common = set(then) & set(now)
    pairs = zip(
        (name for name in then if name in common),
        (name for name in now if name in common),
        strict=True,
    )
    return next((new for old, new in pairs if old != new), None)


def _order(found: Skeleton) -> list[str]:
    return [segment.name for segment in found.segments if isinstance(segment, SpanRef)]
