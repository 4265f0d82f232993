"""Merge one tensor of two or more sides, entry by entry, and by a strategy where they collide.

An entry that one side changed is taken from it, and what several changed to the same is that. Where
they changed it differently, a strategy says what it is, or it stays open: then that of the first
side stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.values import Values, beyond_range, from_floats
from git_theta_ext.manifest.model import Entry
from git_theta_ext.merge.combine.collisions import compare
from git_theta_ext.merge.combine.recipe import Template, template_of
from git_theta_ext.merge.combine.result import BlockResult, Left, TensorResult, gathered
from git_theta_ext.merge.combine.settling import Settler, piece_of
from git_theta_ext.merge.combine.tensor import Part, Read, Versions, copies_of
from git_theta_ext.merge.combine.values import Measure
from git_theta_ext.merge.decide.decisions import Decision
from git_theta_ext.merge.strategies import table
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.table import Combine, NotPossibleError, Piece
from git_theta_ext.updates.residual import SLICE

Statistics = Callable[[str, str], "tuple[NDArray[Any] | None, ...] | None"]
"""Gives the statistics (`fisher`, `gram`) of a tensor, by its name, for each side; None if a side
has no such statistics at all."""

_PICKED = frozenset({"ours", "theirs", "base"})
_SHORT = 16_384
"""Entries compared at once: in float64 a dozen such arrays stay in the cache of a processor. What
is random is drawn for slices of another length, and these strategies do not see shorter ones."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def merge_tensor(
    decision: Decision,
    versions: Versions,
    statistics: Statistics | None = None,
    budget: int = 0,
    *,
    several: bool = False,
) -> TensorResult:
    """Merge a tensor whose decision is `merge`.

    Args:
        decision: says the strategy where entries collide.
        versions: base and sides in the type of the result; `ours` is the first of the sides that
            changed an entry, `theirs` the last.
        statistics: of these sides, for strategies that need them.
        budget: bytes for blocks that are worked on side by side; 0: one after the other.
        several: whether the sides are some of more than two, which is only said in words.

    Raises:
        UsageError: the settings are not the strategy's.
        ThetaError: an object is missing or damaged, or the store cannot be written.
    """
    merger = _Merger(decision, versions, budget, several)
    choice = decision.choice
    if choice == CONFLICT or choice.strategy in ("larger", "zero"):
        return merger.by_entry(choice)
    strategy = table.get(choice.strategy)
    if versions.base is None and strategy.needs_base:
        done = merger.by_entry(CONFLICT)
        reason = f"{strategy.name} needs a common base, and there is none"
        return replace(done, reason=reason) if done.reason else done
    try:
        if strategy.by_entry:
            return merger.by_entry(choice)
        measured = merger.measured()
        if not measured.collided or measured.nan_ours or measured.nan_theirs:
            return merger.by_entry(CONFLICT)
        merger.statistics = statistics
        return merger.by_tensor(strategy.prepare(merger, choice.settings), measured)
    except NotPossibleError as error:
        return replace(merger.by_entry(CONFLICT), reason=str(error))


def measure_tensor(versions: Versions) -> Measure:
    """How the updates of a tensor meet; nothing is stored."""
    return sum((_measure_part(versions, part) for part in versions.parts()), Measure())


def _measure_part(versions: Versions, part: Part) -> Measure:
    if part.known is not None:
        return Measure(part.stop - part.start)
    total = Measure()
    read = versions.read(part)
    for where in _slices(_common(versions, part), _SHORT):
        here = read.at(where)
        total += compare(versions.dtype, here.base, here.sides).measure
    return total


def _common(versions: Versions, part: Part) -> int:
    """Values of a block that all versions have."""
    return max(0, min(part.stop, versions.common) - part.start)


def _slices(count: int, length: int) -> Iterator[slice]:
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


class _Merger:
    """One tensor under way. For a strategy it is the `strategies.Sides` that it looks at."""

    def __init__(self, decision: Decision, versions: Versions, budget: int, several: bool) -> None:
        self._decision = decision
        self._versions = versions
        self._budget = budget
        self._several = several
        self._template: Template | None = None
        self.statistics: Statistics | None = None
        self.name = decision.name
        self.shape = versions.tensor.shape
        self.count = versions.common
        base = versions.base.entry if versions.base else None
        self.seeds = tuple(seed_of(decision.seed_name, side.entry, base) for side in versions.sides)

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        """Statistics of all sides for this tensor; see `strategies.Sides.statistic`."""
        if self._versions.tensor.order is not None:
            raise NotPossibleError("its axes are not in row-major order")
        found = self.statistics(kind, self.name) if self.statistics else None
        if found is None:
            who = "all" if self._several else "both"
            raise NotPossibleError(
                f"no {kind} statistics of {who} sides: see docs/merging.md, Statistics"
            )
        present = tuple(one for one in found if one is not None)
        if len(present) not in (0, len(found)):
            who = "only some sides have" if self._several else "only one side has"
            raise NotPossibleError(f"{who} {kind} statistics of it")
        return present

    def measured(self) -> Measure:
        """The figures of the tensor, before anything is merged."""
        parts = self._versions.parts()
        return sum(self._map(lambda part: _measure_part(self._versions, part), parts), Measure())

    def __iter__(self) -> Iterator[Piece]:
        """What all versions have, slice by slice; what is no number counts as zero."""
        versions = self._versions
        for part, read in self._map(lambda part: (part, versions.read(part)), versions.parts()):
            for where in _slices(_common(versions, part), SLICE):
                yield piece_of(versions.dtype, part.start + where.start, read.at(where))[0]

    def _map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        if not self._budget:
            return map(work, items)
        cost = copies_of(len(self._versions.sides)) * self._versions.largest
        return ordered_map(work, items, lambda _: cost, budget=self._budget)

    def _gathered(self, done: Iterable[BlockResult]) -> TensorResult:
        return gathered(done, self._versions, self._decision.choice, several=self._several)

    def by_entry(self, choice: Choice) -> TensorResult:
        """Each entry from the sides that changed it; by `choice` where they collide."""
        settler = Settler(choice, self._versions.dtype, self)
        self._template = template_of(choice, settler.combine, len(self.seeds))

        def work(part: Part) -> BlockResult:
            if part.known is not None and choice.strategy != "zero":
                return BlockResult(part.known, Measure(part.stop - part.start))
            return self._block_by_entry(part, choice, settler)

        return self._gathered(self._map(work, self._versions.parts()))

    def _block_by_entry(self, part: Part, choice: Choice, settler: Settler) -> BlockResult:
        """Merge a block; only elements that collide are computed, others keep exact bits."""
        versions = self._versions
        read = versions.read(part)
        result = np.empty(part.stop - part.start, read.sides[0].dtype)
        total, left = Measure(), Left()
        for where in _slices(_common(versions, part), _SHORT):
            here = read.at(where)
            found = compare(versions.dtype, here.base, here.sides)
            total += found.measure
            result[where] = found.split.exact
            if found.split.count:
                left += settler.settle(part.start + where.start, here, found, result[where])
        left += Left(rows=self._add_rows(part, read, result))
        if choice.strategy == "zero":
            result[:] = 0
            left = Left()
        elif choice.strategy not in _PICKED:
            left += Left(beyond=self._cast_beyond(result))
        return BlockResult(versions.write(part, result, read, self._template), total, left)

    def _cast_beyond(self, result: Values) -> int:
        """Entries of a result that a cast made infinite or NaN."""
        if not self._versions.overflowed:
            return 0
        found = beyond_range(self._versions.dtype, result)
        return 0 if found is None else int(np.count_nonzero(found))

    def by_tensor(self, combine: Combine, measured: Measure) -> TensorResult:
        """Every entry by the strategy, but for those that are equal on all sides."""
        self._template = template_of(self._decision.choice, combine, len(self.seeds))
        found = self._gathered(
            self._map(lambda part: self._block_by_tensor(part, combine), self._versions.parts())
        )
        if found.reason:
            # A tensor is either blended as a whole or left as it is.
            return replace(self.by_entry(CONFLICT), reason=found.reason)
        return replace(found, measure=measured)

    def _block_by_tensor(self, part: Part, combine: Combine) -> BlockResult:
        """Merge a block by `combine`; elements that all sides share keep their bits."""
        versions = self._versions
        read = versions.read(part)
        result = np.empty(part.stop - part.start, read.sides[0].dtype)
        left = Left()
        for where in _slices(_common(versions, part), SLICE):
            here = read.at(where)
            piece, wrong = piece_of(versions.dtype, part.start + where.start, here)
            blended = from_floats(versions.dtype, combine(piece))
            first = here.sides[0]
            differ = first != here.sides[1]
            for other in here.sides[2:]:
                differ |= first != other
            result[where] = np.where(differ, blended, first)
            bad = 0 if wrong is None else int(np.count_nonzero(differ & wrong))
            high = beyond_range(versions.dtype, blended)
            if high is not None:
                high &= differ if wrong is None else differ & ~wrong
            beyond = 0 if high is None else int(np.count_nonzero(high))
            left += Left(bad + beyond, bad, beyond)
        left += Left(rows=self._add_rows(part, read, result))
        return BlockResult(versions.write(part, result, read, self._template), Measure(), left)

    def _add_rows(self, part: Part, read: Read, result: Values) -> int:
        """Fill in rows that sides added; how many entries of them several added differently."""
        start = _common(self._versions, part)
        rest = len(result) - start
        if not rest:
            return 0
        if self._versions.stacked:
            result[start:] = self._versions.added(part.start + start, part.stop)
            return 0
        added = [side[start:] for side in read.sides]
        for one in reversed(added):
            result[start : start + len(one)] = one
        grown = [
            one
            for one, side in zip(added, self._versions.sides, strict=True)
            if side.count > self._versions.common
        ]
        if len(grown) < 2:
            return 0
        shared = min(map(len, grown))
        differ = np.zeros(shared, np.bool_)
        for one in grown[1:]:
            differ |= one[:shared] != grown[0][:shared]
        return int(np.count_nonzero(differ)) + rest - shared


def seed_of(name: str, side: Entry, base: Entry | None) -> bytes:
    """What a random strategy draws from: the tensor's name, the base's content, the side's."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass"))
    for entry in (base, side):
        digest.update(b"\0")
        for block in entry.blocks if entry else ():
            digest.update(bytes.fromhex(block.sha256))
    return digest.digest()
