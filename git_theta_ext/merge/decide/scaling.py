"""How an adapter's factors are scaled: in each version of a merge, and in its result.

What PEFT adds to a weight is B·A · lora_alpha / r (or / √r, with `use_rslora`); rank and alpha
stand in `adapter_config.json` beside the factors, for single modules in `rank_pattern` and
`alpha_pattern`. Products of two versions may be added only as what they do, and the sum is written
for the configuration that the merge will have. Where that cannot be told, a reason is given instead
of a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG, Scaling, stated_type
from git_theta_ext.core.errors import UsageError

_NO_PRODUCT = ("use_bdlora", "enable_lora", "kasa_config", "monteclora_config")
"""Settings with which two factors are not all of the update, or not one product."""

SETTLE = f"settle {CONFIG} first"
"""Stands in the reason of factors that can be blended once their configuration is known."""


GROWS = f"rank=grow also changes {CONFIG}, and only git theta resolve and git theta merge do that"
"""The reason of factors that would be joined where only the checkpoint may be written."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why something cannot be told; ends a sentence."""

    why: str


Text = bytes | Unknown | None
"""A configuration as it is tracked; None where there is none."""
State = Mapping[str, Any] | Unknown | None


@dataclass(frozen=True, slots=True)
class Scale:
    """The rank that a product of the result has, and what is done to each version's product.

    A version's B·A times its `ratios` entry is its update as the result's scaling counts it.
    `alpha` is what the result's settings must give the module for that; None where they stay.
    """

    rank: int
    ratios: tuple[float, ...]
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class Configs:
    """The settings of an adapter in ours, theirs and the base of a merge, and in its result."""

    versions: tuple[State, State, State]
    result: State

    @classmethod
    def parse(cls, versions: Sequence[Text], result: Text) -> Configs:
        """The settings in four texts: of ours, theirs, the base, and the result."""
        ours, theirs, base = map(_parse, versions)
        return cls((ours, theirs, base), _parse(result))

    def weigh(self, module: str, ranks: Sequence[int | None]) -> Scale | Unknown:
        """How the products of a module are added.

        Args:
            module: as the model calls it.
            ranks: of ours, theirs and the base; None for a version that has no part in it.

        Returns:
            The rank that the result's settings give it, at least the larger of both sides, or the
            larger itself where they give none; or why that cannot be told.
        """
        largest = max(rank for rank in (ranks[:2] if any(ranks[:2]) else ranks) if rank)
        if self.result is None and all(one is None for one in self._used(ranks).values()):
            if len(set(ranks) - {None}) == 1:
                return Scale(largest, (1.0,) * len(ranks))
            return Unknown(
                f"the ranks differ, and no {CONFIG} is tracked beside it to say how each is scaled"
            )
        found = self._scales(module, ranks)
        if isinstance(found, Unknown):
            return found
        if not isinstance(self.result, Mapping):
            alike = len({(one, ranks[place]) for place, one in found.items()}) == 1
            none = Unknown(f"the merge has no {CONFIG} beside it: {SETTLE}")
            return Scale(largest, (1.0,) * len(ranks)) if alike else self.result or none
        rank = _rank(self.result, module, largest)
        if isinstance(rank, Unknown):
            return rank
        target = _scale(self.result, module, rank)
        return target if isinstance(target, Unknown) else _ratios(rank, target, found)

    def grow(self, module: str, ranks: Sequence[int | None]) -> Scale | Unknown:
        """As `weigh`, with the rank of all versions together, and the alpha which that asks for."""
        found = self._scales(module, ranks)
        if isinstance(found, Unknown):
            return found
        if not isinstance(self.result, Mapping):
            return self.result or Unknown(f"the merge has no {CONFIG} beside it: {SETTLE}")
        rank = sum(rank for rank in ranks if rank)
        length = math.sqrt(rank) if self.result.get("use_rslora") else rank
        # The scaling of the first version, so that no number of its factors is rounded.
        alpha = next((one for one in found.values() if one), 1.0) * length
        alpha = int(alpha) if alpha.is_integer() else alpha
        scale = _ratios(rank, alpha / length, found)
        return scale if isinstance(scale, Unknown) else replace(scale, alpha=alpha)

    def _used(self, ranks: Sequence[int | None]) -> dict[int, State]:
        """The settings of the versions that have a part in a product, by their places."""
        return {place: self.versions[place] for place, rank in enumerate(ranks) if rank}

    def _scales(self, module: str, ranks: Sequence[int | None]) -> dict[int, float] | Unknown:
        """What each version's product is multiplied by, by the places of the versions."""
        used = self._used(ranks)
        if len({_is_dora(one) for one in (*used.values(), self.result)} - {None}) > 1:
            return Unknown(f"use_dora of {CONFIG} is not the same in every version")
        found: dict[int, float] = {}
        for place, state in used.items():
            one = _scale(state, module, ranks[place] or 0)
            if isinstance(one, Unknown):
                return one
            found[place] = one
        return found


NOTHING = Configs((None, None, None), None)
"""No configuration anywhere."""


class Scalings:
    """The settings of an adapter under merge, read when they are first asked for."""

    def __init__(
        self, load: Callable[[], Configs] = lambda: NOTHING, *, writable: bool = False
    ) -> None:
        """`load` reads them; `writable`: the result's can be changed along with the factors."""
        self._load = cache(load)
        self.writable = writable

    def weigh(self, module: str, ranks: Sequence[int | None]) -> Scale | Unknown:
        """As `Configs.weigh`."""
        return self._load().weigh(module, ranks)

    def grow(self, module: str, ranks: Sequence[int | None]) -> Scale | Unknown:
        """As `Configs.grow`; unknown where the result's settings cannot be changed."""
        found = self._load().grow(module, ranks)
        return found if isinstance(found, Unknown) or self.writable else Unknown(GROWS)


def _parse(text: Text) -> State:
    """The settings of a LoRA; None if there is no file, Unknown if they cannot be used."""
    if text is None or isinstance(text, Unknown):
        return text
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return Unknown(f"{CONFIG} is no JSON: {SETTLE}")
    if not isinstance(data, dict):
        return Unknown(f"{CONFIG} is no JSON object: {SETTLE}")
    kind = stated_type(data)
    if kind not in (None, "LORA"):
        return Unknown(f"{CONFIG} says that they are not a LoRA")
    strange = next((key for key in _NO_PRODUCT if data.get(key)), None)
    if strange is not None:
        return Unknown(f"{CONFIG} sets {strange}, so the update is not just their product")
    return data


def _is_dora(state: State) -> bool | None:
    return None if state is None or isinstance(state, Unknown) else bool(state.get("use_dora"))


def _scale(state: State, module: str, rank: int) -> float | Unknown:
    if isinstance(state, Unknown):
        return state
    if state is None:
        return Unknown(f"{CONFIG} is not beside it in every version")
    try:
        return Scaling(Path(CONFIG), state).of(module, rank)
    except UsageError as error:
        return Unknown(error.message)


def _rank(state: Mapping[str, Any], module: str, largest: int) -> int | Unknown:
    """The rank that settings give a module; the larger of both sides where they give none."""
    try:
        stated = Scaling(Path(CONFIG), state).rank(module)
    except UsageError as error:
        return Unknown(error.message)
    if stated is None:
        return largest
    if isinstance(stated, bool) or not isinstance(stated, int):
        return Unknown(f"{CONFIG} gives them the rank {stated!r}: {SETTLE}")
    if stated < largest:
        return Unknown(
            f"{CONFIG} of the merge gives them rank {stated:,}, and a side has {largest:,}: "
            f"{SETTLE}"
        )
    return stated


def _ratios(rank: int, target: float, found: Mapping[int, float]) -> Scale | Unknown:
    """The scalings of versions, by their places, as multiples of the result's."""
    if target == 0 and any(found.values()):
        return Unknown(f"{CONFIG} of the merge scales them by zero")
    ratios = [1.0, 1.0, 1.0]
    for place, one in found.items():
        ratios[place] = 1.0 if one == target else one / target
    return Scale(rank, tuple(ratios))
