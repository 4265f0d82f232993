"""A callback for Keras 3 that saves a model after epochs and commits it; imported when it is made.

    model.fit(..., callbacks=[theta.KerasCallback("out/lr", keep="best:3", metric="val_loss")])

Keras writes the file itself, from the variables that it trains, so that the training waits for
that. It is committed beside the training.
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.api.collecting import Held
from git_theta_ext.api.runs.run import Busy, Run
from git_theta_ext.checkpoints.optimizers.fisher import Fisher, opened
from git_theta_ext.core import advice, files
from git_theta_ext.core.errors import StoreError, UsageError


def keras_callback(
    folder: str | PathLike[str],
    *,
    file: str = "epoch-{epoch:03d}.keras",
    every: int = 1,
    branch: str = "runs/{name}",
    start: str = "HEAD",
    keep: str | None = None,
    metric: str | None = None,
    mode: Literal["min", "max"] = "min",
    squash: bool = False,
    push: str | None = None,
    busy: Busy = "wait",
    prefix: str = "",
    statistics: Sequence[str] = (),
    active: bool = True,
) -> Any:
    """A callback of Keras 3, of any backend, that saves the model after epochs and commits it.

    The commit is made while the training goes on, on a branch of the run's own; see `Run`. An error
    of a commit is raised after the next epoch that is saved, or at the end of the training.

    Args:
        folder: where the files are written, in a work tree.
        file: their name; `{epoch}` is counted from 1. `NAME.keras` is written by `model.save`,
            `NAME.weights.h5` by `model.save_weights`.
        every: how many epochs lie between two saves.
        branch, start, keep, metric, mode, squash, push, busy, prefix, active: as for `Run`; metrics
            are those that Keras logs, such as `val_loss`.
        statistics: `fisher`: the second moments of Adam and its like, committed beside each file.
            Not `gram`: RegMean takes weights of shape (outputs, inputs), and those of Keras' layers
            are (inputs, outputs).

    Raises:
        UsageError: Keras is not installed, or a setting cannot be used.
    """
    if "gram" in statistics:
        raise UsageError(
            "no gram statistics of Keras models: RegMean takes weights of shape (outputs, inputs), "
            "and Keras' are (inputs, outputs)",
            hint="statistics=('fisher',)",
        )
    if set(statistics) - {"fisher"} or isinstance(statistics, str):
        raise UsageError(f"statistics of Keras models are ('fisher',), not {statistics!r}")
    if not file.endswith((".keras", ".weights.h5")) or every < 1:
        raise UsageError(
            f"Keras writes no {file!r} every {every} epochs",
            hint="file='epoch-{epoch:03d}.keras' or '….weights.h5', every= a number from 1",
        )
    run = Run(
        folder, branch=branch, start=start, keep=keep, metric=metric, mode=mode, squash=squash,
        push=push, busy=busy, prefix=prefix, active=active,
    )  # fmt: skip
    return _class()(run, file, every, bool(statistics))


@cache
def _class() -> Any:
    try:
        keras: Any = importlib.import_module("keras")
    except ImportError as error:
        raise UsageError("Keras is not installed", hint=advice.install_other("keras")) from error
    return type("KerasCallback", (_Callback, keras.callbacks.Callback), {})


class _Callback:
    """What the callback does; its class is also Keras'."""

    model: Any

    def __init__(self, run: Run, file: str, every: int, fisher: bool) -> None:
        super().__init__()
        self.run, self._file, self._every, self._fisher = run, file, every, fisher

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save and begin to commit, if it is time."""
        if (epoch + 1) % self._every or not self.run.ready():
            return
        place = self.run.folder / self._file.format(epoch=epoch + 1)
        _save(self.model, place)
        beside: list[Path] = []
        if self._fisher:
            beside = _write_fisher(self.model, place)
        step = int(self.model.optimizer.iterations)
        self.run.commit(place, step, logs, epoch=epoch + 1, beside=beside)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Wait for the last commit; raise what went wrong."""
        self.run.finish()


def _save(model: Any, place: Path) -> None:
    """Have Keras write a file under another name, and give it its own when it is whole."""
    ending = ".weights.h5" if place.name.endswith(".weights.h5") else ".keras"
    hidden = place.with_name(f".{secrets.token_hex(8)}{ending}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        (model.save if ending == ".keras" else model.save_weights)(hidden)
        files.move(hidden, place)
    except OSError as error:
        files.remove_quietly(hidden)
        raise StoreError(f"cannot write {place}: {error.strerror or error}") from error


class _Read:
    """A statistic that is read from the file when it is written."""

    def __init__(self, found: Fisher, name: str) -> None:
        self._found, self._name = found, name

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self._found.shape(self._name)

    def get(self) -> NDArray[np.float32]:
        """It."""
        return self._found.read(self._name)


def _write_fisher(model: Any, place: Path) -> list[Path]:
    """Write Adam's second moments, which Keras has saved with the model, beside its file.

    Raises:
        UsageError: the optimizer is not like Adam, or a variable cannot be told with certainty.
    """
    beta = getattr(model.optimizer, "beta_2", None)
    with opened(place, [place], None, None if beta is None else float(beta)) as found:
        return Held({"fisher": {name: _Read(found, name) for name in found.moments}}).write(place)
