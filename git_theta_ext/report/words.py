"""What became of a tensor, in a few words that every form of the report uses."""

from __future__ import annotations

import re
from collections.abc import Iterator

from git_theta_ext.comparison.compare import Change
from git_theta_ext.comparison.overlap import same_but_for_ones
from git_theta_ext.tensors import TensorInfo
from git_theta_ext.text import plural

_TRAINING = re.compile(
    r"(^|[./_-])(optimi[sz]ers?|optim|opt_state|schedulers?|rng_states?|random_states?"
    r"|training_args|grad_scaler)([./_-]|\d|$)"
    r"|\.(exp_avg|exp_avg_sq|max_exp_avg_sq|momentum_buffer|square_avg)$|^state\.\d+\.step$",
    re.IGNORECASE,
)


def is_training_state(name: str) -> bool:
    """Whether a tensor, or a file, by its name only serves to go on with training."""
    return _TRAINING.search(name) is not None


def relation(change: Change) -> list[str]:
    """How the new version relates to the old one: retyped, resized, reshaped, reordered, renamed.

    Says also what that left as it was: `8 rows added, others unchanged`.
    """
    found = list(_relation(change))
    if change.status == "renamed":
        found.append("renamed")
    return found


def _relation(change: Change) -> Iterator[str]:
    then, now, measure = change.old, change.new, change.measure
    if then is None or now is None:
        return
    kept = measure is not None and not measure.changed and measure.old.count > 0
    if then.dtype != now.dtype:
        exact = kept and measure is not None and not measure.step
        yield "retyped exactly" if exact else "retyped, only rounded" if kept else "retyped"
    if then.shape == now.shape:
        if then.order != now.order:
            yield "reordered"
        return
    words = reshaping(then, now)
    if then.dtype != now.dtype or measure is None or measure.changed:
        yield words
    elif then.count == now.count:
        yield f"{words}, same values"
    else:
        yield f"{words}, others unchanged"


def rounded(change: Change) -> bool:
    """Whether the difference of two versions is that of their element types."""
    return change.old is not None and change.new is not None and (
        change.old.dtype != change.new.dtype and change.measure is not None
        and not change.measure.changed
    )  # fmt: skip


def reshaping(then: TensorInfo, now: TensorInfo) -> str:
    """What a new shape means: `8 rows added`, where only one axis differs."""
    differing = [
        (axis, a, b)
        for axis, (a, b) in enumerate(zip(then.shape, now.shape, strict=False))
        if a != b
    ]
    if len(then.shape) != len(now.shape) or len(differing) != 1 or same_but_for_ones(then, now):
        return "reshaped"
    axis, a, b = differing[0]
    what = {0: "row", 1: "column"}.get(axis, f"slice of axis {axis}")
    words = plural(abs(b - a), what, f"slices of axis {axis}" if axis > 1 else None)
    return f"{words} {'added' if b > a else 'removed'}"
