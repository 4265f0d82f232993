"""Adam's second moments in the files of DeepSpeed's ZeRO, stages 1 to 3, one file for each rank.

ZeRO joins the parameters of a group into one flat tensor and gives each rank a part of it (stages 1
and 2, with `param_slice_mappings`), or each rank a part of each parameter (stage 3, by the order
and the shapes in `param_shapes` of the file of model states). Sources: deepspeed 0.19.8,
runtime/zero/stage_1_and_2.py and stage3.py (`state_dict`), utils/zero_to_fp32.py,
checkpoint/ds_to_universal.py (`extract_zero_shards`, `extract_zero_shards_stage3`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.checkpoints.optimizers.file import (
    Shape,
    Tree,
    attributes,
    get,
    pairs_of,
    pickle_of,
    shape_of,
    whole,
)
from git_theta_ext.checkpoints.optimizers.moments import (
    Group,
    Moment,
    Moments,
    items,
    read_group,
    step_of,
)
from git_theta_ext.checkpoints.optimizers.stored import Run, Runs
from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.formats.tensors_file import TensorsFile

_NAME = re.compile(r"((?:bf16_)?zero_pp_rank_)(\d{1,6})(_mp_rank_(\d{1,6})_?optim_states\.pt)")
_STATE = "optimizer_state_dict"
_BASE = "base_optimizer_state"


def is_part(path: Path) -> bool:
    """Whether a file is called as one rank's part of an optimizer."""
    return _NAME.fullmatch(path.name) is not None


def parts_in(folder: Path) -> list[Path]:
    """The parts in a folder, in the order of their ranks."""
    return sorted((one for one in folder.iterdir() if is_part(one)), key=rank)


def rank(path: Path) -> int:
    """The rank whose part a file is; -1 of another file."""
    match = _NAME.fullmatch(path.name)
    return int(match[2]) if match else -1


def model_file(first: Path) -> Path:
    """The file of model states that goes with a part."""
    match = _NAME.fullmatch(first.name)
    end = f"mp_rank_{match[4] if match else '00'}_model_states.pt"
    found = first.with_name(end)
    return found if found.is_file() else first.with_name(f"zero_pp_rank_0_{end}")


def check(parts: Sequence[Path]) -> None:
    """Refuse files that are not all parts of one optimizer.

    Raises:
        UsageError: one is of another name, of another slice of the model, or of a rank twice.
    """
    for one in parts:
        if not is_part(one):
            raise UsageError(
                f"{printable(str(one))} is no part of DeepSpeed's ZeRO (zero_pp_rank_N_mp_rank_00_"
                "optim_states.pt): only those are given several at once"
            )
    slices = {match[4] for one in parts if (match := _NAME.fullmatch(one.name))}
    if len(slices) > 1:
        raise UsageError(
            "the model is cut across machines (mp_rank): its tensors are not whole in these files"
        )
    if [rank(one) for one in parts] != list(range(len(parts))):
        ranks = ", ".join(str(rank(one)) for one in parts)
        raise UsageError(f"parts of ranks {ranks} are here: each from 0 is needed, once")


@dataclass(frozen=True, slots=True)
class _Part:
    """One rank's part: its records, and what the names of its tensors begin with."""

    file: TensorsFile
    tree: Tree
    base: Tree
    before: str

    def group(self, number: int, count: int) -> _Flat:
        """A flat tensor of second moments, by its number."""
        key = str(number)
        state = {str(k): v for k, v in pairs_of(get(self.base, "state"))}.get(key)
        groups = [read_group(one) for one in items(get(self.base, "param_groups"))]
        held = [one for one in groups if any(member == key for member, _ in one.members)]
        name = f"{self.before}.state.{key}.exp_avg_sq"
        info = self.file.find(name)
        if state is None or info is None or len(info.shape) != 1:
            raise self.file.refused(f"has no second moments of group {number}: is it Adam?")
        if len(held) != 1 or held[0].beta2 is None or not 0 <= held[0].beta2 < 1:
            raise self.file.refused("does not say Adam's second beta (param_groups: betas)")
        step = self._step(state, held[0], key)
        if step is None or not step >= 1:
            raise self.file.refused("does not say after how many steps it was saved (step)")
        if info.count < count:
            raise self.file.refused(f"has {info.count} numbers in group {number}, not {count}")
        return _Flat(self.file, name, info.count, step, held[0].beta2)

    def _step(self, state: Tree, group: Group, key: str) -> float | None:
        found = get(state, "step")
        found = group.step if found is None else found
        found = get(self.tree, "base_optimizer_state_step") if found is None else found
        return step_of(self.file, found, (*self.before.split("."), "state", key))


@dataclass(frozen=True, slots=True)
class _Flat:
    file: TensorsFile
    name: str
    count: int
    step: float
    beta2: float


def moments_of(files: Sequence[TensorsFile], model: TensorsFile) -> Moments:
    """The second moments of a model whose optimizer's parts these are, by name.

    Args:
        files: the parts, one for each rank, in the order of ranks.
        model: the file of model states beside them.

    Raises:
        UsageError: a part is missing, or something in them is not as ZeRO writes it.
    """
    parts = [_read(one) for one in files]
    stages = {one.before for one in parts}
    for one in parts:
        counts = get(one.tree, "partition_count")
        wanted = {whole(count) for count in (items(counts) or [counts])}
        if wanted != {len(parts)}:
            raise _incomplete(one.file, wanted, len(parts))
    shapes = _shapes(model)
    if len(stages) != 1:
        raise files[0].refused("is of another stage of ZeRO than the others")
    sliced = get(parts[0].tree, "param_slice_mappings") is not None
    if not sliced and _BASE in parts[0].before:
        raise files[0].refused("has no param_slice_mappings: DeepSpeed since 0.7 writes them")
    found = _sliced(parts, shapes, model) if sliced else _scattered(parts, shapes)
    return Moments(files[0].path, "", tuple(found), ())


def _incomplete(file: TensorsFile, wanted: set[int | None], count: int) -> UsageError:
    if len(wanted) == 1 and None not in wanted:
        (one,) = wanted
        return file.refused(f"is one of {one} parts; {plural(count, 'part is', 'parts are')} here")
    return file.refused("has groups that are cut in different ways, as those of experts are")


def _read(file: TensorsFile) -> _Part:
    tree = get(pickle_of(file), _STATE)
    for key in (_BASE, _STATE):
        base = get(tree, key)
        if get(base, "state") is not None and get(base, "param_groups") is not None:
            return _Part(file, tree, base, f"{_STATE}.{key}")
    if isinstance(get(tree, _BASE), list):
        raise file.refused("is an elastic checkpoint of DeepSpeed, which says no settings of Adam")
    raise file.refused("has no state of an optimizer: was it saved without?")


def _shapes(model: TensorsFile) -> list[dict[str, Shape]]:
    """The shapes of the parameters of each group, in order."""
    groups = []
    for tree in items(get(pickle_of(model), "param_shapes")):
        shapes = {str(name): shape_of(size) for name, size in pairs_of(tree)}
        known = {name: shape for name, shape in shapes.items() if shape is not None}
        if len(known) != len(pairs_of(tree)):
            raise model.refused("has a shape of a parameter that cannot be read (param_shapes)")
        groups.append(known)
    names = [name for group in groups for name in group]
    if not names or len(names) != len(set(names)) or len(names) > limits.NAMES:
        raise model.refused("does not say which parameters were trained (param_shapes)")
    return groups


def _sliced(
    parts: Sequence[_Part], groups: Sequence[dict[str, Shape]], model: TensorsFile
) -> Iterator[Moment]:
    """Stages 1 and 2: each rank says which part of which parameter it has."""
    slices = [items(get(part.tree, "param_slice_mappings")) for part in parts]
    if any(len(one) != len(groups) for one in slices):
        raise model.refused("has other groups of parameters than the optimizer")
    for number, shapes in enumerate(groups):
        flats, runs = [], dict[str, list[Run]]()
        for part, mapping in zip(parts, slices, strict=True):
            flat = part.group(number, 0)
            flats.append(flat)
            for name, address in pairs_of(mapping[number]):
                fields = attributes(address)
                start, count = whole(get(fields, "start")), whole(get(fields, "numel"))
                if start is None or count is None or start + count > flat.count:
                    raise part.file.refused(f"has no such part of {printable(str(name))!r}")
                runs.setdefault(str(name), []).append(Run(part.file, flat.name, start, count))
        if runs.keys() != shapes.keys():
            raise model.refused("has other parameters than the optimizer (param_shapes)")
        for name, shape in shapes.items():
            yield _moment(name, number, shape, runs[name], flats)


def _scattered(parts: Sequence[_Part], groups: Sequence[dict[str, Shape]]) -> Iterator[Moment]:
    """Stage 3: each rank has an equal part of each parameter, one after another."""
    world = len(parts)
    for number, shapes in enumerate(groups):
        wanted = sum(-(-math.prod(shape) // world) for shape in shapes.values())
        flats = [part.group(number, wanted) for part in parts]
        offset = 0
        for name, shape in shapes.items():
            size = math.prod(shape)
            share = -(-size // world)
            runs = [
                Run(flat.file, flat.name, offset, min(share, max(0, size - at * share)))
                for at, flat in enumerate(flats)
            ]
            yield _moment(name, number, shape, runs, flats)
            offset += share


def _moment(
    name: str, group: int, shape: Shape, runs: Sequence[Run], flats: Sequence[_Flat]
) -> Moment:
    held = tuple(one for one in runs if one.count)
    first = flats[0]
    if any((one.step, one.beta2) != (first.step, first.beta2) for one in flats):
        raise first.file.refused("was saved after another number of steps than the other parts")
    if not held or sum(one.count for one in held) != math.prod(shape):
        raise first.file.refused(f"and the others do not have all of {printable(name)!r}")
    return Moment(name, group, shape, Runs(held), first.step, first.beta2)
