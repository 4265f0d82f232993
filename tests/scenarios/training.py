"""A linear layer that is trained: as much of PyTorch's interface as hooks need, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Tensor:
    """An array with the methods of a torch tensor that statistics use."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, np.float32)
        self.requires_grad = True
        self.hooks: list[Callable[[Tensor], None]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def T(self) -> Tensor:
        return Tensor(self.values.T)

    def detach(self) -> Tensor:
        return self

    cpu = float = detach

    def numpy(self) -> Any:
        return self.values

    def reshape(self, *shape: int) -> Tensor:
        return Tensor(self.values.reshape(shape))

    def mul_(self, by: float) -> Tensor:
        self.values = self.values * np.float32(by)
        return self

    def add_(self, other: Tensor) -> Tensor:
        self.values = self.values + other.values
        return self

    def __mul__(self, other: Tensor) -> Tensor:
        return Tensor(self.values * other.values)

    def __matmul__(self, other: Tensor) -> Tensor:
        return Tensor(self.values @ other.values)

    def __truediv__(self, by: float) -> Tensor:
        return Tensor(self.values / np.float32(by))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, where: Any) -> Tensor:
        return Tensor(self.values[where])

    def register_hook(self, hook: Callable[[Tensor], None]) -> Handle:
        return Handle(self.hooks, hook)

    def backward(self, gradient: Any) -> None:
        """A gradient arrives."""
        for hook in self.hooks:
            hook(Tensor(gradient))


class Handle:
    """What takes a hook off."""

    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self.hooks, self.hook = hooks, hook
        hooks.append(hook)

    def remove(self) -> None:
        self.hooks.remove(self.hook)


class Model:
    """A module with one linear layer, `layer`, below it."""

    def __init__(self, name: str, weight: Any) -> None:
        self.name, self.weight = name, Tensor(weight)
        self.training = True
        self.in_features = self.weight.shape[1]
        self.outer: list[Any] = []
        self.inner: list[Any] = []

    def register_forward_pre_hook(self, hook: Any) -> Handle:
        return Handle(self.outer, hook)

    def named_modules(self) -> list[tuple[str, Any]]:
        layer = _Layer(self)
        return [("", object()), (self.name, layer)]

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        return [(f"{self.name}.weight", self.weight)]

    def step(self, inputs: Any, gradient: Any) -> None:
        """Run a batch forwards and backwards."""
        for hook in self.outer:
            hook(self, (Tensor(inputs),))
        for hook in self.inner:
            hook(self, (Tensor(inputs),))
        self.weight.backward(gradient)


class _Layer:
    def __init__(self, model: Model) -> None:
        self.weight, self.in_features = model.weight, model.in_features
        self._hooks = model.inner

    def register_forward_pre_hook(self, hook: Any) -> Handle:
        return Handle(self._hooks, hook)


class Adam:
    """An optimizer with the second moment of a model's weight."""

    def __init__(self, model: Model) -> None:
        self.state: dict[Any, dict[str, Any]] = {}
        self.param_groups = [{"params": [model.weight], "betas": (0.9, 0.99)}]
        self._weight = model.weight

    def step(self, moment: Any, step: int) -> None:
        """What it keeps after so many steps."""
        self.state[self._weight] = {"exp_avg_sq": Tensor(moment), "step": step}
