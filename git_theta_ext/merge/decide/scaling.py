"""How an adapter's factors are scaled: in each version of a merge, and in its result.

What PEFT adds to a weight is B·A · lora_alpha / r (or / √r, with `use_rslora`); rank and alpha
stand in `adapter_config.json` beside the factors, for single modules in `rank_pattern` and
`alpha_pattern`. Products of two versions may be added only as what they do, and the sum is written
for the configuration that the merge will have. Where that cannot be told, a reason is given instead
of a number.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG, Scaling, stated_type
from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.process import run_program
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.decide.changed_on_both import Heads

_NO_PRODUCT = ("use_bdlora", "enable_lora", "kasa_config", "monteclora_config")
"""Settings with which two factors are not all of the update, or not one product."""

SETTLE = f"settle {CONFIG} first"
"""Stands in the reason of factors that can be blended once their configuration is known."""


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
    """

    rank: int
    ratios: tuple[float, ...]


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
        used = [(one, rank) for one, rank in zip(self.versions, ranks, strict=True) if rank]
        largest = max(rank for rank in (ranks[:2] if any(ranks[:2]) else ranks) if rank)
        found: list[float] = []
        if len({_is_dora(one) for one, _ in (*used, (self.result, 0))} - {None}) > 1:
            return Unknown(f"use_dora of {CONFIG} is not the same in every version")
        if all(one is None for one, _ in used) and self.result is None:
            if len({rank for _, rank in used}) == 1:
                return Scale(largest, (1.0,) * len(ranks))
            return Unknown(
                f"the ranks differ, and no {CONFIG} is tracked beside it to say how each is scaled"
            )
        for state, rank in used:
            one = _scale(state, module, rank)
            if isinstance(one, Unknown):
                return one
            found.append(one)
        alike = len(set(zip(found, (rank for _, rank in used), strict=True))) == 1
        if isinstance(self.result, Unknown) and not alike:
            return self.result
        if self.result is None or isinstance(self.result, Unknown):
            rank, target = largest, found[0]
            if not alike:
                return Unknown(f"the merge has no {CONFIG} beside it: {SETTLE}")
        else:
            rank = _rank(self.result, module, largest)
            if not isinstance(rank, int):
                return rank
            target = _scale(self.result, module, rank)
            if isinstance(target, Unknown):
                return target
        return _ratios(rank, target, dict(zip(_places(ranks), found, strict=True)))


NOTHING = Configs((None, None, None), None)
"""No configuration anywhere."""


class Scalings:
    """The settings of an adapter under merge, read when they are first asked for."""

    def __init__(self, load: Callable[[], Configs] = lambda: NOTHING) -> None:
        """`load` reads them."""
        self._load = cache(load)

    def weigh(self, module: str, ranks: Sequence[int | None]) -> Scale | Unknown:
        """As `Configs.weigh`."""
        return self._load().weigh(module, ranks)


def scalings_ahead(repository: Repository, path: str, heads: Heads | None) -> Scalings:
    """The settings beside a checkpoint in a merge whose result Git has not written yet.

    Args:
        repository: where the commits are.
        path: of the checkpoint, from the top.
        heads: the commits; None where Git does not tell which are merged.
    """

    def load() -> Configs:
        versions = _versions(repository, path, heads)
        return Configs.parse(versions, _merged(repository, config_path(path), versions))

    return Scalings(load)


def scalings_under_way(repository: Repository, path: str, heads: Heads | None) -> Scalings:
    """As `scalings_ahead`, where the result's settings stand in the index, merged or staged."""

    def load() -> Configs:
        beside = config_path(path)
        stages = {one.stage: one.oid for one in repository.index(f":(top,literal){beside}")}
        result: Text = None
        if stages:
            clash = Unknown(f"{CONFIG} is in conflict: {SETTLE}")
            result = _text(repository, stages[0]) if 0 in stages else clash
        return Configs.parse(_versions(repository, path, heads), result)

    return Scalings(load)


def config_path(path: str) -> str:
    """Where the configuration of an adapter stands: beside its file."""
    return str(PurePosixPath(path).with_name(CONFIG))


def _versions(repository: Repository, path: str, heads: Heads | None) -> list[Text]:
    beside = config_path(path)
    if heads is None:
        there = repository.resolve("HEAD") and repository.blob_at("HEAD", beside)
        lost = Unknown(f"Git does not say which commits are merged, so {CONFIG} cannot be read")
        return [lost] * 3 if there else [None] * 3
    commits = (heads.ours, heads.theirs, heads.base)
    oids = [repository.blob_at(one, beside) if one else None for one in commits]
    texts = [None if oid is None else _text(repository, oid) for oid in oids]
    if any(repository.blob_at(one, beside) != oids[2] for one in heads.further):
        texts[2] = Unknown(f"the branches have several common ancestors, and {CONFIG} differs")
    return texts


def _text(repository: Repository, oid: str) -> Text:
    if repository.blob_size(oid) > limits.ADAPTER_CONFIG_BYTES:
        return Unknown(f"{CONFIG} is larger than {limits.ADAPTER_CONFIG_BYTES:,} bytes")
    return repository.blob(oid)


def _merged(repository: Repository, path: str, versions: Sequence[Text]) -> Text:
    """What Git will make of the configuration; unknown where it is going to be a conflict."""
    ours, theirs, base = versions
    if theirs in (ours, base):
        return ours
    if ours == base:
        return theirs
    clash = Unknown(f"both sides changed {CONFIG}: {SETTLE}")
    if not isinstance(ours, bytes) or not isinstance(theirs, bytes) or not isinstance(base, bytes):
        return clash
    own = repository.attribute("merge", path) not in ("unspecified", "set", "text")
    if own or repository.setting("merge.default"):
        return clash
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        names = [os.path.join(folder, name) for name in ("ours", "base", "theirs")]
        for name, text in zip(names, (ours, base, theirs), strict=True):
            files.replace_file(name, text)
        status, output, _ = run_program(["git", "merge-file", "-p", "-q", *names], repository.cwd)
    return clash if status else output


def _parse(text: Text) -> State:
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
        return Unknown(f"{CONFIG} says that they are no LoRA")
    strange = next((key for key in _NO_PRODUCT if data.get(key)), None)
    if strange is not None:
        return Unknown(f"{CONFIG} sets {strange}, with which they are no plain product")
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


def _places(ranks: Sequence[int | None]) -> list[int]:
    return [place for place, rank in enumerate(ranks) if rank]


def _ratios(rank: int, target: float, found: Mapping[int, float]) -> Scale | Unknown:
    """The scalings of versions, by their places, as multiples of the result's."""
    if target == 0 and any(found.values()):
        return Unknown(f"{CONFIG} of the merge scales them to nothing")
    ratios = [1.0, 1.0, 1.0]
    for place, one in found.items():
        ratios[place] = 1.0 if one == target else one / target
    return Scale(rank, tuple(ratios))
