"""Trained tokens of PEFT: rows of an embedding that are replaced.

`trainable_token_indices` of a LoRA, or `token_indices` of an adapter of that type, say which; the
values are the new rows, not what is added to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from git_theta_ext.checkpoints.adapters.base import memory_matrix, refuse
from git_theta_ext.checkpoints.adapters.changes import EntriesChange
from git_theta_ext.checkpoints.adapters.files import TensorFile, to_values
from git_theta_ext.core.tensors import TensorInfo


def tokens(
    file: TensorFile, config: Mapping[str, Any], module: str, stored: str, tensor: TensorInfo
) -> EntriesChange:
    """Rows of an embedding that get new values.

    Args:
        file: the adapter's tensors.
        config: its settings, which say the rows.
        module: the embedding.
        stored: the name of the rows' values in the file.
        tensor: the checkpoint's.

    Raises:
        UsageError: rows and values do not fit together, or the tensor.
    """
    info = file.info(stored)
    rows = _indices(file, config, module)
    if len(tensor.shape) != 2 or info.shape != (len(rows), tensor.shape[1]):
        raise refuse(
            file.path,
            f"tensor {stored!r} of shape {list(info.shape)} does not fit {len(rows)} tokens of "
            f"tensor {tensor.name!r} of shape {list(tensor.shape)}",
        )
    wrong = [row for row in rows if not 0 <= row < tensor.shape[0]]
    if wrong:
        raise refuse(file.path, f"trains token {wrong[0]}; {tensor.name!r} has {tensor.shape[0]}")
    listed = TensorInfo(tensor.name, tensor.dtype, info.shape)
    values = to_values(file, stored, listed)
    row = np.repeat(np.array(rows, np.int64), tensor.shape[1])
    column = np.tile(np.arange(tensor.shape[1]), len(rows))
    turned = memory_matrix(tensor)[2]
    places = column * tensor.shape[0] + row if turned else row * tensor.shape[1] + column
    order = np.argsort(places)
    return EntriesChange(places[order], values[order], adds=False)


def _indices(file: TensorFile, config: Mapping[str, Any], module: str) -> list[int]:
    """The rows that were trained: each once, but they may not exist in the tensor."""
    found = config.get("trainable_token_indices", config.get("token_indices"))
    if isinstance(found, dict):
        fitting = [key for key in found if f".{module}".endswith(f".{key}")]
        if len(fitting) != 1:
            raise refuse(
                file.path,
                f"trains tokens of module {module!r}, and trainable_token_indices names "
                f"{', '.join(sorted(map(repr, found)))}",
            )
        found = found[fitting[0]]
    if not isinstance(found, list) or not all(type(one) is int for one in found):
        raise refuse(
            file.path,
            f"trains tokens of module {module!r}, and its settings do not say which: "
            "trainable_token_indices or token_indices",
        )
    if len(set(found)) != len(found):
        raise refuse(file.path, f"names a token of module {module!r} twice")
    return found
