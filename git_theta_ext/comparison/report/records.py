"""A comparison as plain data, for JSON: every key is documented in `docs/commands/diff.md`."""

from __future__ import annotations

import math
from typing import Any

from git_theta_ext.comparison.compare import Change, Comparison
from git_theta_ext.comparison.measure import Measure
from git_theta_ext.comparison.report import quantised
from git_theta_ext.comparison.report.text import position
from git_theta_ext.comparison.report.words import conversion, relation
from git_theta_ext.core.tensors import TensorInfo


def records(path: str, comparison: Comparison) -> dict[str, Any]:
    """The comparison of one checkpoint; sizes in bytes, shares as fractions of one."""
    return {
        "path": path,
        "old_path": comparison.renamed_from,
        "compared": comparison.compared,
        "remarks": list(comparison.remarks),
        "conversion": conversion(comparison.changes),
        "old_format": comparison.old_format,
        "new_format": comparison.new_format,
        "tensors": comparison.tensors,
        "parameters": comparison.parameters,
        "changed_parameters": comparison.changed_parameters,
        "change": _number(comparison.measure.relative),
        "stored": comparison.stored,
        "bytes": comparison.size,
        "changes": [_change(change) for change in comparison.changes],
        "outside": [
            {"name": note.name, "old": note.old, "new": note.new} for note in comparison.notes
        ],
        "quantised": quantised.records(comparison),
        "structure_changed": comparison.structure_changed,
    }


def _change(change: Change) -> dict[str, Any]:
    """The record of one changed tensor; what was not measured is None."""
    return {
        "name": change.name,
        "status": change.status,
        "relation": relation(change),
        "old": _tensor(change.old),
        "new": _tensor(change.new),
        "update": change.kind,
        "remarks": dict(change.info),
        "stored": change.stored,
        "singular_values": None
        if change.spectrum is None
        else {
            "values": list(change.spectrum.values),
            "estimated": change.spectrum.estimated,
            "partial": change.spectrum.partial,
        },
        "values": _measure(change.measure, change.new),
    }


def _tensor(tensor: TensorInfo | None) -> dict[str, Any] | None:
    if tensor is None:
        return None
    return {"name": tensor.name, "dtype": tensor.dtype.name, "shape": list(tensor.shape)}


def _measure(measure: Measure | None, tensor: TensorInfo | None) -> dict[str, Any] | None:
    """The figures on a tensor's values, as JSON can hold them; None if there are none."""
    if measure is None or tensor is None:
        return None
    at, gone = measure.largest_at, measure.not_finite_at
    return {
        "changed_entries": measure.changed,
        "change": _number(measure.relative),
        "cosine": _number(measure.cosine),
        "mean": [_number(measure.old.mean), _number(measure.new.mean)],
        "std": [_number(measure.old.std), _number(measure.new.std)],
        "largest": _number(measure.largest),
        "largest_at": None if at is None else position(at, tensor),
        "new_not_finite": measure.not_finite,
        "new_not_finite_at": None if gone is None else position(gone, tensor),
        "added_entries": measure.grown.count // (2 if tensor.dtype.kind == "complex" else 1),
        "added_mean": _number(measure.grown.mean),
        "added_std": _number(measure.grown.std),
        "histogram": measure.histogram(),
    }


def _number(value: float | None) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if value is not None and math.isfinite(value) else None
