"""What became of a tensor: its blocks, its figures, and why it is open in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from git_theta_ext.manifest.model import Block
from git_theta_ext.merge.combine.tensor import Versions
from git_theta_ext.merge.combine.values import Measure
from git_theta_ext.merge.strategies.choice import Choice


@dataclass(frozen=True, slots=True)
class Left:
    """Entries that stay open.

    `count` is how many of those that all versions have; `bad` of them are no numbers, and `beyond`
    would be infinite or NaN though they are made of finite numbers. `rows` are entries of rows that
    several sides added differently.
    """

    count: int = 0
    bad: int = 0
    beyond: int = 0
    rows: int = 0

    def __add__(self, other: Left) -> Left:
        return Left(
            self.count + other.count,
            self.bad + other.bad,
            self.beyond + other.beyond,
            self.rows + other.rows,
        )


@dataclass(frozen=True, slots=True)
class BlockResult:
    """One block, stored; its figures, and what stays open in it."""

    block: Block
    measure: Measure
    left: Left = Left()


@dataclass(frozen=True, slots=True)
class TensorResult:
    """The blocks of the merged tensor, its figures, and why it is open (empty if it is not)."""

    blocks: tuple[Block, ...]
    measure: Measure
    reason: str = ""


def gathered(
    done: Iterable[BlockResult], versions: Versions, choice: Choice, *, several: bool
) -> TensorResult:
    """The result of a tensor from those of its blocks, which come in order.

    Args:
        done: the blocks; consumed as they come.
        versions: what was merged.
        choice: how; a reset leaves nothing open.
        several: whether the sides are some of more than two, so that they have no names.
    """
    blocks, total, left = [], Measure(), Left()
    for one in done:
        blocks.append(one.block)
        total += one.measure
        left += one.left
    rows = left.rows or _unequal_rows(versions)
    if rows and choice.strategy != "zero":
        return TensorResult(tuple(blocks), total, _rows(versions, several))
    if left.beyond:
        reason = (
            f"{left.beyond:,} entries would be infinite or NaN, beyond the range of "
            f"{versions.tensor.dtype.name}"
        )
        return TensorResult(tuple(blocks), total, reason)
    return TensorResult(tuple(blocks), total, _collided(total, left, several))


def _unequal_rows(versions: Versions) -> int:
    """Entries of rows that not all sides have that added some, where those of one side stand."""
    counts = [side.count for side in versions.grown]
    return 0 if versions.stacked or not counts else max(counts) - min(counts)


def _rows(versions: Versions, several: bool) -> str:
    rows = [side.entry.tensor.shape[0] for side in versions.sides]
    if several:
        every = ", ".join(str(count) for count in rows)
        return f"several sides added rows ({every} in all); the result has those of the first"
    return (
        f"both sides added rows, {rows[0]} in ours and {rows[1]} in theirs; the result has those "
        "of ours (stack keeps both)"
    )


def _collided(total: Measure, left: Left, several: bool) -> str:
    if not left.count:
        return ""
    if total.nan_ours or total.nan_theirs:
        if several:
            return f"{total.nan_ours + total.nan_theirs:,} NaN on some sides only"
        counts = (("ours", total.nan_ours), ("theirs", total.nan_theirs))
        return " and ".join(f"{count:,} NaN in {side} only" for side, count in counts if count)
    if left.bad:
        return f"{left.bad:,} entries that collide are NaN or infinite"
    who = "several sides" if several else "both sides"
    return f"{who} changed {left.count:,} of {total.entries:,} entries"
