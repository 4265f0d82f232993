"""The table of a report that has a checkpoint's modules: whose they are, and how far they moved."""

from __future__ import annotations

from collections.abc import Iterator

from git_theta_ext.comparison.division import Division, Part
from git_theta_ext.comparison.report.text import percentage
from git_theta_ext.core.text import plural, size

HEADS = ("module", "owners", "tensors", "change", "stores")
MOST = 30
"""Modules that a table has; the rest is counted."""


def changed(division: Division | None) -> list[Part]:
    """The modules to be shown: those that changed; none where no module is about a checkpoint."""
    return [] if division is None else [part for part in division.parts if part.changed]


def cells(part: Part) -> tuple[str, str, str, str, str]:
    """Module, owners, tensors that changed of all, how far they moved, and what they store."""
    module = part.module
    moved = part.measure.relative
    return (
        f"{module.name} (frozen)" if module.frozen else module.name,
        ", ".join(module.owners),
        f"{part.changed:,} of {part.tensors:,}",
        "" if moved is None else percentage(moved),
        size(part.stored) if part.stored else "",
    )


def remarks(division: Division) -> Iterator[str]:
    """Sentences below the table: how many modules it leaves out, and what changed outside them."""
    parts = changed(division)
    if len(parts) > MOST:
        yield f"and {plural(len(parts) - MOST, 'more module')} that changed"
    same = len(division.parts) - len(parts)
    if same:
        yield f"{plural(same, 'module is', 'modules are')} as before"
    for count, where in ((len(division.outside), "no module"), (len(division.several), "several")):
        if count:
            yield f"{plural(count, 'changed tensor is', 'changed tensors are')} in {where}"
