"""The files of a checkpoint that a run writes itself: what stands under which name."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.write import ArraysSource, container_of
from git_theta_ext.core.errors import StoreError, UsageError
from git_theta_ext.core.pytorch import is_torch, write_saved
from git_theta_ext.core.text import printable
from git_theta_ext.git.work_tree import WorkTree, parts_of

_TORCH = (".pt", ".pth", ".bin", ".ckpt", ".tar")


def check(files: Mapping[str, Any]) -> None:
    """Refuse what could not be written later, while the training can still say so.

    Args:
        files: contents by name: of tensors by name for `.safetensors`, `.npz` and `.gguf`, anything
            that `torch.save` takes for `.pt`, `.pth`, `.bin`, `.ckpt` and `.tar`, text, bytes, or
            what JSON has for `.json`.

    Raises:
        UsageError: a name is none, or its content is not of its kind.
    """
    if not files:
        raise UsageError("there is nothing to save")
    for name, content in files.items():
        try:
            parts_of(name)
        except StoreError as error:
            raise UsageError(f"{printable(str(name))!r} is no name for a file") from error
        if isinstance(content, str | bytes) or name.endswith(".json"):
            continue
        if _by_torch(name):
            continue
        if container_of(name) is None:
            raise UsageError(
                f"nothing is known of how to write {printable(name)}",
                hint="name it model.safetensors, optimizer.pt, state.json, or give its bytes",
            )
        if not isinstance(content, Mapping):
            raise UsageError(f"{printable(name)} takes tensors by name, not {type(content)}")
        for key, one in content.items():
            if not is_torch(one) and not isinstance(one, np.ndarray | np.generic):
                raise UsageError(
                    f"{printable(name)} takes tensors by name; {key!r} is {type(one).__name__}",
                    hint="keep what is more than tensors as optimizer.pt",
                )


def write(top: Path, folder: str, files: Mapping[str, Any]) -> None:
    """Write the files of a checkpoint, each whole or not at all.

    Args:
        top: of the work tree.
        folder: from the top.
        files: as for `check`; not changed meanwhile.

    Raises:
        UsageError: an array cannot be stored, or a value is not JSON's.
        StoreError: the disk is full, or the way there leads over a link.
    """
    tree = WorkTree(top)
    for name, content in files.items():
        try:
            with tree.replacing(f"{folder}/{name}") as file:
                if isinstance(content, str | bytes):
                    file.write(content.encode() if isinstance(content, str) else content)
                elif name.endswith(".json"):
                    file.write(_json(name, content))
                elif _by_torch(name):
                    write_saved(content, file)
                else:
                    ArraysSource(content, {}, container_of(name) or "").write(file)
        except OSError as error:
            raise StoreError(f"cannot write {name}: {error.strerror or error}") from error


def _by_torch(name: str) -> bool:
    """Whether torch writes it; where there is no torch, a `.pt` of arrays can be written too."""
    return name.endswith(_TORCH) and ("torch" in sys.modules or container_of(name) is None)


def _json(name: str, content: Any) -> bytes:
    try:
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{printable(name)} cannot be written as JSON: {error}") from error
