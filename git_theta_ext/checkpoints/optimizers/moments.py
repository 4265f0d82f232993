"""Adam's second moments in an optimizer's file: where they are, and their values.

For PyTorch's `Optimizer.state_dict()` (torch/optim/optimizer.py of 2.13): `state` has a dictionary
for each parameter, by its number through all groups or by its name (FSDP), `param_groups` the
numbers and the settings. bitsandbytes (optim/optimizer.py of 0.48) has 8-bit codes in blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.optimizers.file import (
    Shape,
    Tree,
    get,
    number,
    pairs_of,
    pickle_of,
)
from git_theta_ext.checkpoints.optimizers.stored import Stored, Whole
from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.pickles.machine import Call, Dict
from git_theta_ext.formats.tensors_file import TensorsFile

_MOMENTS = ("exp_avg_sq", "state2")
_NESTED = "__bnb_optimizer_quant_state__"
_KEYS = 100
_NUMBERS = ("float", "int", "uint")
_CONTAINERS = (Dict, Call, list, tuple)
_OTHERS = {
    "exp_avg_sq_row": "is of Adafactor, which keeps no second moment of single entries",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """The second moment of one parameter: where it is. `shape` is None where there is none yet."""

    name: str | None
    group: int
    shape: Shape | None = None
    stored: Stored | None = None
    step: float = 0.0
    beta2: float = 0.0


@dataclass(frozen=True, slots=True)
class Moments:
    """All of an optimizer, in the order of its parameters, which may be without names."""

    path: Path
    inside: str
    """What the names of the optimizer's own tensors begin with."""
    found: tuple[Moment, ...]
    no_decay: tuple[int, ...]
    """The groups without weight decay, where others have it."""

    def refused(self, why: str, hint: str | None = None) -> UsageError:
        """The error that the optimizer cannot be used."""
        return UsageError(f"{printable(str(self.path))} {why}", hint=hint)


def moments_of(file: TensorsFile) -> Moments:
    """The second moments of the one optimizer in a PyTorch file.

    Raises:
        UsageError: there is none, or several, or it is of another kind.
    """
    top = pickle_of(file)
    if top is None:
        raise file.refused("is no file of torch.save")
    places = list(_optimizers(top))
    if not places:
        flat = next((one for one in dictionaries(top) if _is_flat(one[1])), None)
        if flat is not None:
            return _flat(file, *flat)
        for path, tree in dictionaries(top):
            for key, why in _OTHERS.items():
                if get(tree, key) is not None:
                    raise file.refused(why, f"{printable('.'.join((*path, key)))}")
        raise file.refused(
            "has no optimizer: a dictionary with 'state' and 'param_groups'",
        )
    if len(places) > 1:
        names = ", ".join(printable(".".join(path)) for path, _ in places)
        raise file.refused(f"has several optimizers: {names}", "save one of them by itself")
    ((path, tree),) = places
    state = {str(key): value for key, value in pairs_of(get(tree, "state")) if is_key(key)}
    found: list[Moment] = []
    groups = [read_group(one) for one in items(get(tree, "param_groups"))]
    if sum(len(group.members) for group in groups) > limits.NAMES:
        raise file.refused(f"has more than {limits.NAMES} parameters")
    for position, group in enumerate(groups):
        for key, name in group.members:
            where = (*path, "state", key)
            found.append(_moment(file, state.get(key), group, (position, name), where))
    if not any(one.shape is not None for one in found):
        raise file.refused("has no second moments: its optimizer is no Adam, or made no step")
    plain = tuple(n for n, group in enumerate(groups) if not group.decays)
    return Moments(
        file.path, ".".join((*path, "")), tuple(found), plain if len(plain) < len(groups) else ()
    )


@dataclass(frozen=True, slots=True)
class Group:
    """The settings of some parameters, and these, by key and name."""

    members: list[tuple[str, str | None]]
    beta2: float | None
    step: Tree | None
    decays: bool


def read_group(tree: Tree) -> Group:
    """One of `param_groups`."""
    members, names = items(get(tree, "params")), items(get(tree, "param_names"))
    if len(names) != len(members):
        names = members
    betas = items(get(tree, "betas"))
    return Group(
        [
            (str(key), name if isinstance(name, str) and not name.isdecimal() else None)
            for key, name in zip(members, names, strict=True)
            if is_key(key)
        ],
        number(betas[1]) if len(betas) == 2 else None,
        get(tree, "step"),
        bool(number(get(tree, "weight_decay"))),
    )


def items(tree: Tree) -> list[Tree]:
    """The items of a list or a tuple; none of anything else."""
    return list(tree) if isinstance(tree, list | tuple) else []


def dictionaries(top: Tree) -> Iterator[tuple[tuple[str, ...], Tree]]:
    """The dictionaries near the top of a pickle, not those below an optimizer."""
    pending: deque[tuple[tuple[str, ...], Tree]] = deque([((), top)])
    seen: dict[int, Tree] = {}  # keeps what it names alive
    while pending:
        path, tree = pending.popleft()
        if seen.setdefault(id(tree), tree) is not tree or not isinstance(tree, _CONTAINERS):
            continue
        pairs = pairs_of(tree)
        if pairs:
            yield path, tree
        if isinstance(tree, list | tuple):
            pairs = list(enumerate(tree[:64]))
        if len(path) < 3 and (get(tree, "state") is None or get(tree, "param_groups") is None):
            pending += [((*path, str(key)), item) for key, item in pairs if is_key(key)]


def is_key(key: Tree) -> bool:
    """Whether a key of a dictionary can be the name or number of a parameter."""
    return isinstance(key, str | int) and not isinstance(key, bool)


def _optimizers(top: Tree) -> Iterator[tuple[tuple[str, ...], Tree]]:
    for path, tree in dictionaries(top):
        if get(tree, "state") is not None and get(tree, "param_groups") is not None:
            yield path, tree


def _moment(
    file: TensorsFile,
    state: Tree | None,
    group: Group,
    who: tuple[int, str | None],
    where: tuple[str, ...],
) -> Moment:
    """What the state of one parameter says; without a shape where it has no state."""
    position, name = who
    label = printable(name or ".".join(where))
    if len(pairs_of(state)) > _KEYS:
        raise file.refused(f"has a state of {len(pairs_of(state))} keys ({label})")
    step, outer = get(state, "step"), where
    if get(state, _NESTED) is not None:
        where, state = (*where, _NESTED), get(state, _NESTED)
    if not 0 < len(pairs_of(state)) <= _KEYS:
        return Moment(name, position)
    kind = next((one for one in _MOMENTS if get(state, one) is not None), None)
    if kind is None:
        for key, why in _OTHERS.items():
            if get(state, key) is not None:
                raise file.refused(why)
        raise file.refused(f"has no second moment of {label}: its optimizer is no Adam")
    stored = ".".join((*where, kind))
    info = file.find(stored)
    if info is None and isinstance(get(state, kind), Call):
        raise file.refused(
            f"has one rank's shard of {label}, as an object",
            "save it with torch.distributed.checkpoint, or gathered (full_state_dict=True)",
        )
    if info is None:
        raise file.refused(f"has a second moment of {label} that cannot be read")
    if group.beta2 is None or not 0 <= group.beta2 < 1:
        raise file.refused("does not say Adam's second beta (param_groups: betas)")
    count = step_of(file, group.step if step is None else step, outer)
    if count is None or not count >= 1:
        raise file.refused(f"does not say after how many steps it was saved ({label}: step)")
    return Moment(name, position, info.shape, Whole(file, stored), count, group.beta2)


def _is_flat(tree: Tree) -> bool:
    names = [name for name, _ in pairs_of(tree) if isinstance(name, str)]
    return any(one.startswith("state.") for one in names) and any(
        one.startswith("param_groups.") for one in names
    )


def _flat(file: TensorsFile, path: tuple[str, ...], tree: Tree) -> Moments:
    """Of a state whose keys are joined: `state.NAME.exp_avg_sq`, `param_groups.NAME.betas`."""
    values = {name: value for name, value in pairs_of(tree) if isinstance(name, str)}
    found = []
    for key in values:
        name = key.removeprefix("state.").removesuffix(".exp_avg_sq")
        if key != f"state.{name}.exp_avg_sq":
            continue
        betas = items(values.get(f"param_groups.{name}.betas"))
        beta2 = number(betas[1]) if len(betas) == 2 else None
        group = Group([], beta2, None, True)
        state = Dict([
            (part, values.get(f"state.{name}.{part}")) for part in ("step", "exp_avg_sq")
        ])  # fmt: skip
        found.append(_moment(file, state, group, (0, name), (*path, "state", name)))
    if not found:
        raise file.refused("has no second moments: its optimizer is no Adam, or made no step")
    return Moments(file.path, ".".join((*path, "")), tuple(found), ())


def step_of(file: TensorsFile, step: Tree | None, where: tuple[str, ...]) -> float | None:
    """The counter of steps: a number, or a tensor of one."""
    plain = number(step)
    if plain is not None or step is None:
        return plain
    name = ".".join((*where, "step"))
    info = file.find(name)
    if info is None or info.count != 1 or info.dtype.kind not in _NUMBERS:
        return None
    return number(float(file.read(name).reshape(-1)[0]))


def values(moment: Moment) -> NDArray[np.float32]:
    """The second moment of a parameter, without the bias of its zero start: v / (1 - β₂ᵗ).

    Raises:
        UsageError: it is negative, infinite or NaN, or its codes cannot be read.
    """
    if moment.stored is None:
        raise UsageError(f"there is no second moment of {printable(moment.name or '')!r}")
    stored = moment.stored.read()
    with np.errstate(invalid="ignore", over="ignore"):
        found = stored.astype(np.float64) / (1.0 - moment.beta2**moment.step)
        result: NDArray[np.float32] = found.astype(np.float32)
    if not np.all(np.isfinite(result)) or np.any(result < 0):
        raise moment.stored.refused("has negative, infinite or NaN entries in")
    return result
