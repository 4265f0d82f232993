"""A checkpoint into a torch module, tensor by tensor: everything that was asked for, or an error.

Everything is checked before the first value is copied. Tied weights are filled from either name,
modules on the meta device get tensors with values, and wrappers (`torch.compile`, `DataParallel`,
`DistributedDataParallel`) are looked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from git_theta_ext.api.torch_modules import targets_of, tied_groups
from git_theta_ext.checkpoints.read import Checkpoint
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.pytorch import (
    copy_into,
    fits_dtype,
    is_sharded,
    materialised,
    to_torch,
    unusual,
)

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Filled:
    """A tensor of the module, and the checkpoint's that it is filled from."""

    name: str
    target: Any
    source: str


@dataclass(slots=True)
class _Match:
    """The module's names as the checkpoint may have them, and what is on both sides, or one."""

    targets: list[str]
    prefix: str
    filled: list[_Filled] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def stream_into(
    module: Any, checkpoint: Checkpoint, *, strict: bool = True, prefix: str = ""
) -> list[str]:
    """Copy a checkpoint's tensors into a torch module, one after the other.

    Args:
        module: a `torch.nn.Module`.
        checkpoint: a version.
        strict: every name must be on both sides; tied names count as one.
        prefix: only the checkpoint's names that begin so are looked at, without it.

    Returns:
        The names of the module's that the checkpoint lacks (none if `strict`).

    Raises:
        UsageError: names, shapes or dtypes do not fit, nothing fits, the module cannot be filled,
            or torch is not installed.
    """
    names = _names(checkpoint, prefix)
    module, targets = targets_of(module, names)
    match = _Match(list(targets), prefix)
    for group in tied_groups(targets):
        sources = {name: names[name] for name in group if name in names}
        if sources:
            _require_alike(checkpoint, list(sources.values()))
            name, source = next(iter(sources.items()))
            match.filled.append(_Filled(*targets[name], source))
        else:
            match.lacking += [targets[name][0] for name in group]
    match.extra = [name for name in names if name not in targets]
    _require_names(checkpoint, match, strict)
    for one in match.filled:
        _require_fit(checkpoint, one)
    _require_off_meta(module, checkpoint, match.filled)
    _copy(module, checkpoint, match.filled)
    return match.lacking


def _names(checkpoint: Checkpoint, prefix: str) -> dict[str, str]:
    """The checkpoint's names, without the prefix -> with it."""
    if prefix and not prefix.endswith("."):
        prefix += "."
    found = {name.removeprefix(prefix): name for name in checkpoint if name.startswith(prefix)}
    if not found:
        there = sorted({name.partition(".")[0] + "." for name in checkpoint if "." in name})
        raise UsageError(
            f"{checkpoint.name} has no tensor whose name begins with {prefix!r}"
            if prefix
            else f"{checkpoint.name} has no tensors",
            hint=f"its names begin with {', '.join(map(repr, there[:_SHOWN]))}" if there else None,
        )
    return found


def _require_alike(checkpoint: Checkpoint, sources: list[str]) -> None:
    """Two tensors for one tied weight must be the same; the last one does not win."""
    for other in sources[1:]:
        first, second = checkpoint.info(sources[0]), checkpoint.info(other)
        if (
            first.shape != second.shape
            or first.dtype != second.dtype
            or _bytes(checkpoint, sources[0]) != _bytes(checkpoint, other)
        ):
            raise UsageError(
                f"{sources[0]!r} and {other!r} are tied in the module and differ in "
                f"{checkpoint.name}",
                hint="untie the module, or load a version that has only one of them: strict=False",
            )


def _bytes(checkpoint: Checkpoint, name: str) -> object:
    entry = checkpoint.entry(name)
    return entry.tensor.order, tuple(block.sha256 for block in entry.blocks)


def _require_names(checkpoint: Checkpoint, match: _Match, strict: bool) -> None:
    """Something must fit, and if `strict` everything; else say where the names are."""
    if match.filled and not (strict and (match.lacking or match.extra)):
        return
    if not match.targets:
        raise UsageError("the module has no tensors to be filled")
    where = _places(checkpoint, match.targets) if match.lacking else []
    said = f"{checkpoint.name}{f' under {match.prefix!r}' if match.prefix else ''}"
    said += f" does not fit the module{'' if match.filled else ', no name does'}: "
    said += f"missing {_some(match.lacking)}, unexpected {_some(match.extra)}"
    if where:
        said += f"; it has the module's names under {' and '.join(map(repr, where))}"
        hint = f"prefix={where[0]!r}"
    else:
        said += _inside(checkpoint, match.targets)
        hint = f"its names: theta.open({checkpoint.name!r}).keys()"
        if match.filled:
            hint = "strict=False copies what fits"
    raise UsageError(said, hint=hint)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{names[:_SHOWN]}{more}"


def _places(checkpoint: Checkpoint, targets: list[str]) -> list[str]:
    """Prefixes under which the checkpoint has most of the module's names, best first."""
    counts: dict[str, int] = {}
    wanted = set(targets)
    for name in checkpoint:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in wanted:
                before = ".".join(parts[:cut]) + "."
                counts[before] = counts.get(before, 0) + 1
    best = sorted(counts, key=lambda one: (-counts[one], one))
    return [one for one in best if 2 * counts[one] > len(wanted)][:_SHOWN]


def _inside(checkpoint: Checkpoint, targets: list[str]) -> str:
    """Where the module has the checkpoint's names in a part of it, what that part is called."""
    for target in targets:
        parts = target.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in checkpoint:
                return f"; the checkpoint fits the module's part {'.'.join(parts[:cut])!r}"
    return ""


def _require_fit(checkpoint: Checkpoint, one: _Filled) -> None:
    """Refuse a tensor that would not come into the module with its own shape and bits."""
    info, target = checkpoint.info(one.source), one.target
    what = None if is_sharded(target) else unusual(target)
    if is_sharded(target) and (
        target.is_meta or any(place.is_partial() for place in target.placements)
    ):
        what = "a DTensor that is on the meta device or holds partial sums"
    if what is not None:
        raise UsageError(
            f"{one.name!r} of the module is {what}; it cannot be filled",
            hint="load into the module before its parameters are converted",
        )
    if not hasattr(target, "shape") or not hasattr(target, "dtype"):
        raise UsageError(f"{one.name!r} of the module is no tensor: {type(target).__name__}")
    if tuple(target.shape) != info.shape:
        raise UsageError(
            f"tensor {one.source!r} is {list(info.shape)} in {checkpoint.name}, "
            f"{list(target.shape)} in the module"
        )
    if not fits_dtype(info, target):
        raise UsageError(
            f"tensor {one.source!r} is {info.dtype.name} in {checkpoint.name}, {target.dtype} in "
            "the module: its values would not be the same",
        )


def _require_off_meta(module: Any, checkpoint: Checkpoint, filled: list[_Filled]) -> None:
    """Refuse what would leave a part of the module on the meta device, without values."""
    known = {id(one.target) for one in filled}
    for name, tensor in _tensors(module):
        if not getattr(tensor, "is_meta", False) or id(tensor) in known:
            continue
        raise UsageError(
            f"{name!r} of the module is on the meta device, and {checkpoint.name} has no values "
            "for it",
            hint="build the module on the CPU, or give it memory first: "
            "module.to_empty(device='cpu') and values for its buffers",
        )


def _tensors(module: Any) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _copy(module: Any, checkpoint: Checkpoint, filled: list[_Filled]) -> None:
    """Fill the targets in place; in the module, new tensors replace those on the meta device."""
    checkpoint.check_held(one.source for one in filled if one.target.is_meta)
    checkpoint.fetch([one.source for one in filled])
    made: dict[int, Any] = {}
    for one in filled:
        value = to_torch(checkpoint.info(one.source), checkpoint[one.source])
        if one.target.is_meta:
            made[id(one.target)] = materialised(one.target, value)
        else:
            copy_into(one.target, value)
    if not made:
        return
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for key, tensor in held.items():
                held[key] = made.get(id(tensor), tensor)
