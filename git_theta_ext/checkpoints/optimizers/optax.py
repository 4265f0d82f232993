"""Optax's Adam in a msgpack of Flax, an `.npz` or another file of named tensors: `nu` by name.

`optax.ScaleByAdamState` has `count`, `mu` and `nu`; `nu` is a tree like the parameters. Its decay
stands in no file.
"""

from __future__ import annotations

import re

from git_theta_ext.checkpoints.optimizers.moments import Moment, Moments
from git_theta_ext.checkpoints.optimizers.stored import Whole
from git_theta_ext.formats.tensors_file import TensorsFile

_NU = re.compile(r"(?:^|.*?[./])nu([./])(.+)")


def moments_of(file: TensorsFile, beta2: float | None) -> Moments:
    """The second moments of a file of named tensors.

    Raises:
        UsageError: there are none, or it does not say after how many steps.
    """
    found: list[tuple[str, str, str]] = []
    for name in file:
        match = _NU.fullmatch(name)
        if match:
            before = name[: match.start(1) - 2]
            found.append((before, match[2].replace("/", "."), name))
    if not found:
        raise file.refused(
            "has no second moments that are known: exp_avg_sq in a file of torch.save (since 1.6), "
            "or nu of Optax"
        )
    starts = {before for before, _, _ in found}
    if len(starts) > 1:
        raise file.refused("has several optimizers")
    (before,) = starts
    if beta2 is None:
        raise file.refused("does not say Adam's second beta", "add --beta2 0.999, or what it was")
    count = file.find(f"{before}count")
    if count is None or count.count != 1:
        raise file.refused("does not say after how many steps it was saved (count)")
    step = float(file.read(f"{before}count").reshape(-1)[0])
    if not step >= 1:
        raise file.refused("was saved before the first step")
    moments = []
    for _, label, name in found:
        info = file.find(name)
        moments.append(
            Moment(label, 0, info.shape if info else None, Whole(file, name), step, beta2)
        )
    return Moments(file.path, before, tuple(moments), ())
