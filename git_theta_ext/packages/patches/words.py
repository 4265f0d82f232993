"""What a patch does, tensor by tensor, told from nothing but the patch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from git_theta_ext.core.errors import CorruptObjectError, FormatError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.text import plural, printable, size, table
from git_theta_ext.manifest.model import Block, Entry, Manifest, UpdateRef
from git_theta_ext.merge.decide.decisions import content_of, entries_of, type_of
from git_theta_ext.packages.patches.bundle import Changed
from git_theta_ext.packages.patches.opened import Patch
from git_theta_ext.updates.low_rank.factors import Factors, read_factors
from git_theta_ext.updates.parameter_file import parse

_INDENT = "  "
_CHUNK = 1 << 12


@dataclass(frozen=True, slots=True)
class Told:
    """What a patch does to one tensor.

    `kinds` are those of the updates that it adds; `stored` is what they take; `norm` is the length
    of the change where the update's own parameters tell it.
    """

    name: str
    did: str
    entry: Entry
    kinds: tuple[str, ...] = ()
    info: tuple[tuple[str, str], ...] = ()
    stored: int = 0
    norm: float | None = None

    def record(self) -> dict[str, Any]:
        """For machines."""
        tensor = self.entry.tensor
        return {"name": self.name, "did": self.did, "dtype": tensor.dtype.name,
                "shape": list(tensor.shape), "updates": list(self.kinds), "info": dict(self.info),
                "stored": self.stored, "norm": self.norm}  # fmt: skip

    def row(self) -> list[str]:
        """For people."""
        tensor = self.entry.tensor
        remarks = " ".join(f"{key}={value}" for key, value in self.info)
        norm = "" if self.norm is None else f"norm {self.norm:.3g}"
        did = "" if self.did == "changed" else self.did
        words = " ".join(filter(None, (did, " + ".join(self.kinds), remarks)))
        taken = size(self.stored) if self.stored else ""
        return ["", printable(self.name), f"{tensor.dtype.name} {list(tensor.shape)}",
                printable(words), taken, norm]  # fmt: skip


def tensors(patch: Patch, one: Changed) -> list[Told]:
    """What becomes of each tensor of a checkpoint; those that stay are left out.

    Raises:
        FormatError: an object of it is damaged.
    """
    base, new = patch.versions(one)
    told = _Teller(patch)
    then, now = entries_of(base), entries_of(new)
    names = sorted({*then, *now}, key=natural_key)
    found = (told.of(name, then.get(name), now.get(name)) for name in names)
    return [each for each in found if each is not None]


@dataclass(slots=True)
class _Teller:
    patch: Patch
    _held: dict[str, bytes] = field(default_factory=dict)
    """The object that was read last: many small files lie in one."""

    def of(self, name: str, then: Entry | None, now: Entry | None) -> Told | None:
        """What becomes of a tensor; None if it stays."""
        if now is None:
            return None if then is None else Told(name, "removed", then)
        did = "added" if then is None else "changed"
        if then is not None:
            if content_of(then) == content_of(now):
                return None
            if type_of(then) != type_of(now):
                did = f"was {then.tensor.dtype.name} {list(then.tensor.shape)}:"
        known = set() if then is None else {ref.place for b in then.blocks for ref in b.objects()}
        fresh = {
            ref.place: ref for b in now.blocks for ref in b.objects() if ref.place not in known
        }
        kinds = tuple(dict.fromkeys(block.chain[-1].kind if block.chain else "inline"
                                    for block in now.blocks))  # fmt: skip
        info = now.blocks[0].chain[-1].info if now.blocks and now.blocks[0].chain else ()
        stored = sum(ref.nbytes for ref in fresh.values())
        return Told(name, did, now, kinds, info, stored, self._norm(then, now))

    def _norm(self, then: Entry | None, now: Entry) -> float | None:
        """The length of the change, where each block changes by factors or not at all."""
        if then is None or len(then.blocks) != len(now.blocks):
            return None
        total = 0.0
        for old, new in zip(then.blocks, now.blocks, strict=True):
            if old.sha256 == new.sha256:
                continue
            last = new.chain[-1] if new.chain else None
            if not isinstance(last, UpdateRef) or last.kind != "low-rank":
                return None
            if new.chain[:-1] != old.chain:
                return None
            square = self._square(last, new)
            if square is None:
                return None
            total += square
        return math.sqrt(total)

    def _square(self, ref: UpdateRef, block: Block) -> float | None:
        """The sum of the squares of a product of factors."""
        if not self.patch.holds(ref.oid, ref.size):
            return None
        if ref.oid not in self._held:
            entry = self.patch.pack.by_sha256[ref.oid]
            self._held = {ref.oid: b"".join(self.patch.pack.pieces(entry))}
        start, stop = ref.part or (0, ref.size)
        try:
            file = parse(memoryview(self._held[ref.oid])[start:stop])
            rows, columns = file.settings["shape"]
            if rows * columns > block.nbytes:
                raise FormatError(f"object {ref.oid} is of a larger tensor than its manifest says")
            return square_of(read_factors(file.settings, file.parts, rows * columns))
        except (CorruptObjectError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"object {ref.oid} is damaged: {error}") from error


def square_of(factors: Factors) -> float:
    """The sum of the squares of all entries of `left @ right`, without that product."""
    gram = np.zeros((factors.left.shape[1],) * 2)
    other = np.zeros_like(gram)
    for start in range(0, len(factors.left), _CHUNK):
        piece = factors.left[start : start + _CHUNK]
        gram += piece.T @ piece
    for start in range(0, factors.right.shape[1], _CHUNK):
        piece = factors.right[:, start : start + _CHUNK]
        other += piece @ piece.T
    with np.errstate(over="ignore"):
        scale = float(np.ldexp(1.0, 2 * factors.exponent)) * factors.scaling**2
    return max(0.0, float(np.sum(gram * other.T))) * scale


def lines(patch: Patch) -> Iterator[str]:
    """A patch for a terminal, or the top of a mail."""
    commits = patch.commits
    yield f"{plural(len(commits), 'commit')}, {plural(len(patch.objects), 'object')} of " + size(
        sum(patch.objects.values())
    )
    for commit in commits:
        who = commit.author.rpartition(">")[0].partition(" <")[0]
        yield f"  {commit.oid[:12]} {printable(commit.subject)} ({printable(who)})"
    for oid, subject in patch.header.prerequisites:
        yield f"needs {oid[:12]} {printable(subject)}"
    for one in patch.description.files:
        yield ""
        yield from _file(patch, one)


def _file(patch: Patch, one: Changed) -> Iterator[str]:
    """What becomes of a file; of a checkpoint, tensor by tensor."""
    came = f" (was {printable(one.was)})" if one.was else ""
    if not one.checkpoint:
        did = "added" if not one.base else "removed" if not one.new else "changed"
        yield f"{printable(one.path)}{came}: {did}, no checkpoint"
        return
    base, new = patch.versions(one)
    found = tensors(patch, one)
    total = len((new or base or _NONE).entries)
    state = "" if one.base and one.new else " (new)" if one.new else " (removed)"
    yield (
        f"{printable(one.path)}{came}{state}: {len(found):,} of {plural(total, 'tensor')} changed, "
        f"{size(sum(each.stored for each in found))}"
    )
    yield from table([each.row() for each in found])
    if base is not None and new is not None and base.skeleton.sha256 != new.skeleton.sha256:
        yield f"{_INDENT}its structure (header or pickle) changed"


_NONE = Manifest("none", Block(0, "", (), b""), ())


def record(patch: Patch) -> dict[str, Any]:
    """A patch for machines."""
    return {
        "file": patch.name,
        "tip": patch.tip,
        "base": patch.description.base,
        "needs": [oid for oid, _ in patch.header.prerequisites],
        "commits": [
            {"commit": one.oid, "author": one.author, "message": one.message}
            for one in patch.commits
        ],
        "objects": len(patch.objects),
        "object_bytes": sum(patch.objects.values()),
        "files": [
            {
                "path": one.path,
                "was": one.was or None,
                "checkpoint": one.checkpoint,
                "tensors": [each.record() for each in tensors(patch, one)],
            }
            for one in patch.description.files
        ],
    }
