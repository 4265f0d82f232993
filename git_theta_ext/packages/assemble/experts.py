"""Experts of a mixture: their names in each layout, copies of a dense MLP, stacks and splits.

Layouts of checkpoints, from Hugging Face's `transformers` (`conversion_mapping.py` of version 5):

* dense: `mlp.gate_proj`, `mlp.up_proj`, `mlp.down_proj` (Llama, Mistral, Qwen)
* mixtral: `block_sparse_moe.experts.N.w1`, `w3`, `w2`; the router is `block_sparse_moe.gate`
* qwen, deepseek: `mlp.experts.N.gate_proj`, `up_proj`, `down_proj`; the router is `mlp.gate`; what
  all tokens pass is `mlp.shared_expert` in the one, `mlp.shared_experts` in the other
* stacked: `mlp.experts.gate_up_proj` of shape [experts, 2 x intermediate, hidden], gate before up,
  and `mlp.experts.down_proj` of shape [experts, hidden, intermediate]; the router is `mlp.gate`

All of these hold the same matrices row by row, so a stack is their bytes one after the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.packages.assemble.given import Given

Layout = Literal["dense", "mixtral", "qwen", "deepseek", "stacked"]

_ROLES = ("gate", "up", "down")
_PROJ = {f"{role}_proj": role for role in _ROLES}
_W = {"w1": "gate", "w3": "up", "w2": "down"}
_MOE = {"mixtral": "block_sparse_moe", "qwen": "mlp", "deepseek": "mlp", "stacked": "mlp"}
_SHARED = {"qwen": "shared_expert", "deepseek": "shared_experts"}
_ONE_BY_ONE = r"((?:.*\.)?){}\.experts\.(\d{{1,6}})\.({})\.(.+)"
_NAMES = {
    "dense": re.compile(r"((?:.*\.)?)mlp\.()(gate_proj|up_proj|down_proj)\.(.+)", re.DOTALL),
    "mixtral": re.compile(_ONE_BY_ONE.format("block_sparse_moe", "w1|w2|w3"), re.DOTALL),
    "qwen": re.compile(_ONE_BY_ONE.format("mlp", "gate_proj|up_proj|down_proj"), re.DOTALL),
    "stacked": re.compile(r"((?:.*\.)?)mlp\.experts\.()(gate_up_proj|down_proj)()", re.DOTALL),
}
_NAMES["deepseek"] = _NAMES["qwen"]


@dataclass(frozen=True, slots=True)
class Experts:
    """How the experts of a part are changed: from one layout to another.

    `numbers` are the experts that a dense MLP becomes; `shared` makes a copy of it the one that all
    tokens pass, too.
    """

    source: Layout
    target: Layout
    numbers: tuple[int, ...] = ()
    shared: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where it has no meaning."""
        if self.target == "dense":
            raise ValueError("to is dense: experts do not become one MLP")
        if self.source == self.target:
            raise ValueError("from and to are the same layout")
        if (self.source == "dense") != bool(self.numbers):
            raise ValueError('numbers, such as "0..7", goes with from = "dense", and with no other')
        if len(set(self.numbers)) != len(self.numbers):
            raise ValueError("numbers names an expert twice")
        if self.shared and (self.source != "dense" or self.target not in _SHARED):
            raise ValueError("shared goes from dense to qwen or deepseek")
        if self.target == "stacked" and sorted(self.numbers) != list(range(len(self.numbers))):
            raise ValueError("a stack has the experts from 0 on")


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix of an expert: what comes before its name, which expert, which role, what follows."""

    prefix: str
    number: int
    role: str
    suffix: str
    given: Given


@dataclass(slots=True)
class _Found:
    """What a part has: matrices of experts, and all else under its new name."""

    matrices: list[_Matrix] = field(default_factory=list)
    others: list[Given] = field(default_factory=list)


def convert(experts: Experts, tensors: Iterable[Given], where: str) -> list[Given]:
    """The tensors of a part with its experts in another layout; what are none stays as it is.

    Args:
        experts: from which layout to which.
        tensors: all of the part.
        where: what messages call the part.

    Raises:
        UsageError: there are no experts in that layout, or they make no stack.
    """
    found = _Found()
    for one in tensors:
        match = _NAMES[experts.source].fullmatch(one.name)
        if match is None:
            found.others.append(_with_router(experts, one))
        else:
            found.matrices += _matrices(experts, match, one, where)
        if len(found.matrices) > limits.RECIPE_TENSORS:
            raise UsageError(f"{where}: more than {limits.RECIPE_TENSORS} matrices of experts")
    if not found.matrices:
        raise UsageError(
            f"{where}: experts: no tensor is named as in the layout {experts.source}",
            hint="docs/assembling.md has the names of each layout",
        )
    made = (
        _stacks(found.matrices, where)
        if experts.target == "stacked"
        else [one.given.named(_name(experts.target, one)) for one in found.matrices]
    )
    return [*found.others, *made, *_shared(experts, found.matrices)]


def _with_router(experts: Experts, one: Given) -> Given:
    """A tensor that is no expert's; the router goes to where the other layout has it."""
    if experts.source == "dense":
        return one
    old, new = _MOE[experts.source], _MOE[experts.target]
    match = re.fullmatch(rf"((?:.*\.)?){old}\.(gate\..+)", one.name, re.DOTALL)
    return one if match is None else one.named(f"{match[1]}{new}.{match[2]}")


def _matrices(experts: Experts, match: re.Match[str], one: Given, where: str) -> Iterator[_Matrix]:
    prefix, number, word, suffix = match.groups()
    if experts.source == "stacked":
        yield from _split(prefix, word, one, where)
    elif experts.source == "dense":
        for copy in experts.numbers:
            yield _Matrix(prefix, copy, _PROJ[word], suffix, one)
    else:
        role = (_W if experts.source == "mixtral" else _PROJ)[word]
        yield _Matrix(prefix, int(number), role, suffix, one)


def _split(prefix: str, word: str, one: Given, where: str) -> Iterator[_Matrix]:
    """The matrices of a stack, expert by expert."""
    shape = one.info.shape
    roles = ("gate", "up") if word == "gate_up_proj" else ("down",)
    _check_rows(one, where)
    if len(shape) != 3 or shape[1] % len(roles) or not math.prod(shape):
        raise UsageError(
            f"{where}: experts: {one.name!r} has the shape {list(shape)}; a stack is "
            f"[experts, {'2 x ' if len(roles) == 2 else ''}rows, columns]"
        )
    rows = shape[1] // len(roles)
    (piece,) = one.pieces
    length = (piece.stop - piece.start) // (shape[0] * len(roles))
    for number in range(min(shape[0], limits.RECIPE_TENSORS + 1)):
        for at, role in enumerate(roles):
            start = piece.start + (number * len(roles) + at) * length
            part = replace(piece, start=start, stop=start + length)
            info = replace(one.info, shape=(rows, shape[2]))
            yield _Matrix(prefix, number, role, "weight", replace(one, info=info, pieces=(part,)))


def _check_rows(one: Given, where: str) -> None:
    """Refuse what is not row by row in whole bytes."""
    if one.info.order is not None or one.info.dtype.bits % 8:
        raise UsageError(
            f"{where}: experts: {one.name!r} does not lie row by row in whole bytes, so it is "
            "neither stacked nor split"
        )


def _name(target: Layout, one: _Matrix) -> str:
    words = {role: word for word, role in (_W if target == "mixtral" else _PROJ).items()}
    return f"{one.prefix}{_MOE[target]}.experts.{one.number}.{words[one.role]}.{one.suffix}"


def _shared(experts: Experts, matrices: Iterable[_Matrix]) -> list[Given]:
    """A copy of a dense MLP as the expert that all tokens pass, where it is wanted."""
    if not experts.shared:
        return []
    made = {
        f"{one.prefix}mlp.{_SHARED[experts.target]}.{one.role}_proj.{one.suffix}": one.given
        for one in matrices
    }
    return [given.named(name) for name, given in made.items()]


def _stacks(matrices: Iterable[_Matrix], where: str) -> list[Given]:
    """Both stacks of each layer."""
    layers: dict[str, dict[tuple[int, str], Given]] = {}
    for one in matrices:
        if one.suffix != "weight":
            raise UsageError(
                f"{where}: experts: {one.given.name!r} has no place in a stack, which has weights "
                "alone"
            )
        _check_rows(one.given, where)
        layer, place = layers.setdefault(one.prefix, {}), (one.number, one.role)
        if place in layer:  # such as experts.1 and experts.01
            both = f"{layer[place].name!r} and {one.given.name!r}"
            raise UsageError(f"{where}: experts: {both} are both expert {one.number}")
        layer[place] = one.given
    made = []
    for prefix in sorted(layers, key=natural_key):
        found = layers[prefix]
        made.append(_stack(f"{prefix}mlp.experts.gate_up_proj", ("gate", "up"), found, where))
        made.append(_stack(f"{prefix}mlp.experts.down_proj", ("down",), found, where))
    return made


def _stack(
    name: str, roles: tuple[str, ...], found: Mapping[tuple[int, str], Given], where: str
) -> Given:
    """The matrices of some roles, expert by expert, as one tensor.

    Raises:
        UsageError: one is missing, or they are not alike.
    """
    count = len({number for number, _ in found})
    rows: list[Given] = []
    for number in range(count):
        for role in roles:
            one = found.get((number, role))
            if one is None:
                raise UsageError(
                    f"{where}: experts: {name!r} lacks the {role} matrix of expert {number} of "
                    f"{count}"
                )
            rows.append(one)
    first = rows[0]
    for one in rows:
        same = (one.info.dtype, one.info.shape) == (first.info.dtype, first.info.shape)
        if not same or len(one.info.shape) != 2:
            raise UsageError(
                f"{where}: experts: {one.name!r} is {one.info.dtype.name} {list(one.info.shape)}, "
                f"{first.name!r} {first.info.dtype.name} {list(first.info.shape)}: they make no "
                "stack"
            )
    shape = (count, len(roles) * first.info.shape[0], first.info.shape[1])
    pieces = tuple(piece for one in rows for piece in one.pieces)
    return Given(replace(first.info, name=name, shape=shape), pieces, first.dtype)
