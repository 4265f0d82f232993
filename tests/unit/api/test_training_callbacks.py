"""What callbacks refuse before a training begins, and how they stand between Lightning's parts.

The frameworks themselves: tests/optional/training_callbacks.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import git_theta_ext as theta
from git_theta_ext.api import lightning
from git_theta_ext.core.errors import UsageError


class Inner:
    """Lightning's own way to save: it says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        self.asked.append(("save", checkpoint["w"].copy(), path))

    def load_checkpoint(self, path: Any, weights_only: bool = False) -> Any:
        return path, weights_only

    def remove_checkpoint(self, path: Any) -> None:
        self.asked.append(("remove", path))

    def teardown(self) -> None:
        self.asked.append("teardown")


class FakeRun:
    """What the callback needs of a run; the write happens when it is waited for."""

    under_way: Path | None = None

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.settings, self.jobs = folder, settings, []
        self.saved: list[Any] = []

    def save_with(self, write: Any, value: Any, place: Path, *facts: Any, **more: Any) -> None:
        self.wait()
        self.jobs.append((write, {"w": value["w"].copy()}, place))
        self.under_way = place
        self.saved.append((place.name, *facts))

    def wait(self) -> None:
        for write, value, place in self.jobs:
            write(value, place)
        self.jobs.clear()

    finish = wait


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A callback of a Lightning that is not there."""
    package, plugins = ModuleType("lightning.pytorch"), ModuleType("lightning.pytorch.plugins.io")
    package.Callback = type("Callback", (), {})  # type: ignore[attr-defined]
    plugins.CheckpointIO = type("CheckpointIO", (), {})  # type: ignore[attr-defined]
    for one in (package, plugins):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    monkeypatch.setattr(lightning, "Run", FakeRun)
    lightning._classes.cache_clear()
    yield theta.LightningCallback(prefix="p")
    lightning._classes.cache_clear()


def fit(callback: Any, strategy: Any) -> Any:
    trainer = SimpleNamespace(
        strategy=strategy, callback_metrics={"loss": np.float32(0.5)}, global_step=7,
        current_epoch=1, is_global_zero=True,
    )  # fmt: skip
    callback.setup(trainer, None, "fit")
    return trainer


def test_lightning_saves_through_the_callback(callback: Any, tmp_path: Path) -> None:
    inner = Inner()
    trainer = fit(callback, SimpleNamespace(checkpoint_io=inner))
    saving, weight = trainer.strategy.checkpoint_io, np.ones(3)
    first, second = (tmp_path / f"version_3/checkpoints/{n}.ckpt" for n in "ab")
    saving.save_checkpoint({"w": weight}, str(first))
    weight += 1  # the training goes on
    assert inner.asked == []
    run = callback._run
    assert (run.settings["branch"], run.settings["prefix"]) == ("runs/version_3", "p")
    assert run.saved == [("a.ckpt", 7, {"loss": 0.5})]
    saving.save_checkpoint({"w": weight}, str(second))
    assert [(what, value.tolist()) for what, value, _ in inner.asked] == [("save", [1, 1, 1])]
    first.parent.mkdir(parents=True)
    beside = first.with_name("a.fisher.safetensors")
    beside.write_bytes(b"")
    saving.remove_checkpoint(str(first))  # not the one that is written: it is not waited for
    assert inner.asked[1:] == [("remove", str(first))]
    assert not beside.exists()
    assert saving.load_checkpoint("c", weights_only=True) == ("c", True)
    assert inner.asked[2][1].tolist() == [2, 2, 2]
    callback.teardown(trainer, None, "fit")
    assert trainer.strategy.checkpoint_io is inner


def test_strategies_that_write_by_themselves_are_refused(callback: Any) -> None:
    strategy = type("Mine", (type("FSDPStrategy", (), {"checkpoint_io": None}),), {})()
    with pytest.raises(UsageError, match="writes its checkpoints by itself"):
        fit(callback, strategy)


def test_settings_that_need_a_branch() -> None:
    for settings in ({"keep": "last:1"}, {"squash": True}, {"busy": "skip"}):
        with pytest.raises(UsageError, match="needs branch="):
            theta.CommitCallback(**settings)


def test_what_keras_has_no_statistics_of() -> None:
    with pytest.raises(UsageError, match=r"no gram statistics of Keras"):
        theta.KerasCallback("out", statistics=("fisher", "gram"))
    with pytest.raises(UsageError, match=r"are \('fisher',\)"):
        theta.KerasCallback("out", statistics=("hessian",))
    with pytest.raises(UsageError, match="Keras writes no"):
        theta.KerasCallback("out", file="model.pt")
