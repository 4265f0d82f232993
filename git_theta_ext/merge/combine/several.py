"""Merge three or more versions of a checkpoint at once, with the strategies for many sides.

A tensor, or an entry, that one side changed is taken from it; where several did, the strategy sees
those that did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.tensors import BLOCK_BYTES, BlockSpec, TensorInfo, cut
from git_theta_ext.core.values import Values, values_dtype
from git_theta_ext.manifest.model import Block, Entry, Manifest
from git_theta_ext.merge.combine import skeleton, values
from git_theta_ext.merge.combine.apply import BUDGET_BYTES, UNFIT, Merged, Outcome
from git_theta_ext.merge.combine.merger import Statistics, seed_of
from git_theta_ext.merge.combine.values import Measure, from_floats, not_finite, to_floats
from git_theta_ext.merge.decide.decisions import Choose, Plan, Side, entries_of
from git_theta_ext.merge.decide.plan import make_plan
from git_theta_ext.merge.decide.plan_several import Row, check_weights, plan_several
from git_theta_ext.merge.strategies import table
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.table import Combine, NotPossibleError, Piece
from git_theta_ext.objects.blocks import Blocks, sha256
from git_theta_ext.updates.residual import SLICE

MAX_SIDES = 32


def merge_several(
    base: Manifest | None,
    sides: Sequence[Manifest],
    blocks: Blocks,
    choose: Choose,
    *,
    prefer: skeleton.Side | None = None,
    statistics: Statistics | None = None,
) -> Merged:
    """Merge several versions of a checkpoint; see `rows.plan_several` and `apply.merge`.

    Raises:
        UsageError: more than `MAX_SIDES` sides, or a strategy's weights are not one for each.
        ThetaError: an object is missing or damaged, or the store cannot be written.
    """
    if len(sides) > MAX_SIDES:
        raise UsageError(f"at most {MAX_SIDES} versions can be merged at once, not {len(sides)}")
    rows = plan_several(base, sides, choose)
    stands = next((row.stands for row in rows if row.stands is not None), None)
    manifest, reason = _structures(base, sides, blocks, prefer, stands)
    holds = manifest.by_name()
    tables = [entries_of(side) for side in sides]
    blocks.ensure(
        ref
        for row in rows
        for entry in (row.old, *(tables[n].get(row.decision.name) for n in row.movers))
        if entry is not None and row.movers
        for block in entry.blocks
        for ref in block.chain
    )

    def settle(row: Row) -> Outcome:
        return _settle(row, tables, holds.get(row.decision.name), blocks, statistics)

    with blocks.store.gathering():
        outcomes = tuple(ordered_map(settle, rows, _cost(len(sides)), budget=BUDGET_BYTES))
        blocks.store.flush()
    made = {one.name: one.entry for one in outcomes}
    entries = tuple(made.get(name) or holds[name] for name in sorted(holds, key=natural_key))
    return Merged(Manifest(manifest.format, manifest.skeleton, entries), outcomes, reason)


def _cost(count: int) -> Callable[[Row], int]:
    def cost(row: Row) -> int:
        nbytes = row.decision.standing.nbytes if row.movers and row.decision.standing else 0
        return 2 * (count + 2) * min(nbytes, BLOCK_BYTES)

    return cost


def _structures(
    base: Manifest | None,
    sides: Sequence[Manifest],
    blocks: Blocks,
    prefer: skeleton.Side | None,
    stands: int | None,
) -> tuple[Manifest, str]:
    """What holds the result, side after side merged into it; some version's entries stand in it.

    `stands` is the side whose skeleton must, if one must; -1 for the base.
    """
    current, reasons = sides[0], list[str]()
    for number, side in enumerate(sides[1:], 1):
        plan: Plan = make_plan(base, current, side, lambda _: Choice("ours"), ())
        if stands is not None and stands <= number:
            version: Side = "theirs" if stands == number else "ours"
            plan = replace(plan, side="base" if stands < 0 else version)
            reasons = [] if stands == number else reasons
        holder = skeleton.settle(plan, blocks, prefer if plan.side is None else None)
        reasons.append(holder.reason)
        versions = [entries_of(one) for one in (current, side, base)]
        theirs = {one.name for one in plan.decisions if one.action == "theirs"}
        entries = [
            _standing(name, tensor, versions[1::-1] if name in theirs else versions)
            for name, tensor in holder.tensors.items()
        ]
        entries.sort(key=lambda entry: natural_key(entry.tensor.name))
        current = Manifest(holder.format, holder.block, tuple(entries))
    return current, next(filter(None, reasons), "")


def _standing(name: str, tensor: TensorInfo, versions: Sequence[Mapping[str, Entry]]) -> Entry:
    found = [one[name] for one in versions if name in one]
    return next((one for one in found if one.tensor == tensor), found[0])


def _settle(
    row: Row,
    tables: Sequence[Mapping[str, Entry]],
    held: Entry | None,
    blocks: Blocks,
    statistics: Statistics | None,
) -> Outcome:
    decision = row.decision
    if decision.action == "open":
        return Outcome(decision, None, None, decision.reason)
    if row.movers:
        entries = [tables[number][decision.name] for number in row.movers]
        merger = _Merger(row, entries, len(tables), blocks, statistics)
        outcome = merger.outcome()
    else:
        outcome = Outcome(decision, row.entry)
    if (held is None) != (outcome.entry is None) or (
        held is not None and outcome.entry is not None and held.tensor != outcome.entry.tensor
    ):
        return Outcome(decision, None, None, UNFIT)
    return outcome


class _Merger:
    """One tensor that several sides changed. For a strategy it is the `strategies.Sides`."""

    def __init__(
        self,
        row: Row,
        entries: Sequence[Entry],
        count: int,
        blocks: Blocks,
        statistics: Statistics | None,
    ) -> None:
        """`entries` are those of `row.movers`, of `count` sides in all."""
        self._row, self._entries, self._blocks = row, entries, blocks
        self._statistics, self._all = statistics, count
        self.name = row.decision.name
        self.tensor = entries[0].tensor
        self.shape = self.tensor.shape
        self.specs = list(cut(self.tensor))
        self.dtype = self.specs[0].dtype
        self.count = sum(_length(spec) for spec in self.specs)
        self.seeds = tuple(seed_of(row.decision.seed_name, one, row.old) for one in entries)
        self._held: list[Values] | None = None
        self._beyond = 0

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        """Statistics of the sides that changed the tensor; see `strategies.Sides.statistic`."""
        found = self._statistics(kind, self.name) if self._statistics else None
        if found is None or len(found) != self._all or self.tensor.order is not None:
            raise NotPossibleError(f"no {kind} statistics of all sides: see docs/merging.md")
        mine = [found[number] for number in self._row.movers]
        present = tuple(one for one in mine if one is not None)
        if len(present) not in (0, len(mine)):
            raise NotPossibleError(f"only some sides have {kind} statistics of it")
        return present

    def _read(self, number: int) -> list[Values]:
        """A block of every side that changed the tensor, then of the base if there is one."""
        if self._held is not None:
            return self._held
        versions = [*self._entries, *([self._row.old] if self._row.old else [])]
        spec = self.specs[number]
        found, _ = self._blocks.read_together([(spec, one.blocks[number]) for one in versions])
        if len(self.specs) == 1:
            self._held = found
        return found

    def __iter__(self) -> Iterator[Piece]:
        start = 0
        for number, spec in enumerate(self.specs):
            found = self._read(number)
            for first in range(0, _length(spec), SLICE):
                yield self._piece(found, slice(first, min(first + SLICE, _length(spec))), start)
            start += _length(spec)

    def _piece(self, found: Sequence[Values], where: slice | Any, start: int) -> Piece:
        """Values of all versions as numbers; what is no number counts as zero."""
        floats = [to_floats(self.dtype, one[where]) for one in found]
        wrong = not_finite(floats)
        if wrong is not None:
            floats = [np.where(wrong, 0.0, one) for one in floats]
        sides = tuple(floats[: len(self._entries)])
        first = where.start if isinstance(where, slice) else 0
        return Piece(start + first, floats[-1] if self._row.old else None, sides)

    def outcome(self) -> Outcome:
        """The merged tensor, or as far as it merges by itself and why the rest is open."""
        choice = self._row.decision.choice
        try:
            if choice.strategy in ("conflict", "larger", "zero"):
                return self._each(lambda *at: self._by_entry(choice, *at))
            strategy = table.get(choice.strategy)
            if strategy.needs_base and self._row.old is None:
                raise NotPossibleError(f"{strategy.name} needs a common base, and there is none")
            if strategy.by_entry:
                return self._each(lambda *at: self._by_entry(choice, *at))
            if not self._finite():
                raise NotPossibleError("a side holds NaN or infinite entries")
            combine = strategy.prepare(self, self._settings(choice, range(len(self._entries))))
            return self._each(lambda *at: self._by_tensor(combine, *at))
        except NotPossibleError as error:
            done = self._each(lambda *at: self._by_entry(CONFLICT, *at))
            return replace(done, open=str(error))

    def _finite(self) -> bool:
        if self.dtype.kind not in ("float", "complex"):
            return False
        return all(
            bool(np.isfinite(to_floats(self.dtype, one)).all())
            for number in range(len(self.specs))
            for one in self._read(number)
        )

    def _settings(self, choice: Choice, movers: Sequence[int]) -> tuple[tuple[str, Any], ...]:
        """The settings for some of the sides that changed the tensor: their weights."""
        check_weights(choice, self._all)
        numbers = [self._row.movers[number] for number in movers]
        return tuple(
            (key, tuple(value[n] for n in numbers))
            if key == "weights" and isinstance(value, tuple)
            else (key, value)
            for key, value in choice.settings
        )

    def _each(
        self, work: Callable[[list[Values], int, int], tuple[Values, Measure, int]]
    ) -> Outcome:
        """Block by block: `work` gives the values, the figures, and how many entries stay open."""
        blocks: list[Block] = []
        total, left, start = Measure(), 0, 0
        for number, spec in enumerate(self.specs):
            merged, figures, open_ = work(self._read(number), start, _length(spec))
            total, left, start = total + figures, left + open_, start + _length(spec)
            blocks.append(self._write(number, merged))
        reason = f"several sides changed {left:,} of {total.entries:,} entries" if left else ""
        if left and total.nan_ours:
            reason = f"{total.nan_ours:,} NaN on some sides only"
        if self._beyond:
            kind = self.tensor.dtype.name
            reason = (
                f"{self._beyond:,} entries would be infinite or NaN, beyond the range of {kind}"
            )
        return Outcome(self._row.decision, Entry(self.tensor, tuple(blocks)), total, reason)

    def _write(self, number: int, merged: Values) -> Block:
        digest = sha256(merged)
        for entry in self._entries:
            if entry.blocks[number].sha256 == digest:
                return entry.blocks[number]
        spec: BlockSpec = self.specs[number]
        predecessor = self._entries[0].blocks[number]
        return self._blocks.write(spec, merged, digest=digest, predecessor=predecessor)

    def _by_tensor(
        self, combine: Combine, found: list[Values], start: int, length: int
    ) -> tuple[Values, Measure, int]:
        sides = found[: len(self._entries)]
        result = sides[0].copy()
        for first in range(0, length, SLICE):
            where = slice(first, min(first + SLICE, length))
            blended = from_floats(self.dtype, combine(self._piece(found, where, start)))
            differ = np.logical_or.reduce([one[where] != sides[0][where] for one in sides[1:]])
            np.copyto(result[where], blended, where=differ)
            self._note_beyond(blended, differ)
        return result, Measure(length, length), 0

    def _note_beyond(self, blended: Values, where: NDArray[np.bool_] | None = None) -> None:
        """Count the entries that finite numbers of all sides made infinite or NaN."""
        high = values.beyond_range(self.dtype, blended)
        if high is not None:
            self._beyond += int(np.count_nonzero(high if where is None else high & where))

    def _by_entry(
        self, choice: Choice, found: list[Values], start: int, length: int
    ) -> tuple[Values, Measure, int]:
        result = np.empty_like(found[0])
        if choice.strategy == "zero":
            result[:] = 0
            return result, Measure(length), 0
        total, left = Measure(), 0
        for first in range(0, length, SLICE):
            where = slice(first, min(first + SLICE, length))
            split = _split(self, [one[where] for one in found])
            result[where] = split.picked
            left += self._collisions(choice, [one[where] for one in found], split, result[where])
            total += Measure(
                len(split.picked), int(np.count_nonzero(split.collide)),
                int(np.count_nonzero(split.bad)),
            )  # fmt: skip
        return result, total, left

    def _collisions(
        self, choice: Choice, found: list[Values], split: _Split, result: Values
    ) -> int:
        """Settle what collides, by the sides that changed an entry; how many entries stay open."""
        if choice == CONFLICT:
            return int(np.count_nonzero(split.collide))
        if choice.strategy == "larger":
            for one in found[: len(self._entries)]:
                np.copyto(result, values.larger(self.dtype, result, one), where=split.collide)
            return 0
        if self.dtype.kind not in ("float", "complex"):
            return self._plain(choice, found, split, result)
        left = int(np.count_nonzero(split.collide & split.bad))
        settled = split.collide & ~split.bad
        for code in np.unique(split.movers[settled]).tolist():
            movers = tuple(n for n in range(len(self._entries)) if code >> n & 1)
            places = np.flatnonzero(settled & (split.movers == code))
            piece = self._piece(found, places, 0)
            piece = Piece(0, piece.base, tuple(piece.sides[n] for n in movers))
            blended = from_floats(self.dtype, self._combine(choice, movers)(piece))
            self._note_beyond(blended)
            result[places] = blended
        return left

    def _plain(self, choice: Choice, found: list[Values], split: _Split, result: Values) -> int:
        """As `_collisions` for numbers that cannot be blended."""
        if choice.strategy == "ours":
            return 0  # the first one that changed it stands already
        if choice.strategy == "base" and self._row.old is not None:
            np.copyto(result, found[-1], where=split.collide)
            return 0
        if choice.strategy != "theirs":
            return int(np.count_nonzero(split.collide))
        for number, one in enumerate(found[: len(self._entries)]):
            np.copyto(result, one, where=split.collide & (split.movers >> number & 1 == 1))
        return 0

    def _combine(self, choice: Choice, movers: tuple[int, ...]) -> Combine:
        some = _Some(self, movers)
        strategy = table.get(choice.strategy)
        return strategy.prepare(some, self._settings(choice, movers))


class _Some:
    """Some of the sides of a tensor, for strategies that look at single entries only."""

    def __init__(self, whole: _Merger, movers: tuple[int, ...]) -> None:
        self._whole, self._movers = whole, movers
        self.name, self.shape, self.count = whole.name, whole.shape, whole.count
        self.seeds = tuple(whole.seeds[number] for number in movers)

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._whole:
            yield Piece(piece.start, piece.base, tuple(piece.sides[n] for n in self._movers))

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        found = self._whole.statistic(kind)
        return tuple(found[number] for number in self._movers) if found else ()


@dataclass(frozen=True, slots=True)
class _Split:
    """A slice of several versions, entry by entry.

    `picked` is the first version that changed the entry; `movers` has a bit for each that did;
    `collide` marks entries that were changed to different values, `bad` those with NaN or infinity.
    """

    picked: Values
    movers: NDArray[np.uint32]
    collide: NDArray[np.bool_]
    bad: NDArray[np.bool_]


def _split(merger: _Merger, found: Sequence[Values]) -> _Split:
    count = len(merger._entries)
    sides, old = found[:count], found[count] if len(found) > count else None
    everywhere = np.ones(len(sides[0]), np.bool_)
    moved = [everywhere if old is None else one != old for one in sides]
    picked = (sides[0] if old is None else old).copy()
    movers = np.zeros(len(picked), np.uint32)
    for number in reversed(range(count)):
        np.copyto(picked, sides[number], where=moved[number])
        movers |= moved[number].astype(np.uint32) << np.uint32(number)
    differ = [change & (one != picked) for change, one in zip(moved, sides, strict=True)]
    collide = np.logical_or.reduce(differ)
    bad = np.zeros(len(picked), np.bool_)
    if merger.dtype.kind in ("float", "complex"):
        finite = [np.isfinite(to_floats(merger.dtype, one)) for one in found]
        nan = [values.not_numbers(merger.dtype, one) for one in sides]
        one_sided = np.logical_or.reduce(nan) & ~np.logical_and.reduce(nan)
        collide = collide | one_sided
        bad = collide & ~np.logical_and.reduce(finite)
    return _Split(picked, movers, collide, bad)


@cache
def _length(spec: BlockSpec) -> int:
    return spec.nbytes // values_dtype(spec.dtype).itemsize
