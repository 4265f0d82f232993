"""What becomes of each changed tensor in a LoRA: factors, a bias or a module in full, or nothing.

Nothing is dropped: what has no place is refused, each tensor with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from git_theta_ext.checkpoints.adapters import layers
from git_theta_ext.checkpoints.adapters.changes import LoraChange
from git_theta_ext.checkpoints.adapters.layers import Layer, Told
from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.packages.adapter import factors
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.packages.adapter.error import Error, measure
from git_theta_ext.packages.adapter.factors import Factored

Rest = Literal["refuse", "modules-to-save"]
REST: tuple[Rest, ...] = ("refuse", "modules-to-save")

_NEAR = 1e-2
"""Norm of what factors miss over that of the change, up to which they are what happened."""
_FEW = 1e-3
"""Share of the entries that may be further off than two roundings in a row explain."""
_LISTED = 8
_REMADE = "it is in one version only, or of another dtype or shape in the other"
LORA = "a LoRA"
"""What messages call the folder of PEFT."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for."""

    rank: int | None = None
    tolerance: float | None = None
    rest: Rest = "refuse"
    told: Told = field(default_factory=Told)


@dataclass(frozen=True, slots=True)
class Module:
    """A layer whose weight changes by factors; `name` is the tensor's, without `.weight`."""

    name: str
    tensor: str
    layer: Layer
    factored: Factored
    error: Error

    def change(self) -> LoraChange:
        """What it does to the tensor, as `git theta add --update` computes it."""
        return change_of(self.tensor, self.layer, self.factored)


@dataclass(slots=True)
class Plan:
    """All changed tensors: layers with factors, biases in full, modules in full, refused ones.

    `saved` has the tensors of each module; `refused` the reason for each tensor.
    """

    modules: list[Module] = field(default_factory=list)
    biases: list[str] = field(default_factory=list)
    saved: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    total: Error = field(default_factory=Error)


def change_of(name: str, layer: Layer, factored: Factored) -> LoraChange:
    """Factors of a tensor as a change; PEFT rounds that of an embedding before it is added."""
    order = "rounded" if layer == "embedding" else "sum"
    return LoraChange(name, factored.left, factored.right, factored.scaling, order)


def make(ends: Ends, wanted: Wanted, advance: Callable[[int], object]) -> Plan:
    """Decide on every tensor, and measure what the factors miss.

    Args:
        ends: the versions.
        wanted: rank, tolerance, and what becomes of the rest.
        advance: called with the bytes of each tensor that is done.

    Raises:
        MissingObjectError, CorruptObjectError, TransferError: a version cannot be read.
    """
    plan = Plan()
    ends.prepare(ends.changed)
    infos = {name: entry.tensor for name, entry in ends.after.items()}
    rest: dict[str, str] = dict.fromkeys(ends.remade, _REMADE)
    hopeless = set(rest)
    for name in ends.changed:
        layer = layers.layer_of(name, infos, ends.beside, wanted.told)
        if layer is not None:
            found = _module(ends, name, layer, wanted)
            if isinstance(found, Module):
                plan.modules.append(found)
                plan.total.add(found.error)
            else:
                rest[name] = found
        elif name.endswith(".bias") and len(infos[name].shape) == 1:
            plan.biases.append(name)
        else:
            rest[name] = "it is no weight of a linear layer, an embedding or a convolution"
        advance(infos[name].nbytes)
    if wanted.rest == "modules-to-save":
        for name in [name for name in rest if name not in hopeless]:
            module = name.rpartition(".")[0]
            if module and _is_leaf(module, ends):
                plan.saved[module] = []
                del rest[name]
            else:
                rest[name] = "it belongs to no module that PEFT can save by itself"
    plan.refused = rest
    _fill_saved(plan, ends)
    for name in (*plan.biases, *(one for names in plan.saved.values() for one in names)):
        if name in ends.changed:
            plan.total.add(_whole(ends, name))
    return plan


def _module(ends: Ends, name: str, layer: Layer, wanted: Wanted) -> Module | str:
    """The factors of a layer, from the first source that gives good ones; else why none."""
    asked = wanted.rank is not None or wanted.tolerance is not None
    best: float | None = None
    for factored in _tries(ends, name, wanted, asked):
        error = measure(ends, name, change_of(name, layer, factored))
        if _accepted(error, factored, wanted):
            return Module(name.removesuffix(".weight"), name, layer, factored, error)
        best = error.relative if best is None else min(best, error.relative)
    if wanted.tolerance is not None:
        within = "" if wanted.rank is None else f" of rank {wanted.rank}"
        reason = f"no factors{within} are within {wanted.tolerance:g}"
        return reason if best is None else f"{reason} (nearest: {best:.2g})"
    if asked:
        return "factors of that rank are no smaller than the matrix"
    return "its update is not of low rank"


def _tries(ends: Ends, name: str, wanted: Wanted, asked: bool) -> Iterator[Factored]:
    """Factors of a tensor, the best source first; each is looked for when it is wanted."""
    for source in (factors.stored, factors.found):
        if (known := source(ends, name, wanted.rank)) is not None:
            yield known
    if asked:
        if (fit := factors.fitted(ends, name, wanted.rank, wanted.tolerance)) is not None:
            yield fit
    else:
        yield from factors.guesses(ends, name)


def _accepted(error: Error, factored: Factored, wanted: Wanted) -> bool:
    if wanted.tolerance is not None:
        return error.relative <= wanted.tolerance
    if factored.source == "fitted":
        return True
    return error.relative <= _NEAR or error.far <= _FEW * error.count


def _whole(ends: Ends, name: str) -> Error:
    """A tensor that is there in full is missed nowhere."""
    found = Error()
    for piece in ends.pieces(name):
        found.look(piece.spec.dtype, piece.old, piece.new, piece.new)
    return found


def _is_leaf(module: str, ends: Ends) -> bool:
    """Whether a module has tensors of its own and no modules with any inside it."""
    inside = [name for name in ends.after if name.startswith(f"{module}.")]
    return all("." not in name.removeprefix(f"{module}.") for name in inside)


def _fill_saved(plan: Plan, ends: Ends) -> None:
    """The tensors of the modules that are saved in full, and of those that PEFT takes for them.

    PEFT compares the ends of names, without a dot: `norm` means `layers.0.input_norm` too, and a
    module that it means must be in the file.
    """
    if not plan.saved:
        return
    every = {name.rpartition(".")[0] for name in ends.after} - {""}
    wanted = tuple(plan.saved)
    for module in sorted(every):
        if module.endswith(wanted):
            plan.saved[module] = [name for name in ends.after if name.startswith(f"{module}.")]
    held = {name for names in plan.saved.values() for name in names}
    plan.biases = [name for name in plan.biases if name not in held]
    for one in [one for one in plan.modules if one.tensor in held]:
        plan.refused[one.tensor] = "a module that is saved in full has a name that ends alike"


def require_whole(plan: Plan, text: str, wanted: Wanted, to: str = LORA) -> None:
    """Refuse an export that would leave something out.

    Args:
        plan: of all changed tensors.
        text: the range as the user typed it.
        wanted: what was asked for.
        to: what it would be.

    Raises:
        UsageError: a tensor has no place, with its reason; or no layer has factors.
    """
    if plan.refused:
        lines = [f"\n  {printable(n)}: {why}" for n, why in list(plan.refused.items())[:_LISTED]]
        more = len(plan.refused) - _LISTED
        tail = f"\n  and {plural(more, 'more', 'more')}" if more > 0 else ""
        raise UsageError(
            f"{plural(len(plan.refused), 'changed tensor')} cannot be in {to}:"
            f"{''.join(lines)}{tail}",
            hint=_advice(plan, text, wanted, to == LORA),
        )
    if not plan.modules:
        raise UsageError(
            f"no layer changes between the versions of {text}: there is nothing for {to}",
            hint=advice.with_name("git theta export RANGE --to sparse -o FILE", text, "RANGE"),
        )


def _advice(plan: Plan, text: str, wanted: Wanted, whole: bool) -> str | None:
    """What the user may do; None where no kind of adapter takes all of it."""
    if _REMADE in plan.refused.values():
        return None
    ways: list[str] = []
    low = [why for why in plan.refused.values() if why.endswith("low rank")]
    if low and wanted.rank is None and wanted.tolerance is None:
        ways.append("--rank 16 or --tolerance 0.01 fits factors")
    if whole and wanted.rest == "refuse":
        ways.append("--rest modules-to-save puts such modules in whole")
    every = "git theta export RANGE --to sparse -o FILE   takes every change"
    ways.append(advice.with_name(every, text, "RANGE"))
    return "; ".join(ways)


def renamed(modules: Sequence[Module], prefix: str) -> list[Module]:
    """The modules as a model calls them that has a prefix before every name."""
    return [replace(one, name=f"{prefix}{one.name}") for one in modules]
