"""Decide which coupled factors can be blended by their product, to which rank, and how scaled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG
from git_theta_ext.checkpoints.adapters.peft_names import module_of
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.manifest.model import Entry
from git_theta_ext.merge.decide.blends import Blend, Tables
from git_theta_ext.merge.decide.scaling import SETTLE, Scale, Scalings, Unknown
from git_theta_ext.merge.strategies.choice import Choice

STRATEGIES = ("average", "task-arithmetic", "reapply")
"""Those that are a weighted sum of the versions."""

_BYTES = 1 << 30
"""Memory for one product's factors, in float64; larger ones stay open."""

_LEFT = re.compile(r"(?P<lora>lora_(?:embedding_)?)B(?P<rest>(?=[./]|$).*)")
_RIGHT = re.compile(r"lora_(?:embedding_)?A(?=[./]|$)")
_MORE = ("alpha", "dora_scale", "lora_magnitude_vector", "lora_B_bias", "lora_B.bias")
"""Further tensors of a module, whose meaning hangs on the rank or the scaling of its factors."""


@dataclass(frozen=True, slots=True)
class Product:
    """The names of the two factors of B·A."""

    left: str
    right: str


def product_of(members: Sequence[str]) -> Product | None:
    """The factors among the tensors of a group, if it is a plain pair of LoRA."""
    left = [name for name in members if _LEFT.search(name)]
    right = [name for name in members if _RIGHT.search(name)]
    if len(members) != 2 or len(left) != 1 or len(right) != 1:
        return None
    return Product(left[0], right[0])


def product_rank(tensor: TensorInfo) -> int | None:
    """The rank of the product whose left factor a tensor is, if it is that of a LoRA."""
    left = len(tensor.shape) > 1 and _LEFT.search(tensor.name)
    return tensor.shape[1] if left else None


def shares(choice: Choice, based: bool) -> tuple[float, float, float]:
    """How much of ours, theirs and the base a strategy's sum has."""
    given = dict(choice.settings).get("lambda", 1.0)
    length = float(given) if isinstance(given, float | int) else 1.0
    if choice.strategy == "average" or not based:
        return 0.5, 0.5, 0.0
    if choice.strategy == "reapply":
        return 1.0, length, -length
    return length, length, 1.0 - 2 * length


def plan_blend(
    members: Sequence[str], tables: Tables, choice: Choice, scalings: Scalings
) -> Blend | Unknown | None:
    """How a strategy blends the factors of a group.

    Args:
        members: of a group of factors; a factor that no side changed is not among them.
        tables: the tensors of ours, of theirs and of the base.
        choice: the strategy.
        scalings: what the adapter's configuration says of them.

    Returns:
        The blend; why their product cannot be blended though they are a plain pair; or None where
        the strategy, or what they are, allows none.
    """
    pair = product_of(members)
    if pair is None or choice.strategy not in STRATEGIES or dict(choice.settings).get("weights"):
        return None
    based = all(name in tables[2] for name in members)
    if choice.strategy != "average" and not based:
        return None
    parts = shares(choice, based)
    versions = [
        (table.get(pair.left), table.get(pair.right)) if share else None
        for share, table in zip(parts, tables, strict=True)
    ]
    types = [_matrices(*one) for one in versions if one is not None]
    found = [one for one in types if one is not None]
    if len(found) < len(types) or len({_outside(one) for one in found}) > 1:
        return None
    ranks = _ranks(pair, tables, parts)
    grows = dict(choice.settings).get("rank") == "grow"
    scale = _scale(pair, ranks, tables, scalings.grow if grows else scalings.weigh)
    if isinstance(scale, Unknown):
        return scale
    left, right = found[0]
    rows, columns = left.shape[0], right.shape[1]
    if 8 * (rows + columns) * (scale.rank + sum(rank or 0 for rank in ranks)) > _BYTES:
        return Unknown("their factors are too large for the memory of one product")
    weights = tuple(share * ratio for share, ratio in zip(parts, scale.ratios, strict=True))
    left = replace(left, shape=(rows, scale.rank))
    return Blend(left, replace(right, shape=(scale.rank, columns)), weights, scale.alpha)


def plain_alone(
    members: Sequence[str], tables: Tables, choice: Choice, scalings: Scalings
) -> bool | Unknown:
    """Whether a strategy on the one factor that changed is the same as on the product.

    It is not where the versions, or the result, scale that product differently: says so then.

    Args:
        members: the names of the group's tensors that are merged.
        tables: the entries of the base and both sides.
        choice: the strategy and its parameters.
        scalings: what the configuration beside the adapter says.
    """
    if len(members) != 1 or choice.strategy not in STRATEGIES:
        return False
    (name,) = members
    left, right = _LEFT.search(name), _RIGHT.search(name)
    if not left and not right:
        return True
    ranks: list[int | None] = []
    for share, table in zip(shares(choice, name in tables[2]), tables, strict=True):
        shape = table[name].tensor.shape if share and name in table else ()
        ranks.append((shape[1] if left else shape[0]) if len(shape) > 1 else None)
    if not all(ranks[:2]):
        return True
    scale = scalings.weigh(module_of(name) or name, ranks)
    if isinstance(scale, Unknown):
        return scale
    if any(ratio != 1.0 for ratio in scale.ratios):
        return Unknown("only one of them changed, and the versions scale their product differently")
    return True


def other_scaling(
    members: Sequence[str], tables: Tables, place: int, scalings: Scalings
) -> str | None:
    """How the result's settings differ from those of the version that a product is taken from.

    Args:
        members: of a group of factors.
        tables: the tensors of ours, of theirs and of the base.
        place: of the version among them.
        scalings: what the adapter's configuration says of them.

    Returns:
        The rank or the factor, as a part of a sentence; None where they are the same.
    """
    pair = product_of(members)
    left = tables[place].get(pair.left) if pair is not None else None
    if left is None or len(left.tensor.shape) < 2:
        return None
    rank = left.tensor.shape[1]
    ranks = [rank if one == place else None for one in range(len(tables))]
    scale = scalings.weigh(module_of(left.tensor.name) or left.tensor.name, ranks)
    if isinstance(scale, Unknown):
        return scale.why if SETTLE in scale.why else None
    if scale.rank != rank:
        return f"{CONFIG} of the merge gives them rank {scale.rank:,}, not {rank:,}"
    ratio = scale.ratios[place]
    if ratio != 1.0:
        times = f"{1 / ratio:.3g}" if ratio else "infinitely many"
        return f"{CONFIG} of the merge scales their product {times} times as much"
    return None


def _matrices(left: Entry | None, right: Entry | None) -> tuple[TensorInfo, TensorInfo] | None:
    """The types of a version's factors, if they are matrices of one inner dimension."""
    if left is None or right is None:
        return None
    for tensor in (left.tensor, right.tensor):
        matrix = len(tensor.shape) == 2 and tensor.order is None and min(tensor.shape) > 0
        if not matrix or tensor.dtype.kind != "float":
            return None
    return (left.tensor, right.tensor) if left.tensor.shape[1] == right.tensor.shape[0] else None


def _outside(types: tuple[TensorInfo, TensorInfo]) -> tuple[object, ...]:
    """What must be equal in all versions: the outer dimensions, and the dtypes."""
    left, right = types
    return left.shape[0], right.shape[1], left.dtype, right.dtype


def _ranks(pair: Product, tables: Tables, parts: Sequence[float]) -> list[int | None]:
    return [
        table[pair.left].tensor.shape[1] if share else None
        for share, table in zip(parts, tables, strict=True)
    ]


def _scale(
    pair: Product,
    ranks: Sequence[int | None],
    tables: Tables,
    weigh: Callable[[str, Sequence[int | None]], Scale | Unknown],
) -> Scale | Unknown:
    """As `Scalings.weigh`; a tensor that hangs on rank or scaling keeps them as they are."""
    scale = weigh(module_of(pair.left) or pair.left, ranks)
    if isinstance(scale, Unknown):
        return scale
    same = {rank for rank in (*ranks, scale.rank) if rank is not None} == {scale.rank}
    if same and all(ratio == 1.0 for ratio in scale.ratios):
        return scale
    more = _further(pair, tables)
    return Unknown(f"{more} beside them depends on their scaling, which differs") if more else scale


def _further(pair: Product, tables: Sequence[Mapping[str, Entry]]) -> str | None:
    """The name of another tensor of the module that some version has."""
    match = _LEFT.search(pair.left)
    if match is None:
        return None
    module, rest = pair.left[: match.start()], match["rest"]
    names = [f"{module}{one}" for one in _MORE]
    names += [f"{module}lora_magnitude_vector{rest}", f"{pair.left.removesuffix('weight')}bias"]
    return next((name for name in names if any(name in table for table in tables)), None)
