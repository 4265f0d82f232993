"""DeepSpeed's optimizer shards (ZeRO 1 and 2): flat groups, cut into the parameters they hold.

`zero_pp_rank_R_mp_rank_MM_optim_states.pt` has, for each group of parameters, the R-th part of
all of them one after the other, padded at the end. `param_shapes` of `mp_rank_MM_model_states.pt`
beside it says which they are. Tensors are cut only where all lengths fit. Source: DeepSpeed 0.19,
runtime/zero/stage_1_and_2.py (`state_dict`) and utils/zero_to_fp32.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.base import Layout, Source
from git_theta_ext.formats.layout.views import View
from git_theta_ext.formats.neighbours import zero_shard
from git_theta_ext.formats.pickles.machine import Call, Dict, Value
from git_theta_ext.formats.torch import zipped

_FLAT = re.compile(
    r"optimizer_state_dict\.(?:single_partition_of_fp32_groups\.(\d{1,6})"
    r"|base_optimizer_state\.(?:state\.)?(\d{1,6})\.(\w{1,64}))",
    re.ASCII,
)
_ALIGNED = 2
"""The padding of a group is shorter than so many elements for each rank."""

_Shapes = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class _Group:
    """A group of parameters: their names and shapes in order, and how it is shared out."""

    shapes: _Shapes
    ranks: int

    @property
    def count(self) -> int:
        """Elements of all parameters."""
        return sum(math.prod(shape) for _, shape in self.shapes)


def layout_beside(source: Source, path: str, states: Source) -> Layout:
    """The layout of a shard, its flat groups as the parameters that lie in them.

    Raises:
        FormatError: one of both files is damaged, or they do not fit together.
    """
    match = zero_shard(path)
    if match is None:
        raise FormatError(f"zero: {path!r} is not the name of a shard")
    groups = _groups(zipped.pickle(states), zipped.pickle(source))
    rank = int(match[1])
    cut: list[bool] = []

    def finer(views: list[View]) -> list[View]:
        lengths = _lengths(views)
        made: list[View] = []
        for view in views:
            pieces = _pieces(view, groups, lengths, rank)
            cut.append(pieces is not None)
            made += [view] if pieces is None else pieces
        if len(made) > limits.NAMES:
            raise FormatError(f"zero: more than {limits.NAMES} tensors")
        return made

    layout = zipped.layout_of(source, finer)
    if not any(cut):
        raise FormatError("zero: no group that the model states describe")
    return layout


def _groups(states: Value, shard: Value) -> list[_Group]:
    """The groups that a file of model states and a shard agree on.

    Raises:
        FormatError: one of both says nothing of them.
    """
    shapes = _at(states, "param_shapes")
    optimizer = _at(shard, "optimizer_state_dict")
    counts = _at(optimizer, "partition_count")
    found = shapes if isinstance(shapes, list) else []
    ranks = counts if isinstance(counts, list) else [counts] * len(found)
    if not found or len(ranks) != len(found):
        raise FormatError("zero: no groups of parameters")
    if not _only_zeros(_at(optimizer, "param_alignment_paddings")):
        raise FormatError("zero: there is padding between the parameters")
    groups = []
    for table, count in zip(found, ranks, strict=True):
        if type(count) is not int or not 0 < count < 1 << 31:
            raise FormatError("zero: a group without the number of its ranks")
        groups.append(_Group([(name, _shape(size)) for name, size in _pairs(table)], count))
    return groups


def _only_zeros(value: Value) -> bool:
    """Whether a list, or a list of lists, has no number but zero; true where there is none."""
    if value is None or (type(value) is int and value == 0):
        return True
    if not isinstance(value, list):
        return False
    inner = [one for item in value for one in (item if isinstance(item, list) else [item])]
    return all(type(one) is int and one == 0 for one in inner)


def _lengths(views: Sequence[View]) -> dict[int, int]:
    """How long the part of each group is, padding included: as long as the longest of its state."""
    found: dict[int, int] = {}
    for view in views:
        match = _FLAT.fullmatch(view.name)
        if match is not None and view.size is not None and len(view.size) == 1:
            group = int(match[1] or match[2])
            found[group] = max(found.get(group, 0), view.size[0])
    return found


def _pieces(
    view: View, groups: Sequence[_Group], lengths: dict[int, int], rank: int
) -> list[View] | None:
    """The parameters, or runs of their elements, that lie in a flat tensor; None for others.

    Args:
        view: a tensor of the shard.
        groups: all groups.
        lengths: of each group's part, by its number.
        rank: which part it is.

    Raises:
        FormatError: it is of a group, and not as long as its part of that is.
    """
    match = _FLAT.fullmatch(view.name)
    if match is None or view.size is None or len(view.size) != 1 or view.stride != (1,):
        return None
    number = int(match[1] or match[2])
    if number >= len(groups):
        raise FormatError(f"zero: {view.name!r} is of a group that the model states do not have")
    group, length = groups[number], lengths[number]
    padding = group.ranks * length - group.count
    start, here = rank * length, min(length, max(0, group.count - rank * length))
    fits = rank < group.ranks and 0 <= padding < _ALIGNED * group.ranks
    if not fits or view.size[0] not in (length, here):
        raise FormatError(f"zero: {view.name!r} does not hold what the model states say")
    if not here:
        return None
    label = "fp32.{}" if match[1] else f"state.{{}}.{match[3]}"
    return list(_cut(view, group.shapes, start, start + here, label))


def _cut(view: View, shapes: _Shapes, start: int, stop: int, label: str) -> Iterator[View]:
    """The views of what lies between two places of a group; a part of a parameter is flat."""
    position = 0
    for name, shape in shapes:
        count = math.prod(shape)
        low, high = max(position, start), min(position + count, stop)
        if low < high:
            whole = high - low == count
            first, last = low - position, high - position
            slices = f"[{first or ''}:{last if last < count else ''}]"
            size = shape if whole else (high - low,)
            yield View(
                label.format(name) + ("" if whole else f".flat{slices}"), view.key, view.dtype,
                view.offset + low - start, size, _strides(size),
            )  # fmt: skip
        position += count


def _strides(size: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for extent in reversed(size):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


# -- records ---------------------------------------------------------------------------------------


def _at(value: Value, key: str) -> Value:
    """What a dictionary has under a key; None where it has nothing."""
    return next((item for name, item in _pairs(value) if name == key), None)


def _pairs(value: Value) -> Iterator[tuple[str, Value]]:
    """The pairs of a dictionary, or of an OrderedDict, whose keys are texts."""
    if not isinstance(value, Dict | Call):
        raise FormatError("zero: a table is missing")
    for name, item in value.pairs:
        if isinstance(name, str) and len(name) <= limits.NAME_KEY_CHARS:
            yield name, item


def _shape(value: Value) -> tuple[int, ...]:
    """A `torch.Size`."""
    args = value.args if isinstance(value, Call) else ()
    found = args[0] if isinstance(args, tuple) and len(args) == 1 else None
    if not isinstance(found, tuple | list) or len(found) > limits.AXES:
        raise FormatError("zero: a parameter without a shape")
    if not all(type(extent) is int and 0 <= extent < 1 << 47 for extent in found):
        raise FormatError("zero: a parameter without a shape")
    return tuple(found)
