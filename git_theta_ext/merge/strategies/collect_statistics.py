"""Measure what Fisher and RegMean need, with the user's own model and data.

Nothing here imports a framework: a model is whatever has PyTorch's `named_modules`,
`named_parameters` and `register_forward_pre_hook`, a tensor whatever has `detach`, `cpu`, `numpy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.core.errors import UsageError
from git_theta_ext.merge.strategies.measured import MAX_WIDTH

Kind = Literal["gram", "fisher"]
Step = Callable[[Any, Any], Any]
"""What is done with the model and one batch."""
Rows = Callable[[Any], NDArray[np.float64] | None]
"""Takes a layer's input as rows; None if it does not fit the layer."""


def _array(tensor: Any) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.asarray(tensor.detach().cpu().double().numpy(), np.float64)
    return found


def gram(
    model: Any, batches: Iterable[Any], forward: Step, limit: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """The mean of x·xᵀ over all inputs of every linear layer, in × in, named as its weight.

    A convolution of one pixel is a linear layer of the channels, at each place that it looks at.

    Args:
        model: in evaluation mode, if it has one.
        batches: of data that is like what the model was trained on; a few hundred samples do.
        forward: runs the model on a batch; what it returns does not matter.
        limit: batches taken at most.

    Raises:
        UsageError: no layer saw an input.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    rows: dict[str, int] = {}
    handles = []

    def watch(name: str, rows_of: Rows) -> Callable[[Any, Any], None]:
        def hook(module: Any, inputs: Any) -> None:
            samples = rows_of(inputs[0]) if inputs else None
            if samples is None:
                return
            sums[name] = sums.get(name, 0.0) + samples.T @ samples
            rows[name] = rows.get(name, 0) + len(samples)

        return hook

    for name, module in model.named_modules():
        rows_of = _rows_of(module)
        if rows_of is not None:
            key = f"{name}.weight" if name else "weight"
            handles.append(module.register_forward_pre_hook(watch(key, rows_of)))
    try:
        for batch in islice(batches, limit):
            forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    if not sums:
        raise UsageError("no linear layer of the model saw an input")
    return {name: (total / rows[name]).astype(np.float32) for name, total in sums.items()}


def _rows_of(module: Any) -> Rows | None:
    """What takes the rows that a layer multiplies from its input; None if it is not linear."""
    width = linear_width(module)
    steps: tuple[int, ...] = ()
    if width is None:
        width, steps = pointwise_width(module), tuple(getattr(module, "stride", ()))
    if width is None:
        return None
    axis, least = (1, 2 + len(steps)) if steps else (-1, 1)

    def rows_of(tensor: Any) -> NDArray[np.float64] | None:
        shape = tuple(getattr(tensor, "shape", ()))
        if len(shape) < least or shape[axis] != width:
            return None
        looked_at = (slice(None), slice(None), *(slice(None, None, step) for step in steps))
        values = _array(tensor[looked_at] if steps else tensor)
        return np.moveaxis(values, axis, -1).reshape(-1, width)

    return rows_of


def pointwise_width(module: Any) -> int | None:
    """The channels that a convolution of one pixel mixes, or None if it is none."""
    width = getattr(module, "in_channels", None)
    shape = tuple(getattr(getattr(module, "weight", None), "shape", ()))
    plain = getattr(module, "groups", 1) == 1 and not getattr(module, "transposed", False)
    pixel = len(shape) > 2 and shape[1] == width and all(size == 1 for size in shape[2:])
    unpadded = getattr(module, "padding", None) in ("valid", "same", (0,) * (len(shape) - 2))
    fits = isinstance(width, int) and pixel and plain and unpadded
    return width if fits and isinstance(width, int) and width <= MAX_WIDTH else None


def linear_width(module: Any) -> int | None:
    """The inputs of a linear layer (it has `in_features` and a matrix of that width), or None."""
    width = getattr(module, "in_features", None)
    shape = tuple(getattr(getattr(module, "weight", None), "shape", ()))
    fits = isinstance(width, int) and len(shape) == 2 and shape[1] == width
    return width if fits and isinstance(width, int) and width <= MAX_WIDTH else None


def fisher(
    model: Any, batches: Iterable[Any], loss: Step, limit: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """The mean of the squared gradients over batches, for every parameter, in its shape.

    The smaller the batches, the nearer it is to the diagonal of the empirical Fisher information.

    Args:
        model: its parameters are named as the checkpoint's tensors.
        batches: of data that is like what the model was trained on.
        loss: the loss of a batch, a scalar with `backward()`.
        limit: batches taken at most.

    Raises:
        UsageError: there was no batch, or no parameter got a gradient.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    count = 0
    for batch in islice(batches, limit):
        model.zero_grad()
        loss(model, batch).backward()
        count += 1
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                sums[name] = sums.get(name, 0.0) + np.square(_array(parameter.grad))
    model.zero_grad()
    if not sums:
        raise UsageError("no parameter of the model got a gradient")
    return {name: (total / count).astype(np.float32) for name, total in sums.items()}
