"""Gram matrices of layers, with just as much of PyTorch's interface as is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from git_theta_ext.core.errors import UsageError
from git_theta_ext.merge.strategies.collect_statistics import gram


class _Tensor:
    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def detach(self) -> _Tensor:
        return self

    cpu = double = detach

    def numpy(self) -> np.ndarray:
        return self.values

    def __getitem__(self, key: Any) -> _Tensor:
        return _Tensor(self.values[key])


class _Convolution:
    def __init__(self, weight: tuple[int, ...], groups: int = 1, stride: int = 1, pad: int = 0):
        self.weight, self.in_channels = _Tensor(np.zeros(weight)), weight[1] * groups
        self.groups, self.stride, self.padding = groups, (stride, stride), (pad, pad)
        self.hooks: list[Any] = []

    def register_forward_pre_hook(self, hook: Any) -> _Convolution:
        self.hooks.append(hook)
        return self

    def remove(self) -> None:
        self.hooks.clear()

    def named_modules(self) -> list[tuple[str, Any]]:
        return [("mix", self)]


def _run(layer: _Convolution, images: _Tensor) -> None:
    for hook in layer.hooks:
        hook(layer, (images,))


def test_convolutions_of_one_pixel_are_linear_layers() -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    for stride, seen in ((1, images), (2, images[:, :, ::2, ::2])):
        layer = _Convolution((6, 3, 1, 1), stride=stride)
        rows = seen.transpose(0, 2, 3, 1).reshape(-1, 3)
        found = gram(layer, [_Tensor(images)], _run)
        assert list(found) == ["mix.weight"]
        assert found["mix.weight"] == pytest.approx(rows.T @ rows / len(rows), rel=1e-6)
        assert not layer.hooks


@pytest.mark.parametrize(
    "layer",
    [_Convolution((6, 3, 3, 3)), _Convolution((3, 1, 1, 1), groups=3),
     _Convolution((6, 3, 1, 1), pad=1), _Convolution((6, 2, 1, 1))],
    ids=["more pixels", "groups", "padded", "other channels"],
)  # fmt: skip
def test_other_convolutions_are_left_out(layer: _Convolution) -> None:
    with pytest.raises(UsageError):
        gram(layer, [_Tensor(np.zeros((2, 3, 5, 4)))], _run)
