"""LoRA of parameters that belong to no linear layer (`target_parameters`): all experts' weights.

PEFT, `ParamWrapper` of `tuners/lora/layer.py`: a parameter of experts × inputs × outputs, or of
experts × outputs × inputs where the module has no `is_transposed`, gets a product for each expert.
`lora_A` has the ranks of all experts one after the other in its rows; in the columns of `lora_B`
the expert changes first. The change is rounded to the weights' dtype before it is added.

The file does not name the parameters. Of a module with several of them the wrappers stand inside
each other (`MODULE.base_layer.lora_A.weight`), so which is whose is found by their shapes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters.base import Change, refuse
from git_theta_ext.checkpoints.adapters.changes import LoraChange
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.adapters.peft_config import MERGE, Scaling
from git_theta_ext.core import limits
from git_theta_ext.core.tensors import BlockSpec, DType, TensorInfo
from git_theta_ext.core.values import Values
from git_theta_ext.updates.base import Encoded

_WRAPPER = re.compile(
    r"(?:base_model\.model\.|base_model\.)?(.+?)((?:\.base_layer)*)\.(lora_[AB])"
    r"(?:\.(?!weight$)[^.]+)?\.weight"
)
_MOST = 64
"""Parameters of one module."""
_NEVER = ("use_dora", "lora_bias", "fan_in_fan_out")
"""Settings with which PEFT wraps no parameter."""


@dataclass(frozen=True, slots=True)
class Wrapper:
    """The factors of one parameter of a module; `depth` counts the wrappers around them."""

    module: str
    depth: int
    parts: dict[str, str]


@dataclass(frozen=True, slots=True)
class ExpertsChange:
    """A product for each expert is added.

    Args:
        left: experts × rows × rank, of the parameter as it lies in memory.
        right: experts × rank × columns.
    """

    name: str
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    scaling: float

    kind: ClassVar[str] = "lora"

    @property
    def computes(self) -> bool:
        """New values are computed."""
        return True

    def apply(self, spec: BlockSpec, start: int, old: Values) -> Values:
        """The sums. An expert may be larger than a block, which need not hold whole rows then."""
        columns = self.right.shape[2]
        first, last = start // columns, -(-(start + len(old)) // columns)
        lead = start - first * columns
        padded = np.zeros((last - first) * columns, old.dtype)
        padded[lead : lead + len(old)] = old
        for rows in self._by_expert(slice(first, last)):
            piece = slice((rows.start - first) * columns, (rows.stop - first) * columns)
            one = BlockSpec(spec.dtype, (rows.stop - rows.start, columns))
            padded[piece] = self._of(rows, spec).apply(one, 0, padded[piece])
        return padded[lead : lead + len(old)].copy()

    def _by_expert(self, rows: slice) -> Iterator[slice]:
        """Rows of all experts, one below the other, in pieces of one expert each."""
        height = self.left.shape[1]
        first = rows.start
        while first < rows.stop:
            last = min(rows.stop, (first // height + 1) * height)
            yield slice(first, last)
            first = last

    def _of(self, rows: slice, spec: BlockSpec) -> LoraChange:
        """The change of some rows as one product, with the ranks of all experts there."""
        height, rank = self.left.shape[1:]
        first, last = rows.start // height, -(-rows.stop // height)
        wide = np.zeros((last - first, height, last - first, rank), np.float32)
        for place in range(last - first):
            wide[place, :, place] = self.left[first + place]
        left = wide.reshape((last - first) * height, -1)
        left = left[rows.start - first * height : rows.stop - first * height]
        right = self.right[first:last].reshape(left.shape[1], -1)
        return LoraChange(self.name, left, right, self.scaling, order_of(spec.dtype))

    def encode(self, spec: BlockSpec, start: int, new: Values, old: Values) -> Encoded | None:
        """The factors, where the block holds whole rows and all of its experts are of low rank."""
        height, columns = self.left.shape[1], self.right.shape[2]
        if start % columns or spec.count % columns:
            return None
        rows = slice(start // columns, (start + spec.count) // columns)
        experts = -(-rows.stop // height) - rows.start // height
        if experts * self.left.shape[2] > min(limits.RANK, columns, rows.stop - rows.start):
            return None
        flat = BlockSpec(spec.dtype, (rows.stop - rows.start, columns))
        return self._of(rows, spec).encode(flat, 0, new, old)


def order_of(dtype: DType) -> str:
    """How the sum is rounded: PEFT adds the change as it is to weights of 8 bits alone."""
    return "sum" if dtype.bits < 16 else "rounded"


def wrappers(file: TensorFile, config: Mapping[str, Any]) -> list[Wrapper]:
    """The factors of parameters, by module and depth; none where `target_parameters` is not set.

    Raises:
        UsageError: `target_parameters` is no list of names, or a wrapper has one factor only.
    """
    targets = _targets(file, config)
    found: dict[tuple[str, int], dict[str, str]] = {}
    for stored in file if targets else ():
        match = _WRAPPER.fullmatch(stored)
        if match is not None and _parameters(match[1], targets):
            depth = match[2].count(".base_layer")
            parts = found.setdefault((match[1], depth), {})
            if match[3] in parts:
                raise refuse(
                    file.path, f"holds several adapters: {parts[match[3]]!r} and {stored!r}"
                )
            parts[match[3]] = stored
    for (module, _), parts in found.items():
        if len(parts) < 2:
            raise refuse(file.path, f"module {module!r} has {next(iter(parts))} alone")
    wrong = next((key for key in _NEVER if found and config.get(key)), None)
    if wrong is not None:
        raise refuse(file.path, f"sets {wrong}, which PEFT does not apply to target_parameters")
    return [Wrapper(module, depth, parts) for (module, depth), parts in found.items()]


def _targets(file: TensorFile, config: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parameters that are named, by the ends of their modules' names."""
    targets = config.get("target_parameters") or []
    if not isinstance(targets, list) or not all(isinstance(one, str) for one in targets):
        raise refuse(file.path, "its target_parameters is no list of names")
    found: dict[str, list[str]] = {}
    for module, _, parameter in (one.rpartition(".") for one in targets):
        found.setdefault(module, []).append(parameter)
    return found


def _parameters(module: str, targets: Mapping[str, list[str]]) -> list[str]:
    """The parameters of a module that are named, by PEFT's rule: the end of a name, at a dot."""
    found = [name for end in (*_ends(module), "") for name in targets.get(end, ())]
    return list(dict.fromkeys(found))


def _ends(name: str) -> Iterator[str]:
    """A name, and what is behind each of its dots."""
    yield name
    while (dot := name.find(".")) >= 0:
        name = name[dot + 1 :]
        yield name


def wanted(
    found: Sequence[Wrapper], file: TensorFile, config: Mapping[str, Any], there: Collection[str]
) -> list[str]:
    """The parameters that these may be of, by their names in the model.

    A name that only other modules have is passed over, as by PEFT.

    Args:
        found: the factors.
        file, config: of the adapter.
        there: names of the checkpoint's tensors.
    """
    if not found:
        return []
    targets = _targets(file, config)
    known = {end for name in there for end in _ends(name)}
    modules = dict.fromkeys(one.module for one in found)
    names = [f"{one}.{name}" for one in modules for name in _parameters(one, targets)]
    # The checkpoint's names may have a prefix more, or less.
    return [name for name in names if name in known or any(end in there for end in _ends(name))]


class Binder:
    """Finds each wrapper's parameter, and makes its change."""

    def __init__(
        self, file: TensorFile, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
    ) -> None:
        """Of one adapter; `tensors` are those that are `wanted`, by the adapter's names."""
        self._file, self._tensors = file, tensors
        self._scaling = Scaling(file.path, config)
        self.ranks: set[int] = set()

    def changes(self, found: Sequence[Wrapper]) -> Iterator[tuple[str, Change]]:
        """The change of each parameter, by its name in the model.

        Raises:
            UsageError: factors fit no parameter, or it is not clear which, or how it is laid out.
        """
        modules: dict[str, tuple[list[Wrapper], list[str]]] = {}
        for one in found:
            modules.setdefault(one.module, ([], []))[0].append(one)
        for name in self._tensors:
            modules[name.rpartition(".")[0]][1].append(name)
        chosen = []
        for module, (several, names) in modules.items():
            chosen += self._assigned(module, several, names)
        layouts = {turned for _, _, kinds in chosen if len(kinds) == 1 for turned in kinds}
        for wrapper, name, kinds in chosen:
            if len(kinds) > 1 and len(layouts) != 1:
                raise refuse(
                    self._file.path,
                    f"parameter {name!r} has as many inputs as outputs, so it is not clear which "
                    "of the two comes first",
                    MERGE,
                )
            yield name, self._change(wrapper, name, next(iter(layouts & kinds or kinds)))

    def _assigned(
        self, module: str, several: Sequence[Wrapper], names: Collection[str]
    ) -> list[tuple[Wrapper, str, set[bool]]]:
        """Each wrapper's parameter, and how it may lie: True for inputs before outputs."""
        if len(several) > _MOST:
            raise refuse(self._file.path, f"module {module!r} has {len(several)} pairs of factors")
        left, open_names, found = list(several), set(names), []
        while left:
            fitting = {
                at: [name for name in sorted(open_names) if self._layouts(one, name)]
                for at, one in enumerate(left)
            }
            if not all(fitting.values()) or len(left) != len(open_names):
                raise refuse(
                    self._file.path,
                    f"module {module!r}: its factors fit no parameters of those that "
                    f"target_parameters names: {', '.join(sorted(names))}",
                )
            certain = next((at for at, fits in fitting.items() if len(fits) == 1), None)
            if certain is None:
                raise refuse(
                    self._file.path,
                    f"module {module!r}: it is not clear which factors are of which parameter: "
                    f"{', '.join(sorted(open_names))} are of one shape",
                    MERGE,
                )
            name = fitting[certain][0]
            wrapper = left.pop(certain)
            open_names.remove(name)
            found.append((wrapper, name, self._layouts(wrapper, name)))
        return found

    def _layouts(self, wrapper: Wrapper, name: str) -> set[bool]:
        """In which ways a parameter may lie, if the factors are of it; none if they do not fit."""
        down, up = (self._file.info(wrapper.parts[one]).shape for one in ("lora_A", "lora_B"))
        shape = self._tensors[name].shape
        if len(down) != 2 or len(up) != 2 or down[0] != up[1] or len(shape) not in (2, 3):
            return set()
        experts = shape[0] if len(shape) == 3 else 1
        rank = self._scaling.rank(name)
        if down[0] % max(experts, 1) or (isinstance(rank, int) and rank * experts != down[0]):
            return set()
        found = {False} if shape[-2:] == (up[0], down[1]) else set()
        # PEFT cannot merge one expert alone whose inputs come first.
        return found | ({True} if experts > 1 and shape[-2:] == (down[1], up[0]) else set())

    def _change(self, wrapper: Wrapper, name: str, inputs_first: bool) -> Change:
        """The factors of each expert, as the parameter lies."""
        tensor = self._tensors[name]
        if tensor.dtype.kind != "float" or tensor.order is not None:
            raise refuse(
                self._file.path,
                f"tensor {tensor.name!r} is {tensor.dtype.name}, with its axes in the order "
                f"{tensor.order}: an adapter is applied to floats that lie row by row",
                MERGE,
            )
        down, up = (self._file.floats(wrapper.parts[one]) for one in ("lora_A", "lora_B"))
        experts = tensor.shape[0] if len(tensor.shape) == 3 else 1
        rank = len(down) // experts
        self.ranks.add(rank)
        scaling = self._scaling.of(name, rank)
        right = down.reshape(experts, rank, -1)
        left = up.reshape(len(up), rank, experts).transpose(2, 0, 1)
        if len(tensor.shape) == 2:
            return LoraChange(
                tensor.name, left[0].copy(), right[0], scaling, order_of(tensor.dtype)
            )
        if inputs_first:
            left, right = right.transpose(0, 2, 1), left.transpose(0, 2, 1)
        left, right = (np.ascontiguousarray(side) for side in (left, right))
        return ExpertsChange(tensor.name, left, right, scaling)
