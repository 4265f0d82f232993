"""`--to ia3`: vectors by which rows or columns of the weights were multiplied, as PEFT has them.

The folder is that of PEFT's `IA3Model`: `MODULE.ia3_l` scales the outputs of a layer, and its bias
with them, or the inputs of those that `feedforward_modules` names. Vectors that the store has are
taken as they are, others found from the values as `git add` finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.adapters import layers
from git_theta_ext.checkpoints.adapters.changes import ScaleChange
from git_theta_ext.checkpoints.adapters.layers import Layer, Told
from git_theta_ext.core import advice
from git_theta_ext.core.errors import CorruptObjectError, UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.core.text import plural, printable
from git_theta_ext.manifest.model import Block, UpdateRef
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages.adapter import files, peft
from git_theta_ext.packages.adapter.ends import Ends
from git_theta_ext.packages.adapter.error import Error, measure
from git_theta_ext.packages.base_file import BaseRecord
from git_theta_ext.updates import scale
from git_theta_ext.updates.arithmetic import mantissa_bits

_LISTED = 8
_FEW = 1e-3
"""Share of the entries that may be off by more than rounding explains."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A layer and its vector: of outputs, or of inputs."""

    name: str
    tensor: str
    layer: Layer
    vector: NDArray[np.float32]
    outputs: bool
    error: Error


@dataclass(slots=True)
class Vectors:
    """All layers that were scaled, and what the vectors miss."""

    modules: list[Scaled] = field(default_factory=list)
    total: Error = field(default_factory=Error)
    nbytes: int = 0


def export(
    ends: Ends,
    folder: Path,
    text: str,
    told: Told,
    *,
    base: str | None,
    record: BaseRecord,
    prefix: str,
    work_tree: Path | None,
    advance: Callable[[int], object],
) -> Vectors:
    """Write a commit as the folder of an IA3 adapter.

    Args:
        ends: the versions.
        folder: new, empty, or an adapter's.
        text: the range as the user typed it, for advice.
        told: what the user said of layers.
        base: the name of the base model, for `base_model_name_or_path`.
        record: what the base is, for `theta_base.json`.
        prefix: of the model's names, before those of the checkpoint.
        work_tree: the top of the repository's.
        advance: called with bytes that are done.

    Raises:
        UsageError: a tensor changed otherwise, or the folder is another's.
        StoreError: it cannot be written.
    """
    ends.prepare(ends.changed)
    found, refused = Vectors(), dict.fromkeys(ends.remade, "it is not in both versions alike")
    infos = {name: entry.tensor for name, entry in ends.after.items()}
    biases = {name for name in ends.changed if name.endswith(".bias")}
    for name in ends.changed:
        layer = layers.layer_of(name, infos, ends.beside, told)
        if layer is not None:
            one = _scaled(ends, name, layer) if layer != "embedding" else None
            if one is None:
                refused[name] = "its rows or columns were not multiplied by a vector"
            elif (why := _add(ends, found, one, biases)) is not None:
                refused[name] = why
        elif name not in biases:
            refused[name] = "it is no weight of a linear layer or a convolution"
        advance(infos[name].nbytes)
    refused |= dict.fromkeys(sorted(biases), "it is no bias of a layer whose outputs are scaled")
    _require(refused, found, text)
    held = {
        f"base_model.model.{prefix}{one.name}.ia3_l": files.of_array(_shaped(one, ends))
        for one in found.modules
    }
    held = dict(sorted(held.items(), key=lambda item: natural_key(item[0])))
    settings = _config(found, base, prefix)
    found.nbytes = peft.write(folder, held, settings, None, base=record, work_tree=work_tree)
    return found


def _add(ends: Ends, found: Vectors, one: Scaled, biases: set[str]) -> str | None:
    """Take a layer in; or say why its bias forbids that."""
    bias = f"{one.name}.bias"
    found.total.add(one.error)
    if one.outputs and bias in ends.after:
        error = measure(ends, bias, ScaleChange(bias, one.vector, 0, 1))
        if error.far > _FEW * error.count:
            return "its bias was not multiplied with its outputs, as IA3 does"
        found.total.add(error)
        biases.discard(bias)
    found.modules.append(one)
    return None


def _require(refused: Mapping[str, str], found: Vectors, text: str) -> None:
    if not refused and found.modules:
        return
    lines = [f"\n  {printable(name)}: {why}" for name, why in list(refused.items())[:_LISTED]]
    more = len(refused) - _LISTED
    tail = f"\n  and {plural(more, 'more', 'more')}" if more > 0 else ""
    said = f"{plural(len(refused), 'changed tensor')} cannot be in an IA3 adapter:"
    raise UsageError(
        f"{said}{''.join(lines)}{tail}" if refused else f"no layer changes in {text}",
        hint=advice.with_name(
            "git theta export RANGE --to peft --rank 16 -o FOLDER   fits a LoRA", text, "RANGE"
        ),
    )


def _scaled(ends: Ends, name: str, layer: Layer) -> Scaled | None:
    """The vector of a layer: what the store has, else what is found; None where none is near."""
    tensor = ends.after[name].tensor
    rows = tensor.memory_shape[0]
    columns = tensor.count // max(rows, 1)
    for axis, factors in _candidates(ends, name, rows, columns):
        logical = axis if tensor.order is None else 1 - axis
        vector = factors
        if logical == 1 and len(tensor.shape) > 2:
            vector = factors.reshape(tensor.shape[1], -1)[:, 0].copy()
            if not np.array_equal(np.repeat(vector, columns // tensor.shape[1]), factors):
                continue
        error = measure(ends, name, ScaleChange(name, factors, axis, columns))
        if error.far > _FEW * error.count:
            continue
        outputs = (logical == 0) != (layer == "conv1d")
        return Scaled(name.removesuffix(".weight"), name, layer, vector, outputs, error)
    return None


def _candidates(
    ends: Ends, name: str, rows: int, columns: int
) -> list[tuple[int, NDArray[np.float32]]]:
    """Axes in memory and multipliers, the best source first."""
    tensor = ends.after[name].tensor
    if mantissa_bits(tensor.dtype) is None or not tensor.count:
        return []
    found = [one for one in [_stored(ends, name)] if one is not None]
    pieces = list(ends.pieces(name))
    new, old = (
        np.concatenate([getattr(piece, side) for piece in pieces]) for side in ("new", "old")
    )
    for axis in (0, 1):
        factors = scale.find_factors(tensor.dtype, new, old, (rows, columns), axis)
        found.append((axis, factors.astype(np.float32)))
    return found


def _stored(ends: Ends, name: str) -> tuple[int, NDArray[np.float32]] | None:
    """The multipliers of the one update that leads from the old version to the new."""
    parts, axes = [], set()
    before, after = ends.before[name], ends.after[name]
    pairs = zip(after.specs(), before.blocks, after.blocks, strict=True)
    for number, (spec, old, new) in enumerate(pairs):
        blocks = ends.new.store_of((name, number))
        link = None if blocks is None else _update(blocks, old, new)
        if blocks is None or link is None:
            return None
        file = blocks.parameters(link)
        try:
            factors, _, axis = scale.read_factors(spec, file, spec.count)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptObjectError(f"object {link.oid}: {error!r}") from error
        parts.append(factors.astype(np.float32))
        axes.add(axis)
    if axes == {0}:
        return 0, np.concatenate(parts)
    if axes == {1} and all(np.array_equal(part, parts[0]) for part in parts):
        return 1, parts[0]
    return None


def _update(blocks: Blocks, old: Block, new: Block) -> UpdateRef | None:
    """The update of kind `scale` by which one version of a block is the other's successor."""
    if new.chain[: len(old.chain)] != old.chain or len(new.chain) != len(old.chain) + 1:
        return None
    link = new.chain[-1]
    if not isinstance(link, UpdateRef) or link.kind != "scale":
        return None
    blocks.ensure([link])
    return link


def _shaped(one: Scaled, ends: Ends) -> NDArray[np.float32]:
    """The vector in the shape that PEFT gives it for the kind of the layer."""
    axes = len(ends.after[one.tensor].tensor.shape)
    if one.layer == "convolution":
        return one.vector.reshape(1, -1, *(1 for _ in range(axes - 2)))
    return one.vector.reshape((-1, 1) if one.outputs else (1, -1))


def _config(found: Vectors, base: str | None, prefix: str) -> dict[str, Any]:
    """The settings: which modules, and of which of them the inputs are scaled."""
    names = sorted((f"{prefix}{one.name}" for one in found.modules), key=natural_key)
    inputs = [f"{prefix}{one.name}" for one in found.modules if not one.outputs]
    outputs = [f"{prefix}{one.name}" for one in found.modules if one.outputs]
    unclear = [name for name in outputs if inputs and name.endswith(tuple(inputs))]
    if unclear:
        raise UsageError(
            f"PEFT would take {printable(unclear[0])} for a layer whose inputs are scaled: its "
            "name ends like that of one"
        )
    return {
        "peft_type": "IA3",
        "base_model_name_or_path": base,
        "fan_in_fan_out": any(one.layer == "conv1d" for one in found.modules),
        "feedforward_modules": sorted(inputs, key=natural_key),
        "inference_mode": True,
        "init_ia3_weights": True,
        "target_modules": names,
    }
