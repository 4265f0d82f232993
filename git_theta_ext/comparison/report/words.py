"""What became of a tensor, in a few words that every form of the report uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from git_theta_ext.comparison.compare import Change
from git_theta_ext.comparison.overlap import same_but_for_ones
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.text import plural
from git_theta_ext.formats import gguf

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
    """How type, shape and memory order differ; nothing for what is the same."""
    then, now, measure = change.old, change.new, change.measure
    if then is None or now is None:
        return
    if (types := quantised(then, now)) is not None:
        yield types
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


def quantised(then: TensorInfo, now: TensorInfo) -> str | None:
    """`quantised F16 → Q8_0`, where one of two versions holds the blocks of a GGUF type."""
    rows = {one.shape[:-1] if one.dtype.kind == "float" else one.shape[:-2] for one in (then, now)}
    if len(rows) > 1:
        return None
    old, new = _types(then, now), _types(now, then)
    if old is None or new is None or old == new:
        return None
    plain = then.dtype.kind == "float", now.dtype.kind == "float"
    verb = {(True, False): "quantised", (False, True): "dequantised"}.get(plain, "re-quantised")
    return None if all(plain) else f"{verb} {old} → {new}"


def _types(tensor: TensorInfo, other: TensorInfo) -> str | None:
    """The element type of a float tensor, or the GGUF type of one in blocks, for a reader."""
    if tensor.dtype.kind == "float":
        return tensor.dtype.name
    if other.dtype.kind == "float":
        rows = [other.shape[-1]] if other.shape else []
    elif len(tensor.shape) < 2:
        return None
    else:
        rows = sorted({tensor.shape[-2] * elements for elements in (32, 256)})
        rows = [row for row in rows if gguf.quantisations(other, row)]
    names = [name for row in rows for name in gguf.quantisations(tensor, row)]
    return " or ".join(names) if names else None


def conversion(changes: Sequence[Change]) -> str | None:
    """A sentence where most tensors that changed became of another type: a cast, a quantisation.

    `quantised F16 → Q8_0: 226 tensors`, `cast F32 → BF16: 102 tensors`.
    """
    kinds: Counter[str] = Counter()
    for change in changes:
        if change.old is None or change.new is None or change.status != "changed":
            continue
        if (words := quantised(change.old, change.new)) is not None:
            kinds[words] += 1
        elif change.old.dtype != change.new.dtype:
            kinds[f"cast {change.old.dtype.name} → {change.new.dtype.name}"] += 1
    if not kinds:
        return None
    words, count = kinds.most_common(1)[0]
    if count < 2 or 2 * sum(kinds.values()) < len(changes):
        return None
    others = sum(kinds.values()) - count
    more = f", {others:,} to other types" if others else ""
    return f"{words}: {plural(count, 'tensor')}{more}"


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
