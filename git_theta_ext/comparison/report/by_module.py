"""A comparison cut into the modules of `.theta.toml`, as lines and as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from git_theta_ext.checkpoints.modules import Module, Modules
from git_theta_ext.comparison.compare import Change, Comparison
from git_theta_ext.comparison.division import divided
from git_theta_ext.comparison.report.text import Style, percentage, render, summary
from git_theta_ext.core.terminal import BOLD
from git_theta_ext.core.text import plural, printable, size

NONE = "(no module)"
"""What the tensors of no module are listed under."""


@dataclass(frozen=True, slots=True)
class Part:
    """What changed in one module, None for the tensors of none; `tensors` counts all that it has.

    A tensor of several modules is in each of them.
    """

    module: Module | None
    comparison: Comparison
    tensors: int

    @property
    def name(self) -> str:
        """What it is listed under."""
        return NONE if self.module is None else self.module.name


def cut(path: str, comparison: Comparison, modules: Modules) -> list[Part]:
    """The modules that changed, in the order of the file, then what belongs to none.

    Raises:
        UsageError: the names need more work than is allowed.
    """
    division = divided(comparison, modules, path)
    parts = () if division is None else division.parts
    found = [
        Part(one.module, _part(comparison, one.changes), one.tensors)
        for one in parts if one.changes
    ]  # fmt: skip
    held = {change.name for one in parts for change in one.changes}
    rest = [change for change in comparison.changes if change.name not in held]
    if rest:
        same = sum(not modules.of(path, name) for name in comparison.unchanged)
        found.append(Part(None, _part(comparison, rest), len(rest) + same))
    return found


def _part(whole: Comparison, changes: Sequence[Change]) -> Comparison:
    """Some changes of a comparison, and nothing of what is outside the tensors."""
    return replace(
        whole, changes=tuple(changes), notes=(), structure_changed=False, unchanged=(),
        stored=sum(change.stored for change in changes),
    )  # fmt: skip


def lines(
    path: str,
    comparison: Comparison,
    modules: Modules,
    style: Style,
    options: Mapping[str, bool],
) -> Iterator[str]:
    """As `text.render`, the groups of tensors under the names of their modules.

    Args:
        path: what to call the checkpoint; modules may be about some paths only.
        comparison: what differs.
        modules: the parts.
        style: colours and characters.
        options: those of `text.render`.
    """
    yield style.paint(BOLD, "  ".join([printable(path), summary(comparison)]))
    for part in cut(path, comparison, modules):
        yield f"  {style.paint(BOLD, part.name)}  {_summary(part)}"
        rows = render(path, part.comparison, style, **options)
        next(rows)
        yield from (f"  {row}" for row in rows)
    rest = render(path, replace(comparison, changes=()), style, **options)
    next(rest)
    yield from rest


def _summary(part: Part) -> str:
    found = part.comparison
    words = [f"{len(found.changes):,} of {plural(part.tensors, 'tensor')} changed"]
    if (moved := found.measure.relative) is not None and math.isfinite(moved):
        words.append(f"change {percentage(moved)}")
    words.append(f"stores {size(found.stored)}")
    if part.module is not None:
        words += [" ".join(part.module.owners)] if part.module.owners else []
        words += ["frozen"] if part.module.frozen else []
    return " · ".join(words)


def records(path: str, comparison: Comparison, modules: Modules) -> list[dict[str, Any]]:
    """The modules that changed, for JSON; sizes in bytes, the name None for those of none."""
    found = []
    for part in cut(path, comparison, modules):
        moved = part.comparison.measure.relative
        found.append(
            {
                "name": None if part.module is None else part.module.name,
                "owners": [] if part.module is None else list(part.module.owners),
                "frozen": part.module is not None and part.module.frozen,
                "tensors": part.tensors,
                "changed": [change.name for change in part.comparison.changes],
                "change": moved if moved is not None and math.isfinite(moved) else None,
                "stored": part.comparison.stored,
            }
        )
    return found
