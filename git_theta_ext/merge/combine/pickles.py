"""Two PyTorch archives whose pickles both changed: may one side's stand for both?

A pickle is never put together from two. But where all that one side changed in it are counters
(epoch, step), the other side's pickle says everything, and the merge may take it whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from git_theta_ext.formats.pickles.contents import Contents, Leaves, Path
from git_theta_ext.merge.decide.kinds import is_counter_name


@dataclass(frozen=True, slots=True)
class Verdict:
    """The side whose structure may stand for both, or None and what speaks against it."""

    side: Literal["ours", "theirs"] | None
    reason: str = ""


def judge(base: Contents, ours: Contents, theirs: Contents) -> Verdict:
    """Whether one side's pickles may stand for both.

    The side taken is the one that changed more than counters; where both changed only counters,
    the one whose first differing counter is larger.
    """
    for name in sorted({*ours.files, *theirs.files}):
        if ours.files.get(name) != theirs.files.get(name):
            return Verdict(None, f"{name} differs")
    moved = [
        path
        for path in dict.fromkeys((*ours.leaves, *theirs.leaves))
        if ours.leaves.get(path) != theirs.leaves.get(path)
    ]
    by_ours = [path for path in moved if ours.leaves.get(path) != base.leaves.get(path)]
    by_theirs = [path for path in moved if theirs.leaves.get(path) != base.leaves.get(path)]
    lost_of_ours = [p for p in by_ours if not _counter(p, ours.leaves, theirs.leaves)]
    lost_of_theirs = [p for p in by_theirs if not _counter(p, ours.leaves, theirs.leaves)]
    if not lost_of_ours and not lost_of_theirs:
        return Verdict(_ahead(moved, ours.leaves, theirs.leaves))
    if not lost_of_theirs:
        return Verdict("ours")
    if not lost_of_ours:
        return Verdict("theirs")
    return Verdict(
        None, f"ours changed {_named(lost_of_ours)}; theirs changed {_named(lost_of_theirs)}"
    )


def _counter(path: Path, ours: Leaves, theirs: Leaves) -> bool:
    pair = ours.get(path), theirs.get(path)
    numbers = all(leaf is not None and leaf[0] in ("int", "float") for leaf in pair)
    # A list of counters, such as `milestones`, is told by the key that it stands under.
    key = next((part for part in reversed(path) if not part.isdecimal()), "")
    return numbers and is_counter_name(key)


def _ahead(moved: list[Path], ours: Leaves, theirs: Leaves) -> Literal["ours", "theirs"]:
    for path in moved:
        if float(str(theirs[path][1])) != float(str(ours[path][1])):
            return "theirs" if float(str(theirs[path][1])) > float(str(ours[path][1])) else "ours"
    return "ours"


def _named(paths: list[Path]) -> str:
    shown = [".".join(path[1:])[:80] or path[0] for path in paths[:3]]
    return ", ".join(shown) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
