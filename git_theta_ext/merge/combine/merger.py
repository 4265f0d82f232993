"""Merge one tensor entry by entry, and by a strategy where both sides changed an entry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.values import Values
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.merge.combine import values
from git_theta_ext.merge.combine.tensor import COPIES, Part, Read, Versions
from git_theta_ext.merge.combine.values import Compared, Measure, from_floats, to_floats
from git_theta_ext.merge.decide.kinds import VARIANCE
from git_theta_ext.merge.decide.plan import Decision
from git_theta_ext.merge.strategies import table
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice
from git_theta_ext.merge.strategies.table import Combine, Piece
from git_theta_ext.updates.residual import SLICE

Statistics = Callable[[str, str], "tuple[NDArray[Any] | None, ...] | None"]
"""Gives the statistics (`fisher`, `gram`) of a tensor, by its name, for ours and theirs; None if a
side has no such statistics at all."""

_SIDES = frozenset({"ours", "theirs", "base"})
_SHORT = 16_384
"""Entries compared at once: in float64 a dozen such arrays stay in the cache of a processor. What
is random is drawn for slices of another length, and these strategies do not see shorter ones."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TensorResult:
    """The blocks of the merged tensor, its figures, and why it is open (empty if it is not)."""

    blocks: tuple[Block, ...]
    measure: Measure
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Done:
    """One block: stored; `left` entries stay open, of which `bad` because they are no numbers.

    `beyond` entries would be infinite or NaN, though they are made of finite numbers.
    """

    block: Block
    measure: Measure
    left: int = 0
    bad: int = 0
    negative: int = 0
    rows: int = 0
    beyond: int = 0


def merge_tensor(
    decision: Decision, versions: Versions, statistics: Statistics | None, budget: int
) -> TensorResult:
    """Merge a tensor whose decision is `merge`.

    Args:
        decision: says the strategy where entries collide.
        versions: base, ours and theirs in the type of the result.
        statistics: for strategies that need them.
        budget: bytes for blocks that are worked on side by side; 0: one after the other.
    """
    merger = _Merger(decision, versions, budget)
    choice = decision.choice
    if choice == CONFLICT or choice.strategy in ("larger", "zero"):
        return merger.by_entry(choice, None)
    strategy = table.get(choice.strategy)
    if versions.old is None and strategy.needs_base:
        done = merger.by_entry(CONFLICT, None)
        reason = f"{strategy.name} needs a common base, and there is none"
        return replace(done, reason=reason) if done.reason else done
    try:
        if strategy.by_entry:
            return merger.by_entry(choice, strategy.prepare(merger, choice.settings))
        measured = merger.measured()
        if not measured.collided or measured.nan_ours or measured.nan_theirs:
            return merger.by_entry(CONFLICT, None)
        merger.statistics = statistics
        return merger.by_tensor(strategy.prepare(merger, choice.settings), measured)
    except table.NotPossibleError as error:
        return replace(merger.by_entry(CONFLICT, None), reason=str(error))


def measure_tensor(versions: Versions) -> Measure:
    """How the two updates of a tensor meet; nothing is stored."""
    return sum((_measure_part(versions, part) for part in versions.parts()), Measure())


def _measure_part(versions: Versions, part: Part) -> Measure:
    if part.known is not None:
        return Measure(part.stop - part.start)
    total = Measure()
    read = versions.read(part)
    common = max(0, min(part.stop, versions.common) - part.start)
    for start in range(0, common, _SHORT):
        total += _compare(versions, read, slice(start, min(start + _SHORT, common))).measure
    return total


def _compare(versions: Versions, read: Read, where: slice) -> Compared:
    old = None if read.old is None else read.old[where]
    return values.compare(versions.dtype, old, read.mine[where], read.yours[where])


class _Merger:
    """One tensor under way. For a strategy it is the `strategies.Sides` that it looks at."""

    def __init__(self, decision: Decision, versions: Versions, budget: int) -> None:
        self._decision = decision
        self._versions = versions
        self._budget = budget
        self.statistics: Statistics | None = None
        self.name = decision.name
        self.shape = versions.tensor.shape
        self.count = versions.common
        self.seeds = tuple(
            seed_of(decision.seed_name, reader.entry, versions.old.entry if versions.old else None)
            for reader in (versions.mine, versions.yours)
        )

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        """Statistics of both sides for this tensor; see `strategies.Sides.statistic`."""
        if self._versions.tensor.order is not None:
            raise table.NotPossibleError("its axes are not in row-major order")
        found = self.statistics(kind, self.name) if self.statistics else None
        if found is None:
            raise table.NotPossibleError(
                f"no {kind} statistics of both sides: see docs/merging.md, Statistics"
            )
        present = tuple(one for one in found if one is not None)
        if len(present) == 1:
            raise table.NotPossibleError(f"only one side has {kind} statistics of it")
        return present

    def measured(self) -> Measure:
        """The figures of the tensor, before anything is merged."""
        parts = self._versions.parts()
        return sum(self._map(lambda part: _measure_part(self._versions, part), parts), Measure())

    def __iter__(self) -> Iterator[Piece]:
        """What all versions have, slice by slice; what is no number counts as zero."""
        parts = list(self._versions.parts())
        for part, read in self._map(lambda part: (part, self._versions.read(part)), parts):
            for start in range(0, self._common(part), SLICE):
                stop = min(start + SLICE, self._common(part))
                yield self._piece(part, read, slice(start, stop))[0]

    def _common(self, part: Part) -> int:
        return max(0, min(part.stop, self._versions.common) - part.start)

    def _map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        if not self._budget:
            return map(work, items)
        largest = max(spec.nbytes for spec in self._versions.specs)
        return ordered_map(work, items, lambda _: COPIES * largest, budget=self._budget)

    def _piece(self, part: Part, read: Read, where: slice) -> tuple[Piece, values.Mask | None]:
        """A slice as numbers, and which of them are none (then they are zeros in the piece)."""
        dtype = self._versions.dtype
        floats = [
            None if one is None else to_floats(dtype, one[where])
            for one in (read.old, read.mine, read.yours)
        ]
        wrong = values.not_finite([one for one in floats if one is not None])
        if wrong is not None:
            floats = [None if one is None else np.where(wrong, 0.0, one) for one in floats]
        base, mine, yours = floats
        if mine is None or yours is None:
            raise ValueError("a side is missing")
        return Piece(part.start + where.start, base, (mine, yours)), wrong

    def by_entry(self, choice: Choice, combine: Combine | None) -> TensorResult:
        """Each entry from the side that changed it; by `choice` where both did."""

        def work(part: Part) -> _Done:
            if part.known is not None and choice.strategy != "zero":
                return _Done(part.known, Measure(part.stop - part.start))
            return self._block_by_entry(part, choice, combine)

        return self._gather(self._map(work, self._versions.parts()))

    def _block_by_entry(self, part: Part, choice: Choice, combine: Combine | None) -> _Done:
        read = self._versions.read(part)
        result = np.empty(part.stop - part.start, read.mine.dtype)
        total, left, bad, beyond = Measure(), 0, 0, 0
        for start in range(0, self._common(part), _SHORT):
            where = slice(start, min(start + _SHORT, self._common(part)))
            found = _compare(self._versions, read, where)
            total += found.measure
            if found.split.count:
                lost, wrong, high = self._collisions(
                    part, read, where, found, choice, combine, result
                )
                left, bad, beyond = left + lost, bad + wrong, beyond + high
            else:
                result[where] = found.split.exact
        rows = self._added_rows(part, read, result)
        if choice.strategy == "zero":
            result[:] = 0
            left = rows = beyond = 0
        elif choice.strategy not in _SIDES:
            beyond += self._cast_beyond(result)
        negative = self._negative(result, read)
        block = self._versions.write(part, result, read)
        return _Done(block, total, left, bad, negative, rows, beyond)

    def _cast_beyond(self, result: Values) -> int:
        """Entries of a result that a cast made infinite or NaN."""
        readers = (self._versions.mine, self._versions.yours)
        if not any(reader.overflowed for reader in readers):
            return 0
        found = values.beyond_range(self._versions.dtype, result)
        return 0 if found is None else int(np.count_nonzero(found))

    def _collisions(  # noqa: PLR0917
        self,
        part: Part,
        read: Read,
        where: slice,
        found: Compared,
        choice: Choice,
        combine: Combine | None,
        result: Values,
    ) -> tuple[int, int, int]:
        """Settle the entries of a slice that collide.

        How many stay open, and of these how many are no numbers, and how many would be none.
        """
        split = found.split
        result[where] = split.exact
        if choice == CONFLICT:
            return split.count, 0, 0
        mine, yours = read.mine[where], read.yours[where]
        old = None if read.old is None else read.old[where]
        plain = {"ours": mine, "theirs": yours, "base": old}.get(choice.strategy)
        if choice.strategy == "larger":
            plain = values.larger(self._versions.dtype, mine, yours)
        if plain is not None:
            np.copyto(result[where], plain, where=split.collide)
            return 0, 0, 0
        if combine is None:
            return split.count, 0, 0
        if found.floats is not None:
            base, a, b = found.floats
            piece, wrong = Piece(part.start + where.start, base, (a, b)), None
        else:
            piece, wrong = self._piece(part, read, where)
        blended = from_floats(self._versions.dtype, combine(piece))
        high = values.beyond_range(self._versions.dtype, blended)
        if wrong is None and high is None and split.count == len(mine):
            result[where] = blended
            return 0, 0, 0
        numbers = split.collide if wrong is None else split.collide & ~wrong
        settled = numbers if high is None else numbers & ~high
        np.copyto(result[where], blended, where=settled)
        bad = split.count - int(np.count_nonzero(numbers))
        left = split.count - int(np.count_nonzero(settled))
        return left, bad, left - bad

    def by_tensor(self, combine: Combine, measured: Measure) -> TensorResult:
        """Every entry by the strategy, but for those that are equal on both sides."""

        def work(part: Part) -> _Done:
            read = self._versions.read(part)
            mine, yours = read.mine, read.yours
            result = np.empty(part.stop - part.start, mine.dtype)
            bad = beyond = 0
            for start in range(0, self._common(part), SLICE):
                where = slice(start, min(start + SLICE, self._common(part)))
                piece, wrong = self._piece(part, read, where)
                blended = from_floats(self._versions.dtype, combine(piece))
                differ = mine[where] != yours[where]
                if wrong is not None:
                    bad += int(np.count_nonzero(differ & wrong))
                high = values.beyond_range(self._versions.dtype, blended)
                if high is not None:
                    beyond += int(
                        np.count_nonzero(high & differ & (True if wrong is None else ~wrong))
                    )
                result[where] = np.where(differ, blended, mine[where])
            rows = self._added_rows(part, read, result)
            block = self._versions.write(part, result, read)
            return _Done(block, Measure(), bad + beyond, bad, 0, rows, beyond)

        found = self._gather(self._map(work, self._versions.parts()))
        if found.reason:
            # A tensor is either blended as a whole or left as it is.
            return replace(self.by_entry(CONFLICT, None), reason=found.reason)
        return replace(found, measure=measured)

    def _added_rows(self, part: Part, read: Read, result: Values) -> int:
        """Fill in rows that only one side has; how many entries both added differently."""
        mine, yours = read.mine, read.yours
        start = self._common(part)
        rest = len(result) - start
        if not rest:
            return 0
        if self._versions.stacked:
            result[start:] = self._versions.added(part.start + start, part.stop)
            return 0
        here, there = mine[start:], yours[start:]
        shared = min(len(here), len(there))
        if len(here) >= rest:
            result[start:] = here[:rest]
        else:
            result[start : start + len(here)] = here
            result[start + len(here) :] = there[len(here) : rest]
        grown = self._versions
        if grown.common in (grown.mine.count, grown.yours.count):
            return 0
        return int(np.count_nonzero(here[:shared] != there[:shared])) + rest - shared

    def _negative(self, result: Values, read: Read) -> int:
        """Variances that became negative though no side's were."""
        if self._decision.kind != "batchnorm" or not VARIANCE.search(self.name):
            return 0
        dtype = self._versions.dtype
        sides = (read.old, read.mine, read.yours)
        if any(one is not None and np.any(to_floats(dtype, one) < 0) for one in sides):
            return 0
        return int(np.count_nonzero(to_floats(dtype, result) < 0))

    def _gather(self, done: Iterable[_Done]) -> TensorResult:
        blocks, total, left, bad, negative, rows, beyond = [], Measure(), 0, 0, 0, 0, 0
        for one in done:
            blocks.append(one.block)
            total += one.measure
            left, bad = left + one.left, bad + one.bad
            negative, rows, beyond = negative + one.negative, rows + one.rows, beyond + one.beyond
        versions = self._versions
        if versions.mine.count != versions.yours.count and not rows and not versions.stacked:
            both = versions.mine.count > versions.common < versions.yours.count
            rows = abs(versions.mine.count - versions.yours.count) if both else 0
        reason = ""
        if rows and self._decision.choice.strategy != "zero":
            reason = (
                f"both sides added rows, {versions.mine.entry.tensor.shape[0]} in ours and "
                f"{versions.yours.entry.tensor.shape[0]} in theirs; those of ours stand "
                "(stack keeps both)"
            )
        elif beyond:
            reason = (
                f"{beyond:,} entries would be infinite or NaN, beyond the range of "
                f"{versions.tensor.dtype.name}"
            )
        elif left or negative:
            reason = _reason(total, left, bad, negative)
        return TensorResult(tuple(blocks), total, reason)


def seed_of(name: str, side: Entry, base: Entry | None) -> bytes:
    """What a random strategy draws from: the tensor's name, the base's content, the side's."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass"))
    for entry in (base, side):
        digest.update(b"\0")
        for block in entry.blocks if entry else ():
            digest.update(bytes.fromhex(block.sha256))
    return digest.digest()


def _reason(total: Measure, left: int, bad: int, negative: int) -> str:
    if negative:
        return f"{negative:,} variances would be negative"
    if total.nan_ours or total.nan_theirs:
        counts = (("ours", total.nan_ours), ("theirs", total.nan_theirs))
        found = " and ".join(f"{count:,} NaN in {side} only" for side, count in counts if count)
        return found
    if bad:
        return f"{bad:,} entries that collide are NaN or infinite"
    return f"both sides changed {left:,} of {total.entries:,} entries"
