"""The merge strategies, in one table: name, parameters, paper, and the function that combines.

The contract of a strategy. It is given *sides* (the tensor as each of two or more branches has it)
and their *base*, as float64, slice by slice, as often as it likes; `prepare` returns a function of
one slice. Everything that runs over the numbers is element-wise or a sum in a fixed order, so that
the result is the same on every machine; what is random is drawn from a generator that is seeded by
the tensor's name and the contents of base and side. The result is rounded once, to the tensor's
dtype. Around every strategy, and so not its own business:

- entries that are equal on the sides are taken as they are;
- where `by_entry` holds, the strategy sees only entries that both sides changed;
- where it does not, it sees the whole tensor, but only if some entry was changed by both;
- what is no number never enters: such a tensor stays open.

Sides come in the order of their contents where `symmetric` holds and no weights are given: then
the order of the branches cannot change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.core.text import nearest
from git_theta_ext.core.values import Floats
from git_theta_ext.merge.strategies.choice import Choice, Setting


class NotPossibleError(ThetaError):
    """A strategy cannot be used on this tensor; it stays open."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Values `start` and following of the base (None if there is none) and of each side."""

    start: int
    base: Floats | None
    sides: tuple[Floats, ...]

    @property
    def updates(self) -> tuple[Floats, ...]:
        """What each side added to the base.

        Raises:
            NotPossibleError: there is no base.
        """
        base = self.base
        if base is None:
            raise NotPossibleError("it needs a common base, and there is none")
        return tuple(side - base for side in self.sides)


class Sides(Protocol):
    """One tensor in several versions; may be iterated over any number of times."""

    name: str
    shape: tuple[int, ...]
    count: int
    seeds: tuple[bytes, ...]

    def __iter__(self) -> Iterator[Piece]:
        """The slices in order."""
        ...

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        """What was measured on each side: `fisher` (the tensor's shape) or `gram` (in × in).

        Empty if other tensors of the model were measured, and this one on no side.

        Raises:
            NotPossibleError: nothing was measured, or this tensor on some sides only.
        """
        ...


Combine = Callable[[Piece], Floats]
Words = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Formula:
    """A function of one slice that has a recipe (`updates/recipes`).

    `name` and `words` are the recipe's strategy and settings; `order` says in which order it is
    given the sides.
    """

    name: str
    combine: Combine
    words: Words
    order: tuple[int, ...] = ()

    def __call__(self, piece: Piece) -> Floats:
        """What it computes of a slice."""
        return self.combine(piece)


Settings = Mapping[str, Any]
Prepare = Callable[[Sides, Settings], Combine]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A setting: its default and the closed range of its values; lists are of such numbers.

    One that has `words` takes one of these instead.
    """

    name: str
    default: Setting
    low: float
    high: float
    help: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Strategy:
    """One row of the table; `make` is the pure function, by the name of its module."""

    name: str
    summary: str
    paper: str
    parameters: tuple[Parameter, ...]
    module: str
    function: str
    needs_base: bool = True
    by_entry: bool = False
    symmetric: bool = True

    def settings(self, given: Sequence[tuple[str, Setting]]) -> dict[str, Setting]:
        """All parameters, those not given at their defaults.

        Raises:
            UsageError: a name or a value that this strategy does not have.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        found: dict[str, Setting] = {name: one.default for name, one in known.items()}
        for name, value in given:
            if name not in known:
                names = ", ".join(known) or "none"
                raise UsageError(f"{self.name} has no parameter {name!r}; it has: {names}")
            _check(self.name, known[name], value)
            found[name] = value
        return found

    def prepare(self, sides: Sides, given: Sequence[tuple[str, Setting]] = ()) -> Combine:
        """The function that combines one slice of these sides.

        Raises:
            UsageError: the settings are not this strategy's.
            NotPossibleError: it cannot be used on this tensor.
        """
        from importlib import import_module

        settings = self.settings(given)
        module = import_module(f"git_theta_ext.merge.strategies.{self.module}")
        function: Prepare = getattr(module, self.function)
        order = range(len(sides.seeds))
        if self.symmetric and not settings.get("weights"):
            order = sorted(order, key=lambda number: sides.seeds[number])  # type: ignore[assignment]
        ordered = _Ordered(sides, tuple(order))
        # What overflows is found in the result; NumPy need not print a warning of it.
        with np.errstate(over="ignore", invalid="ignore"):
            combine = function(ordered, settings)

        def combined(piece: Piece) -> Floats:
            with np.errstate(over="ignore", invalid="ignore"):
                return combine(ordered.sorted(piece))

        if isinstance(combine, Formula):
            return replace(combine, combine=combined, order=tuple(order))
        return combined


def _check(strategy: str, parameter: Parameter, value: Setting) -> None:
    """Refuse a value that the parameter does not take, with the words or the range that it does."""
    if parameter.words:
        if value not in parameter.words:
            known = " or ".join(parameter.words)
            raise UsageError(f"{strategy}: {parameter.name} is {known}, not {value!r}")
        return
    many = isinstance(parameter.default, tuple)
    items = value if isinstance(value, tuple) else (value,)
    good = many or len(items) == 1
    for item in items:
        number = isinstance(item, float | int) and not isinstance(item, bool)
        good = good and number and parameter.low <= float(item) <= parameter.high
    if not good:
        kind = "numbers, such as 0.7:0.3," if many else "a number"
        raise UsageError(
            f"{strategy}: {parameter.name} takes {kind} from {parameter.low:g} to "
            f"{parameter.high:g}, not {value!r}"
        )


class _Ordered:
    """Sides in another order."""

    def __init__(self, sides: Sides, order: tuple[int, ...]) -> None:
        self._sides = sides
        self._order = order
        self.name, self.shape, self.count = sides.name, sides.shape, sides.count
        self.seeds = tuple(sides.seeds[number] for number in order)

    def sorted(self, piece: Piece) -> Piece:
        return Piece(piece.start, piece.base, tuple(piece.sides[number] for number in self._order))

    def __iter__(self) -> Iterator[Piece]:
        return map(self.sorted, self._sides)

    def statistic(self, kind: str) -> tuple[NDArray[Any], ...]:
        found = self._sides.statistic(kind)
        return tuple(found[number] for number in self._order) if found else ()


_WEIGHTS = Parameter("weights", (), 0.0, 1e6, "a weight for each side, ours first; none: equal")
_LAMBDA = Parameter("lambda", 1.0, -10.0, 10.0, "the length of the merged update")
_RANK = Parameter(
    "rank", "keep", 0, 0, "of a LoRA's blended product: grow joins the factors of all versions",
    ("keep", "grow"),
)  # fmt: skip
_DENSITY = Parameter("density", 0.5, 0.0, 1.0, "the share of each update's entries that is kept")

TABLE: tuple[Strategy, ...] = (
    Strategy("ours", "our version where both changed an entry", "", (),
             "plain", "ours", needs_base=False, by_entry=True, symmetric=False),
    Strategy("theirs", "their version where both changed an entry", "", (),
             "plain", "theirs", needs_base=False, by_entry=True, symmetric=False),
    Strategy("base", "the old value where both changed an entry", "", (),
             "plain", "base", by_entry=True),
    Strategy("average", "the mean of the entries that both changed",
             "Wortsman et al. 2022, Model soups", (_WEIGHTS, _RANK),
             "plain", "average", needs_base=False, by_entry=True),
    Strategy("stack", "rows that both added, ours first; the mean of old entries that both changed",
             "", (_WEIGHTS,), "plain", "average", by_entry=True, symmetric=False),
    Strategy("reapply", "ours plus the update of theirs, as a rebase does",
             "",
             (Parameter("lambda", 1.0, -10.0, 10.0, "how much of the update is applied"), _RANK),
             "plain", "reapply", by_entry=True, symmetric=False),
    Strategy("task-arithmetic", "the base plus the sum of all updates",
             "Ilharco et al. 2023, Editing models with task arithmetic", (_LAMBDA, _WEIGHTS, _RANK),
             "plain", "task_arithmetic"),
    Strategy("ties", "updates trimmed, a sign elected for each entry, those that agree averaged",
             "Yadav et al. 2023, TIES-Merging", (_DENSITY, _LAMBDA),
             "sparse", "ties"),
    Strategy("dare-linear", "updates thinned at random and scaled up, then added",
             "Yu et al. 2024, Language models are Super Mario", (_DENSITY, _LAMBDA),
             "sparse", "dare_linear"),
    Strategy("dare-ties", "updates thinned at random and scaled up, then merged by sign",
             "Yu et al. 2024; Yadav et al. 2023", (_DENSITY, _LAMBDA),
             "sparse", "dare_ties"),
    Strategy("della", "updates thinned at random, large entries less, then merged by sign",
             "Deep et al. 2024, DELLA-Merging",
             (_DENSITY, Parameter("epsilon", 0.1, 0.0, 1.0, "how much the chances differ"),
              _LAMBDA),
             "sparse", "della"),
    Strategy("breadcrumbs", "updates without their largest and smallest entries, added",
             "Davari and Belilovsky 2024, Model breadcrumbs",
             (Parameter("density", 0.9, 0.0, 1.0, "the share of entries that is kept"),
              Parameter("gamma", 0.01, 0.0, 1.0, "the share of the largest that is dropped"),
              _LAMBDA),
             "sparse", "breadcrumbs"),
    Strategy("slerp", "the point between two sides on the great circle",
             "Shoemake 1985, Animating rotation with quaternion curves",
             (Parameter("t", 0.5, 0.0, 1.0, "the way from ours (0) to theirs (1)"),),
             "sphere", "slerp", needs_base=False, symmetric=False),
    Strategy("karcher", "the mean of all sides on the sphere, at their mean length",
             "Karcher 1977, Riemannian center of mass", (_WEIGHTS,),
             "sphere", "karcher", needs_base=False),
    Strategy("sce", "entries that vary most, sides weighted by their energy, merged by sign",
             "Wan et al. 2024, FuseChat",
             (Parameter("density", 1.0, 0.0, 1.0, "the share of entries that is kept"), _LAMBDA),
             "sparse", "sce"),
    Strategy("model-stock", "between the base and the mean, nearer to it the more sides agree",
             "Jang et al. 2024, Model Stock", (),
             "sphere", "model_stock"),
    Strategy("fisher", "the mean weighted by how much the loss feels each entry",
             "Matena and Raffel 2022, Merging models with Fisher-weighted averaging", (_WEIGHTS,),
             "measured", "fisher", needs_base=False),
    Strategy("regmean", "the weights whose outputs are nearest to those of all sides",
             "Jin et al. 2023, Dataless knowledge fusion by merging weights",
             (Parameter("alpha", 0.9, 0.0, 1.0, "the weight of the entries off the diagonal"),),
             "measured", "regmean", needs_base=False),
)  # fmt: skip
"""Every strategy, in the order in which the documentation lists them."""

WITHOUT_VALUES = ("conflict", "zero")
"""What can be chosen, too, and computes nothing from the sides: leave open, reset to zeros."""


@cache
def _by_name() -> dict[str, Strategy]:
    return {strategy.name: strategy for strategy in TABLE}


def get(name: str) -> Strategy:
    """The strategy of a name.

    Raises:
        UsageError: there is none; says which are known.
    """
    found = _by_name().get(name)
    if found is None:
        known = (*_by_name(), *WITHOUT_VALUES)
        near = nearest(name, known)
        raise UsageError(
            f"unknown merge strategy {name!r}; known: {', '.join(known)}",
            hint=None if near is None else f"did you mean: {near}",
        )
    return found


def takes_words(strategy: str, name: str) -> bool:
    """Whether a parameter of a strategy is a word; not where there is no such strategy."""
    found = _by_name().get(strategy)
    return found is not None and any(one.words for one in found.parameters if one.name == name)


def check(choice: Choice) -> Choice:
    """The choice itself, if its strategy and settings exist.

    Raises:
        UsageError: they do not.
    """
    if choice.strategy in WITHOUT_VALUES:
        if choice.settings:
            raise UsageError(f"{choice.strategy} has no parameters")
    else:
        get(choice.strategy).settings(choice.settings)
    return choice
