"""`--to peft` as a use case: plan, files, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters import corrections
from git_theta_ext.core.arrays import numpy_dtype
from git_theta_ext.packages.adapter import peft, plan
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.packages.adapter.error import Error, Misses, measure
from git_theta_ext.packages.adapter.plan import Plan, Wanted
from git_theta_ext.packages.base_file import BaseRecord


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: bytes of the adapter's tensors and of its corrections.

    `base` is the name of the base model, if it has one; `lacking` is what corrections would have
    taken, where they were left out.
    """

    plan: Plan
    base: str | None
    nbytes: int
    corrections: int
    lacking: int

    @property
    def exact(self) -> bool:
        """Whether `git theta add --update` on the old version gives the new one, bit for bit."""
        return self.plan.total.exact or bool(self.corrections)


def export(
    ends: Ends,
    folder: Path,
    text: str,
    wanted: Wanted,
    *,
    base: str | None,
    record: BaseRecord,
    prefix: str,
    exact: bool | None,
    work_tree: Path | None,
    advance: Callable[[int], object],
) -> Exported:
    """Write a commit as the folder of a LoRA.

    Args:
        ends: the versions.
        folder: new, empty, or an adapter's.
        text: the range as the user typed it, for advice.
        wanted: rank, tolerance and what becomes of the rest.
        base: the name of the base model, for `base_model_name_or_path`.
        record: what the base is, for `theta_base.json`.
        prefix: of the model's names, before those of the checkpoint.
        exact: whether to write what the factors miss; None to do so where it takes no more than
            they do.
        work_tree: the top of the repository's.
        advance: called with bytes that are done.

    Raises:
        UsageError: a tensor has no place in it, or the folder is another's.
        StoreError: it cannot be written.
    """
    found = plan.make(ends, wanted, advance)
    plan.require_whole(found, text, wanted)
    held = peft.tensors(found, ends, prefix)
    settings = peft.config(found, base, prefix)
    missed = None if exact is False or found.total.exact else _corrections(found, ends)
    small = sum(one.factored.nbytes for one in found.modules)
    kept = missed if missed is not None and (exact or missed.nbytes <= small) else None
    nbytes = peft.write(folder, held, settings, kept, base=record, work_tree=work_tree)
    return Exported(
        found,
        base,
        nbytes,
        0 if kept is None else kept.nbytes,
        missed.nbytes if missed is not None and kept is None else 0,
    )


def _corrections(found: Plan, ends: Ends) -> corrections.Corrections:
    """The entries that the factors miss, of every layer that has some."""
    parts: dict[str, NDArray[Any]] = {}
    names = []
    for one in found.modules:
        if one.error.exact:
            continue
        misses = Misses()
        measure(ends, one.tensor, one.change(), misses)
        entry = ends.after[one.tensor]
        places = corrections.logical(np.concatenate(misses.places), entry)
        narrow = np.int32 if entry.tensor.count < 1 << 31 else np.int64
        values = np.concatenate(misses.values)
        dtype = numpy_dtype(entry.tensor.dtype)
        parts[f"{one.tensor}.indices"] = places.astype(narrow)
        parts[f"{one.tensor}.values"] = values if dtype is None else values.view(dtype)
        names.append(one.tensor)
    return corrections.Corrections(parts, corrections.base_of(ends.before[name] for name in names))


def report(exported: Exported, ends: Ends, output: str) -> dict[str, Any]:
    """What `--json` says."""
    found = exported.plan
    return {
        "path": ends.path,
        "from": ends.first,
        "to": ends.last,
        "output": output,
        "kind": "lora",
        "base_model": exported.base,
        "modules": modules(found),
        "biases": found.biases,
        "modules_to_save": list(found.saved),
        "error": error_record(found.total),
        "bytes": exported.nbytes,
        "corrections": exported.corrections,
        "exact": exported.exact,
        "left_out": ends.left_out,
    }


def modules(found: Plan) -> list[dict[str, Any]]:
    """What `--json` says of each module."""
    return [
        {
            "name": one.name,
            "layer": one.layer,
            "factors": one.factored.source,
            "rank": one.factored.rank,
            "scaling": one.factored.scaling,
            **error_record(one.error),
        }
        for one in found.modules
    ]


def error_record(error: Error) -> Mapping[str, Any]:
    """What is missed, as numbers."""
    return {
        "entries": error.count,
        "differ": error.differ,
        "max_ulps": error.most,
        "relative": error.relative if error.step or not error.miss else None,
    }
