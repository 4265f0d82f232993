"""An adapter from its file: which type it is, and its changes to a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from git_theta_ext.checkpoints.adapters import corrections, difference, peft, sparse, tied
from git_theta_ext.checkpoints.adapters.base import Adapter, refuse
from git_theta_ext.checkpoints.adapters.files import TensorFile
from git_theta_ext.checkpoints.adapters.types import bind as others
from git_theta_ext.checkpoints.adapters.types import weighted
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.tensors import TensorInfo
from git_theta_ext.core.text import printable
from git_theta_ext.manifest.model import Manifest

TYPES = (*peft.KINDS, *others.KINDS, "sparse", "diff")
_FOREIGN = {
    "lora_down.": "kohya's scripts",
    "lora.down.": "diffusers before 0.22",
    ".lora_a": "MLX",
    "lora_linear_layer.": "diffusers before 0.22",
}


def open_adapter(path: Path) -> TensorFile:
    """The tensors of an adapter: a file, or the folder that PEFT writes.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    if path.is_dir():
        for name in peft.MODELS:
            if (path / name).exists():
                return TensorFile(path / name)
        inside = sorted(one.parent.name for name in peft.MODELS for one in path.glob(f"*/{name}"))
        raise refuse(
            path,
            f"holds neither {' nor '.join(peft.MODELS)}",
            f"its folder {printable(inside[0])!r} does: name that" if inside else None,
        )
    return TensorFile(path)


def read_adapter(
    file: TensorFile, manifest: Manifest, kind: str | None = None, config: Path | None = None
) -> Adapter:
    """An adapter's changes to the tensors of a version.

    Args:
        file: the adapter's tensors.
        manifest: the version.
        kind: one of `TYPES`; by the names of its tensors if it is None.
        config: its `adapter_config.json`; the one beside it if it is None.

    Raises:
        UsageError: it is no adapter that is known, or does not fit the version.
    """
    tensors = _tensors(manifest)
    beside = config or file.path.with_name(peft.CONFIG)
    stated = others.looks_like(file) or peft.looks_like(file)
    if kind is None and difference.looks_like(file):
        kind = "diff"
    kind = kind or stated or ("sparse" if sparse.looks_like(file) else None)
    if kind is None:
        raise _no_adapter(file, beside)
    if kind == "diff":
        return difference.bind(file, tensors)
    if kind == "sparse":
        if stated is not None:
            raise refuse(file.path, f"has tensors of an adapter of type {stated}, not sparse ones")
        return sparse.bind(file, tensors)
    binder = others.bind if kind in others.KINDS else peft.bind
    adapter = binder(file, peft.read_config(beside), kind, tensors)
    adapter = corrections.applied(adapter, file.path, manifest.entries)
    further = tied.notes(manifest.entries, adapter.changes)
    return replace(adapter, notes=(*adapter.notes, *further))


def read_weighted(
    files: Sequence[TensorFile], weights: Sequence[float], how: weighted.Kind, manifest: Manifest
) -> Adapter:
    """Several adapters of LoRA as one, each with its weight.

    Args:
        files: the tensors of each.
        weights: as many numbers.
        how: see `weighted`.
        manifest: the version.

    Raises:
        UsageError: one is none of LoRA, or they do not fit the version, or each other.
    """
    tensors = _tensors(manifest)
    found = []
    for file, weight in zip(files, weights, strict=True):
        kind = others.looks_like(file) or peft.looks_like(file)
        beside = file.path.with_name(peft.CONFIG)
        if kind is None:
            raise _no_adapter(file, beside)
        if kind != "lora":
            raise refuse(
                file.path, f"is an adapter of type {kind}: only those of LoRA have weights"
            )
        config = peft.read_config(beside)
        adapter = peft.bind(file, config, kind, tensors)
        found.append(weighted.Weighted(file.path, config, adapter, weight))
    joined = weighted.joined(found, how, tensors)
    notes = list(joined.notes)
    notes += [
        f"{corrections.NAME} of {file.path.parent} is left out: it is for its factors alone"
        for file in files
        if file.path.with_name(corrections.NAME).exists()
    ]
    further = tied.notes(manifest.entries, joined.changes)
    return replace(joined, notes=(*notes, *further))


def _tensors(manifest: Manifest) -> dict[str, TensorInfo]:
    """The tensors of a version, by name."""
    return {entry.tensor.name: entry.tensor for entry in manifest.entries if not entry.opaque}


def _no_adapter(file: TensorFile, config: Path) -> UsageError:
    """The error of a file that is no adapter; by its type's name where its settings state one."""
    if config.exists():
        peft.check_type(file.path, peft.read_config(config))
    for name in file:
        for part, tool in _FOREIGN.items():
            if part in name:
                return refuse(
                    file.path,
                    f"is a LoRA in the layout of {tool} ({printable(name)!r}), not that of PEFT",
                    "merge it with the tool that made it, save the model, then: git add FILE",
                )
    return refuse(
        file.path,
        "is no adapter: expected tensors named …lora_A.weight, …ia3_l, …trainable_tokens_delta, or "
        "NAME.indices",
        "a whole checkpoint is added with: git add FILE",
    )
