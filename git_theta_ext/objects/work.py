"""What a manifest asks for, known before it is done: bytes to be made, and computing time.

Pure: it looks at manifests and at the headers of parameter files. Time is nominal: what the
reference decoder takes for a step on one core of a common processor, by kind and size. A step
counts by the block that it makes or begins with, whichever is larger, so that many small blocks cut
out of large ones are seen for what they are.

The bounds leave honest checkpoints far behind: a chain that this program writes has at most 32
updates that are together smaller than half a dense copy. Its costliest form, 24 low-rank updates of
rank 64 and eight supplied ones of 96 products, costs 2,000 ns a value, scattered lists of changes
400; the bound is 4,096 for every value and 512 for every byte of objects, beyond half a minute that
any command may have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import CorruptObjectError
from git_theta_ext.core.tensors import BlockSpec
from git_theta_ext.core.text import size as as_size
from git_theta_ext.core.values import values_dtype
from git_theta_ext.manifest.model import Link, Recipe, UpdateRef, references
from git_theta_ext.updates.base import base_spec
from git_theta_ext.updates.structured import cost

Settings = Mapping[str, Any]

_NANOSECONDS = {"dense": 1.0, "delta": 1.0, "step": 2.0, "scale": 2.0, "cast": 2.0, "resize": 2.0,
                "sparse": 3.0, "patch": 3.0, "permute": 2.0, "low-rank": 3.0,
                "scaled-low-rank": 4.0, "kronecker": 4.0, "hadamard": 4.0,
                "orthogonal": 4.0, "quantise": 6.0}  # fmt: skip
"""For each byte of a block; `benchmarks/costs.py` measures them, values of one byte cost most."""
_MERGED = 8.0
"""For each byte of each version that a merge is computed from."""
_OTHER = 4.0
"""For each byte, of a kind that a plug-in has."""
_RANK = 0.5
"""For each value and each of the ranks of a low-rank update, scaled or not."""
_RANKED = frozenset({"low-rank", "scaled-low-rank"})
_PRODUCT = 1.0
"""For each product of two numbers that a supplied update is computed from."""
_ROW = 60.0
"""For each row that a permutation moves: one of a single value costs as much as one of sixteen."""
_TELLING = frozenset({*_RANKED, *cost.KINDS, "permute", "cast", "resize", "patch", "quantise"})
"""Kinds whose parameter files say what they cost, or what their predecessor is."""
_LONG, _PLAIN = 10e9, 16.0
"""What is announced: more than ten seconds, at sixteen times what plain copies would take."""
_LARGE, _SWOLLEN = 1 << 30, 256
"""And more than a gibibyte, at 256 bytes for each one that is stored."""


@dataclass(frozen=True, slots=True)
class Work:
    """What some blocks ask for; `encoded` counts the bytes of the objects they are made of."""

    nanoseconds: float = 0.0
    values: int = 0
    nbytes: int = 0
    encoded: int = 0

    def __add__(self, other: Work) -> Work:
        """Both together."""
        return Work(
            self.nanoseconds + other.nanoseconds,
            self.values + other.values,
            self.nbytes + other.nbytes,
            self.encoded + other.encoded,
        )

    def too_long(self) -> str | None:
        """Why this is refused, as more computing than an honest checkpoint takes; None if not."""
        fair = (
            limits.WORK_PER_VALUE * self.values
            + limits.WORK_PER_ENCODED * self.encoded
            + limits.WORK_FREE
        )
        if self.nanoseconds <= fair:
            return None
        return (
            f"{as_size(self.encoded)} of objects ask for about {duration(self.nanoseconds)} of "
            f"computing to make {as_size(self.nbytes)}; at most {duration(fair)} are allowed"
        )

    def too_large(self) -> str | None:
        """Why this is refused where nobody needs the bytes themselves; None if it is not."""
        fair = limits.CLAIMED_FREE + limits.CLAIMED_PER_ENCODED * self.encoded
        if self.nbytes <= fair:
            return None
        return (
            f"{as_size(self.encoded)} of objects stand for {as_size(self.nbytes)} of values; at "
            f"most {as_size(fair)} are read"
        )

    def remark(self) -> str | None:
        """What is worth saying before it begins; None where it is as usual."""
        if self.nanoseconds > _LONG and self.nanoseconds > _PLAIN * max(self.nbytes, 1):
            return (
                f"{as_size(self.encoded)} of objects ask for about {duration(self.nanoseconds)} of "
                f"computing to make {as_size(self.nbytes)}"
            )
        if self.nbytes > _LARGE and self.nbytes > _SWOLLEN * self.encoded:
            return f"{as_size(self.encoded)} of objects become {as_size(self.nbytes)}"
        return None


class Ledger:
    """What one command has read so far; safe to use from several threads."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._lock = threading.Lock()
        self._done = Work()
        self._counted: set[str] = set()

    def add(self, work: Work, chain: Iterable[UpdateRef], *, bounded: bool) -> str | None:
        """Count a block; why no more is read, or None.

        An object counts once, however many blocks are made of it.

        Args:
            work: what the block takes.
            chain: what it is made of.
            bounded: nobody needs the bytes themselves; else their number is not counted.
        """
        with self._lock:
            fresh = {ref.oid: ref.size for ref in chain if ref.oid not in self._counted}
            self._counted.update(fresh)
            nbytes = work.nbytes if bounded else 0
            self._done += replace(work, nbytes=nbytes, encoded=sum(fresh.values()))
            return self._done.too_long() or (self._done.too_large() if bounded else None)


def duration(nanoseconds: float) -> str:
    """A time as people say it."""
    seconds = nanoseconds / 1e9
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:,.0f} hours"


def needs_settings(chain: Sequence[Link]) -> list[UpdateRef]:
    """The parameter files of a chain whose settings say what it costs."""
    refs = [link for link in chain if isinstance(link, UpdateRef)]
    if not any(ref.kind == "patch" for ref in refs):
        refs = [ref for ref in refs if ref.kind in _TELLING]
    for link in chain:
        if isinstance(link, Recipe):
            refs += [ref for parent in link.parents for ref in needs_settings(parent.chain)]
    return refs


def of_chain(
    spec: BlockSpec, chain: Sequence[Link], said_by: Callable[[UpdateRef], Settings | None]
) -> Work:
    """What it takes to decode a chain.

    Args:
        spec: what it decodes to.
        chain: its parameter files; a recipe stands for those of all its parents.
        said_by: the settings of a parameter file; None where `needs_settings` has no use for them.
    """
    first = chain[0] if len(chain) == 1 else None
    if isinstance(first, UpdateRef) and first.kind == "dense":
        return _of_dense(spec, first)
    nanoseconds = 0.0
    after = spec
    for ref in reversed(chain):
        if isinstance(ref, Recipe):
            nanoseconds += _MERGED * after.nbytes * len(ref.parents)
            for parent in ref.parents:
                nanoseconds += of_chain(after, parent.chain, said_by).nanoseconds
            continue
        said = said_by(ref)
        before, nbytes = after, after.nbytes
        if said is not None:
            before = _before(said) or after
            nbytes = max(nbytes, before.nbytes, _stated(said))
        taken = _NANOSECONDS.get(ref.kind, _OTHER) * nbytes
        values = after.nbytes / values_dtype(after.dtype).itemsize
        if ref.kind in _RANKED:
            taken += _RANK * _rank(said) * values
        elif ref.kind == "permute":
            taken += _ROW * values / _row(said)
        elif ref.kind in cost.KINDS:
            taken += _PRODUCT * cost.products(ref.kind, said, values)
        nanoseconds += taken
        after = before
    encoded = sum({ref.oid: ref.size for ref in references(chain)}.values())
    count = spec.nbytes // values_dtype(spec.dtype).itemsize
    return Work(nanoseconds, count, spec.nbytes, encoded)


def _of_dense(spec: BlockSpec, ref: UpdateRef) -> Work:
    """As `of_chain`, of a block that is stored by itself, which most are."""
    nbytes = spec.nbytes
    count = nbytes // values_dtype(spec.dtype).itemsize
    return Work(_NANOSECONDS["dense"] * nbytes, count, nbytes, ref.size)


def _before(said: Settings) -> BlockSpec | None:
    try:
        return base_spec(said)
    except (CorruptObjectError, AttributeError, OverflowError):
        return None  # decoding says what is wrong with it


def _stated(said: Settings) -> int:
    """The length that the settings of plain bytes give, as far as one is accepted."""
    length = said.get("size", 0)
    return min(length, limits.STRUCTURE_BYTES) if isinstance(length, int) else 0


def _rank(said: Settings | None) -> int:
    rank = said.get("rank") if said is not None else None
    return rank if isinstance(rank, int) and 0 < rank <= limits.RANK else limits.RANK


def _row(said: Settings | None) -> int:
    """Values in a row that is moved; one where that is not known."""
    row = said.get("row") if said is not None else None
    return row if isinstance(row, int) and row > 1 else 1
