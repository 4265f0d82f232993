"""The rules of gates about a checkpoint itself: what it stores, new NaN, frozen tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace

from git_theta_ext.checkpoints.versions import Side
from git_theta_ext.comparison.compare import Change, Comparison, Lacking, compare
from git_theta_ext.comparison.files import Pair
from git_theta_ext.core.globs import Globs
from git_theta_ext.core.text import plural, size
from git_theta_ext.evaluation.config import Gate
from git_theta_ext.evaluation.gates.verdict import Row

_NAMED = 5
"""Tensors that a reason names; the rest is counted."""


def properties(gates: Sequence[Gate], pair: Pair, lacking: Lacking | None = None) -> Iterator[Row]:
    """What some gates, all of which are for this checkpoint, say of it.

    Values are read only where a gate forbids new NaN.

    Args:
        gates: those without a rule about it say nothing.
        pair: the checkpoint as it is in the base, and now.
        lacking: tells why values cannot be read; by default all are fetched.

    Raises:
        ThetaError: a value cannot be read.
    """
    wanted = [one for one in gates if one.max_stored is not None or one.frozen or not one.new_nan]
    if not wanted:
        return
    if pair.new is None:
        why = "it cannot be read here" if not pair.compared else "it is not there any more"
        for gate in wanted:
            yield Row(gate, pair.path, "checkpoint", "unmeasured", (why,))
        return
    measured = any(not gate.new_nan for gate in wanted)
    found = pair.compare(measured=measured, lacking=lacking)
    if pair.old is None and measured:
        found = _all_new(found, pair.new, lacking)
    for gate in wanted:
        if gate.max_stored is not None:
            yield _stored(gate, pair.path, found)
        if not gate.new_nan:
            yield _not_finite(gate, pair.path, found)
        if gate.frozen:
            yield _frozen(gate, pair.path, found)


def _all_new(found: Comparison, new: Side, lacking: Lacking | None) -> Comparison:
    """The comparison of a checkpoint that is new, with the values of all its tensors measured."""
    nothing = copy(new)
    nothing.manifest = replace(new.manifest, entries=())
    return replace(found, changes=compare(nothing, new, lacking=lacking).changes)


def _stored(gate: Gate, path: str, found: Comparison) -> Row:
    limit = gate.max_stored or 0
    words = f"it stores {size(found.stored)}; at most {size(limit)} is allowed"
    verdict = "refused" if found.stored > limit else "accepted"
    return Row(gate, path, "stored", verdict, (words,), "base", None, float(found.stored))  # type: ignore[arg-type]


def _not_finite(gate: Gate, path: str, found: Comparison) -> Row:
    """The row on entries that are NaN or infinite and were not before."""
    lacking = [one for one in found.changes if one.status in ("changed", "added")
               and one.count and one.measure is None]  # fmt: skip
    wrong = [one for one in found.changes if one.measure is not None and one.measure.not_finite]
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


def _frozen(gate: Gate, path: str, found: Comparison) -> Row:
    """The row on tensors that must be as they were, under their names."""
    if found.old_format is None:
        return Row(gate, path, "frozen", "accepted", ("it is new",), "base")
    globs = Globs(gate.frozen, "frozen")
    wrong = [one for one in found.changes if any(
        info is not None and globs.matches(info.name) for info in (one.old, one.new))]  # fmt: skip
    if wrong:
        why = f"frozen tensors differ: {_named(wrong)}"
        return Row(gate, path, "frozen", "refused", (why,), "base", None, float(len(wrong)))
    return Row(gate, path, "frozen", "accepted", (), "base", None, 0.0)


def _named(changes: Sequence[Change]) -> str:
    names = ", ".join(one.name for one in changes[:_NAMED])
    more = len(changes) - _NAMED
    return names if more <= 0 else f"{names} and {plural(more, 'more tensor')}"
