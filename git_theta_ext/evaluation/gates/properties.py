"""The rules of gates about a checkpoint itself: what it stores, new NaN, frozen tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

from git_theta_ext.checkpoints.modules import Modules
from git_theta_ext.checkpoints.versions import Side
from git_theta_ext.comparison.compare import Change, Comparison, Lacking, compare, stored_by
from git_theta_ext.comparison.division import divided
from git_theta_ext.comparison.files import Pair
from git_theta_ext.core.globs import Globs
from git_theta_ext.core.text import plural, size
from git_theta_ext.evaluation.config import Gate
from git_theta_ext.evaluation.gates.verdict import Row
from git_theta_ext.manifest.model import Block

_NAMED = 5
"""Tensors that a reason names; the rest is counted."""


def properties(
    gates: Sequence[Gate], pair: Pair, modules: Modules, lacking: Lacking | None = None
) -> Iterator[Row]:
    """What some gates, all of which are for this checkpoint, say of it.

    Values are read only where a gate forbids new NaN, and of its module alone if it has one.

    Args:
        gates: those without a rule about it say nothing, nor those for a module that it lacks.
        pair: the checkpoint as it is in the base, and now.
        modules: those that gates name.
        lacking: tells why values cannot be read; by default all are fetched.

    Raises:
        ThetaError: a value cannot be read.
    """
    wanted = [
        one for one in gates
        if one.max_stored is not None or one.frozen or not one.new_nan
        if one.module is None or _has(pair, modules, one.module)
    ]  # fmt: skip
    if not wanted:
        return
    if pair.new is None:
        why = "it cannot be read here" if not pair.compared else "it is not there any more"
        for gate in wanted:
            yield Row(gate, pair.path, "checkpoint", "unmeasured", (why,))
        return
    reading = {gate.module for gate in wanted if not gate.new_nan}
    if reading and None not in reading:
        lacking = _only({one for one in reading if one}, pair, modules, lacking)
    found = pair.compare(measured=bool(reading), lacking=lacking)
    if pair.old is None and reading:
        found = _all_new(found, pair.new, lacking)
    looked_at = _LookedAt(pair, found, modules)
    for gate in wanted:
        changes = looked_at.changes_for(gate)
        if gate.max_stored is not None:
            yield _stored(gate, pair.path, looked_at.stored_for(gate))
        if not gate.new_nan:
            yield _not_finite(gate, pair.path, changes)
        if gate.frozen:
            yield _frozen(gate, pair.path, found, changes)


def named(names: Sequence[str]) -> str:
    """The first of some tensors, and how many more there are."""
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return shown if more <= 0 else f"{shown} and {plural(more, 'more tensor')}"


def _has(pair: Pair, modules: Modules, name: str) -> bool:
    """Whether a checkpoint has tensors of a module, in either version; if unknown, it may have."""
    if not pair.compared:
        return modules.named(name).is_in(pair.path)
    return any(
        one.name == name
        for path, side in ((pair.renamed_from or pair.path, pair.old), (pair.path, pair.new))
        if side is not None
        for entry in side.manifest.entries
        if not entry.opaque
        for one in modules.of(path, entry.tensor.name)
    )


def _only(names: Collection[str], pair: Pair, modules: Modules, lacking: Lacking | None) -> Lacking:
    """Has only the values read that some modules have in the new version."""
    entries = pair.new.manifest.entries if pair.new is not None else ()
    wanted = {
        block.sha256
        for entry in entries
        if any(one.name in names for one in modules.of(pair.path, entry.tensor.name))
        for block in entry.blocks
    }

    def ask(blocks: Sequence[Block]) -> str | None:
        if not any(one.sha256 in wanted for one in blocks):
            return "no gate asks for them"
        return None if lacking is None else lacking(blocks)

    return ask


def _all_new(found: Comparison, new: Side, lacking: Lacking | None) -> Comparison:
    """The comparison of a checkpoint that is new, with the values of all its tensors measured."""
    nothing = copy(new)
    nothing.manifest = replace(new.manifest, entries=())
    return replace(found, changes=compare(nothing, new, lacking=lacking).changes)


@dataclass(frozen=True)
class _LookedAt:
    """What differs in a checkpoint, for each gate: of its module, or of all."""

    pair: Pair
    found: Comparison
    modules: Modules

    @cached_property
    def _by_module(self) -> dict[str, tuple[Change, ...]]:
        division = divided(self.found, self.modules, self.pair.path)
        parts = () if division is None else division.parts
        return {part.module.name: part.changes for part in parts}

    def changes_for(self, gate: Gate) -> Sequence[Change]:
        """The changes of tensors that a gate looks at."""
        if gate.module is None:
            return self.found.changes
        return self._by_module.get(gate.module, ())

    def stored_for(self, gate: Gate) -> int:
        """Bytes that these tensors add to the store, each object once; all that is new, of all."""
        old, new = self.pair.old, self.pair.new
        if gate.module is None or new is None:
            return self.found.stored
        known = {*self.pair.known}
        if old is not None:
            known |= {ref.oid for ref in old.manifest.objects()}
        names = {one.name for one in self.changes_for(gate) if one.new is not None}
        entries = (one for one in new.manifest.entries if one.tensor.name in names)
        return stored_by((block for entry in entries for block in entry.blocks), known)


def _stored(gate: Gate, path: str, stored: int) -> Row:
    limit = gate.max_stored or 0
    words = f"it stores {size(stored)}; at most {size(limit)} is allowed"
    verdict = "refused" if stored > limit else "accepted"
    return Row(gate, path, "stored", verdict, (words,), "base", None, float(stored))  # type: ignore[arg-type]


def _not_finite(gate: Gate, path: str, changes: Sequence[Change]) -> Row:
    """The row on entries that are NaN or infinite and were not before."""
    lacking = [one for one in changes if one.status in ("changed", "added")
               and one.count and one.measure is None]  # fmt: skip
    wrong = [one for one in changes if one.measure is not None and one.measure.not_finite]
    if wrong:
        total = sum(one.measure.not_finite for one in wrong if one.measure is not None)
        why = f"{total:,} entries are NaN or infinite and were not before: {_named(wrong)}"
        return Row(gate, path, "new NaN", "refused", (why,), "base", None, float(total))
    if lacking:
        why = (
            f"the values of {_named(lacking)} were not read: {lacking[0].lacking or 'unknown type'}"
        )
        return Row(gate, path, "new NaN", "unmeasured", (why,), "base")
    return Row(gate, path, "new NaN", "accepted", (), "base", None, 0.0)


def _frozen(gate: Gate, path: str, found: Comparison, changes: Sequence[Change]) -> Row:
    """The row on tensors that must be as they were, under their names."""
    if found.old_format is None:
        return Row(gate, path, "frozen", "accepted", ("it is new",), "base")
    globs = Globs(gate.frozen, "frozen")
    wrong = [one for one in changes if any(
        info is not None and globs.matches(info.name) for info in (one.old, one.new))]  # fmt: skip
    if wrong:
        why = f"frozen tensors differ: {_named(wrong)}"
        return Row(gate, path, "frozen", "refused", (why,), "base", None, float(len(wrong)))
    return Row(gate, path, "frozen", "accepted", (), "base", None, 0.0)


def _named(changes: Sequence[Change]) -> str:
    return named([one.name for one in changes])
