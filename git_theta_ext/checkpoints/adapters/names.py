"""Which tensor of a checkpoint a module of an adapter means.

A trainer often wraps the model that the checkpoint holds (`BertForSequenceClassification` has a
`bert.` in front of every name of `BertModel`), or unwraps it. So one prefix may be added to, or
taken from, all names; it must be the same for all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from git_theta_ext.checkpoints.adapters.base import refuse


def match_names(path: Path, wanted: Collection[str], there: Collection[str]) -> Mapping[str, str]:
    """Each wanted name's counterpart in the checkpoint.

    Args:
        path: of the adapter, for messages.
        wanted: names of tensors as the adapter has them.
        there: names of the checkpoint's tensors.

    Raises:
        UsageError: there is no prefix with which all are found, or more than one.
    """
    known = set(there)
    if all(name in known for name in wanted):
        return {name: name for name in wanted}
    first = next(name for name in wanted if name not in known)
    longer = {name.removesuffix(first) for name in there if name.endswith(f".{first}")}
    shorter = {first.removesuffix(name) for name in there if first.endswith(f".{name}")}
    found = [
        *({name: prefix + name for name in wanted} for prefix in sorted(longer)),
        *(
            {name: name.removeprefix(prefix) for name in wanted}
            for prefix in sorted(shorter)
            if all(name.startswith(prefix) for name in wanted)
        ),
    ]
    fitting = [names for names in found if known.issuperset(names.values())]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        several = ", ".join(sorted(repr(names[first]) for names in fitting))
        raise refuse(path, f"it is not clear which tensor {first!r} means: {several}")
    raise refuse(
        path,
        f"changes {first!r}, and the checkpoint has no such tensor"
        + (f" (it has {sorted(known)[0]!r} and {len(known) - 1} others)" if known else ""),
        "is this the adapter's base model? An adapter that adds tensors is merged by its own tool",
    )
