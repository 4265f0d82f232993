"""A callback for Lightning that commits what `ModelCheckpoint` saves; imported when it is made.

    trainer = Trainer(..., callbacks=[ModelCheckpoint(...), theta.LightningCallback()])

Lightning gives every checkpoint to its `CheckpointIO`. The callback puts one of its own around
that: it copies the checkpoint into this machine's memory and returns, and a thread has the file
written and commits it.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from git_theta_ext.api.collecting import KINDS, Collector, collect
from git_theta_ext.api.runs.run import Run
from git_theta_ext.core import advice
from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.merge.combine.statistics import statistics_path

_OWN_FILES = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
_ORDINARY = "checkpoints"


def lightning_callback(
    *,
    branch: str = "runs/{name}",
    start: str = "HEAD",
    keep: str | None = None,
    metric: str | None = None,
    mode: Literal["min", "max"] = "min",
    squash: bool = False,
    push: str | None = None,
    prefix: str = "",
    statistics: Sequence[str] = (),
) -> Any:
    """A callback of Lightning (`lightning` or `pytorch_lightning`) that commits its checkpoints.

    Each file that a `ModelCheckpoint` saves is written and committed while the training goes on, on
    a branch of the run's own; see `Run`. The next save waits for the one before. What
    `ModelCheckpoint` removes (`save_top_k`) leaves the branch's tip and stays in its history,
    unless `keep` says what the tip has. An error of a commit is raised by the next save, or when
    the fit has ended.

    Args:
        branch: its name; `{name}` stands for the name of the folder with the checkpoints, or of the
            one above where that is called `checkpoints`.
        start, keep, metric, mode, squash, push, prefix: as for `Run`; metrics are those that were
            logged (`trainer.callback_metrics`).
        statistics: `fisher`, `gram`: collected during the training and committed beside each
            checkpoint, as with `collect`.

    Raises:
        UsageError: Lightning is not installed. When the fit begins: its strategy writes its files
            by itself, in many processes (FSDP, DeepSpeed).
    """
    settings = {
        "branch": branch, "start": start, "keep": keep, "metric": metric, "mode": mode,
        "squash": squash, "push": push, "prefix": prefix,
    }  # fmt: skip
    return _classes()[0](settings, tuple(statistics))


@cache
def _classes() -> tuple[Any, Any]:
    """The classes of the callback and of what saves for it, made from Lightning's."""
    name = next((one for one in _PACKAGES if one in sys.modules), None)
    for one in _PACKAGES if name is None else (name,):
        try:
            package: Any = importlib.import_module(one)
            plugins: Any = importlib.import_module(f"{one}.plugins.io")
            break
        except ImportError:
            continue
    else:
        raise UsageError("Lightning is not installed", hint=advice.install_other("lightning"))
    callback = type("LightningCallback", (_Callback, package.Callback), {})
    return callback, type("BackgroundCheckpointIO", (_Saving, plugins.CheckpointIO), {})


class _Callback:
    """What the callback does; its class is also Lightning's."""

    def __init__(self, settings: dict[str, Any], statistics: tuple[str, ...]) -> None:
        self._settings = settings
        self._statistics = statistics
        self._collector: Collector | None = None
        self._run: Run | None = None
        self._saving: Any = None
        self._trainer: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stand between the trainer and its files."""
        if stage != "fit":
            return
        for kind in type(trainer.strategy).__mro__:
            if kind.__name__ in _OWN_FILES:
                raise UsageError(
                    f"{kind.__name__} writes its checkpoints by itself, in many processes",
                    hint="commit them when they are there: theta.Run(...).commit(FOLDER, STEP)",
                )
        self._trainer = trainer
        self._saving = _classes()[1](self, trainer.strategy.checkpoint_io)
        trainer.strategy.checkpoint_io = self._saving

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to collect."""
        if self._statistics and trainer.is_global_zero:
            optimizer = trainer.optimizers[0] if len(trainer.optimizers) == 1 else None
            self._collector = collect(pl_module, self._statistics, optimizer=optimizer)

    def on_train_batch_start(self, *arguments: Any) -> None:
        """A step calls the model's parts, not always the model."""
        if self._collector is not None:
            self._collector.begin()

    def on_train_batch_end(self, *arguments: Any) -> None:
        """What is run between two batches of the training is none."""
        if self._collector is not None:
            self._collector.pause()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Wait for the last commit; raise what went wrong."""
        if self._saving is None:
            return
        trainer.strategy.checkpoint_io = self._saving.inner
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Wait for the last commit; the training's own error is raised."""
        try:
            self._finish()
        except ThetaError as error:
            warnings.warn(f"besides, a checkpoint was not committed: {error}", stacklevel=2)

    def _finish(self) -> None:
        if self._collector is not None:
            self._collector.close()
        run, self._run, self._collector = self._run, None, None
        if run is not None:
            run.finish()

    def begin(self, write: Any, checkpoint: Any, place: Path) -> None:
        """Have a checkpoint written and committed."""
        trainer = self._trainer
        if self._run is None:
            self._run = self._opened(place.parent)
        held = None if self._collector is None else self._collector.held()
        metrics = dict(trainer.callback_metrics)

        def job(copied: Any, target: Path) -> None:
            write(copied)
            if held is not None:
                held.write(target)

        self._run.save_with(
            job, checkpoint, place, trainer.global_step, metrics, epoch=trainer.current_epoch,
            beside=_beside(place, self._statistics),
        )  # fmt: skip

    def _opened(self, folder: Path) -> Run:
        name = folder.parent.name if folder.name == _ORDINARY else folder.name
        settings = {**self._settings, "branch": self._settings["branch"].replace("{name}", name)}
        return Run(folder, **settings)

    def wait_for(self, place: Path | None) -> None:
        """Wait for the save that is under way, if it is of this file; None: of any."""
        if self._run is not None and (place is None or self._run.under_way == place):
            self._run.wait()


class _Saving:
    """What saves for the trainer: at once into memory, then into the file and the branch."""

    def __init__(self, callback: _Callback, inner: Any) -> None:
        super().__init__()
        self._callback, self.inner = callback, inner

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Copy the checkpoint; the rest is done in a thread."""
        place = Path(path).absolute()

        def write(copied: Any) -> None:
            self.inner.save_checkpoint(copied, path, storage_options=storage_options)

        self._callback.begin(write, checkpoint, place)

    def load_checkpoint(self, path: Any, *arguments: Any, **others: Any) -> Any:
        """Load a file, once it is there."""
        self._callback.wait_for(None)
        return self.inner.load_checkpoint(path, *arguments, **others)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a file, and the statistics beside it."""
        place = Path(path).absolute()
        self._callback.wait_for(place)
        self.inner.remove_checkpoint(path)
        for one in _beside(place, KINDS):
            if one.is_file():
                os.unlink(one)

    def teardown(self) -> None:
        """End what the trainer's own way of saving has begun."""
        self.inner.teardown()


def _beside(place: Path, kinds: Sequence[str]) -> list[Path]:
    return [place.with_name(statistics_path(place.name, kind)) for kind in kinds]
