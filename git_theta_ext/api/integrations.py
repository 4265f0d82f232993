"""Trainers that commit: a callback for `transformers.Trainer`, which is never imported here.

    trainer = Trainer(..., callbacks=[CommitCallback()])

Every checkpoint that the trainer saves becomes a commit, with its metrics in the message.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from git_theta_ext.api.collecting import Collector, collect
from git_theta_ext.api.runs import messages
from git_theta_ext.api.runs.current import commit_paths, push_current
from git_theta_ext.api.runs.run import Busy, Run
from git_theta_ext.api.runs.worker import Worker
from git_theta_ext.core.errors import ThetaError, UsageError

_MODELS = (
    "model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin",
)  # fmt: skip
_LEFT_OUT = {"step", "epoch", "total_flos"}
_NEED_BRANCH = {"keep": None, "metric": None, "squash": False, "busy": "wait"}


class CommitCallback:
    """Commits each checkpoint that the trainer has saved, while the training goes on.

    Without `branch`, as `git commit -- CHECKPOINT` on the branch that is checked out: what else is
    staged stays so. With it, on a branch of the run's own; see `Run`. Checkpoints that the trainer
    removed (`save_total_limit`) go from the tree and stay in history. Only the first process of a
    distributed run commits. The next save waits for the commit of the one before. A commit that
    fails is a warning at the next save, and an error when the training has ended.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        push: str | None = None,
        strict: bool = False,
        statistics: Sequence[str] = (),
        branch: str | None = None,
        keep: str | None = None,
        metric: str | None = None,
        mode: Literal["min", "max"] = "min",
        squash: bool = False,
        busy: Busy = "wait",
    ) -> None:
        """Settings.

        Args:
            prefix: what the first line of each message begins with, such as the run's name.
            push: a remote to push the branch to after each commit.
            strict: raise errors at the next save instead of warning.
            statistics: what is collected during training and committed beside each checkpoint, for
                merges: `fisher`, `gram`; see `collect`.
            branch: the run's own branch, such as `runs/{name}`, where `{name}` is the output
                folder's name. Metrics are kept as scores then.
            keep, metric, mode, squash, busy: with `branch`: as for `Run`.

        Raises:
            UsageError: a setting needs a branch.
        """
        given = {"keep": keep, "metric": metric, "squash": squash, "busy": busy}
        for name, value in given.items():
            if branch is None and value != _NEED_BRANCH[name]:
                raise UsageError(f"{name}= needs branch=, such as branch='runs/{{name}}'")
        self._prefix = prefix
        self._push = push
        self._strict = strict
        self._statistics = tuple(statistics)
        self._collector: Collector | None = None
        self._failures: list[ThetaError] = []
        self._worker = Worker("theta.CommitCallback")
        self._run: Run | None = None
        self._open: Callable[[str], Run] | None = None
        if branch is not None:
            self._open = partial(
                Run, branch=branch, keep=keep, metric=metric, mode=mode, squash=squash, push=push,
                busy=busy, prefix=prefix,
            )  # fmt: skip

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Begin to collect statistics, if they were asked for.

        Args:
            args: not looked at.
            state: `transformers.TrainerState`; only the first process collects.
            control: not changed.
            others: `model` and `optimizer`.

        Raises:
            ThetaError: they cannot be collected, if this is strict.
        """
        if not self._statistics or not getattr(state, "is_world_process_zero", True):
            return
        try:
            if others.get("model") is None:
                raise UsageError("the trainer named no model")
            self._collector = collect(
                others["model"], self._statistics, optimizer=others.get("optimizer")
            )
        except ThetaError as error:
            self._failed("no statistics are collected", error)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Wait for the last commit, and take the hooks off the model.

        Args:
            args: not looked at.
            state: not looked at.
            control: not changed.
            others: not looked at.

        Raises:
            ThetaError: a checkpoint was not committed, or not pushed.
        """
        if self._collector is not None:
            self._collector.close()
            self._collector = None
        run, self._run = self._run, None
        try:
            (self._worker.wait if run is None else run.finish)()
        except ThetaError as error:
            self._failures.append(error)
        failures, self._failures = self._failures, []
        if failures:
            failures[-1].add_note(f"errors of commits in this training: {len(failures)}")
            raise failures[-1]

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Wait for the commit that is under way, if the trainer is about to save.

        It may remove the checkpoint that is being committed.

        Args:
            args: not looked at.
            state: not looked at.
            control: `transformers.TrainerControl`, of which `should_save` is read.
            others: not looked at.
        """
        if self._open is None and getattr(control, "should_save", False):
            self._worker.join()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """As `on_step_end`.

        Args:
            args, state, control, others: as there.
        """
        self.on_step_end(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Begin to commit what was saved.

        Args:
            args: `transformers.TrainingArguments`, of which `output_dir` is read.
            state: `transformers.TrainerState`: step, epoch and the metrics logged so far.
            control: not changed.
            others: not looked at.

        Raises:
            ThetaError: the checkpoint before was not committed, if this is strict.
        """
        if not getattr(state, "is_world_process_zero", True):
            return
        folder = Path(args.output_dir)
        self._write_statistics(folder, state)
        metrics = latest_metrics(state.log_history)
        try:
            if self._open is None:
                self._on_current_branch(folder, state, metrics)
            else:
                self._on_own_branch(folder, state, metrics)
        except ThetaError as error:
            self._failures.append(error)
            self._failed("a checkpoint was not committed", error)

    def _on_current_branch(self, folder: Path, state: Any, metrics: Mapping[str, float]) -> None:
        step, prefix, push = state.global_step, self._prefix, self._push
        message = messages.compose(step, metrics, prefix=prefix, epoch=state.epoch)

        def job() -> None:
            made = commit_paths(folder, f"checkpoint-{step}", message)
            if made is not None and push is not None:
                push_current(folder, push)

        try:
            self._worker.wait()
        finally:  # that the one before failed is no reason to leave this one out
            self._worker.start(job)

    def _on_own_branch(self, folder: Path, state: Any, metrics: Mapping[str, float]) -> None:
        place, step = folder / f"checkpoint-{state.global_step}", state.global_step
        if self._run is None and self._open is not None:
            self._run = self._open(str(folder))
        if self._run is None:
            return
        try:
            ready = self._run.ready()
        except ThetaError:  # that the one before failed is no reason to leave this one out
            self._run.commit(place, step, metrics, epoch=state.epoch)
            raise
        if ready:
            self._run.commit(place, step, metrics, epoch=state.epoch)

    def _write_statistics(self, folder: Path, state: Any) -> None:
        """Write what was collected beside the model that was just saved."""
        if self._collector is None:
            return
        folder = folder / f"checkpoint-{state.global_step}"
        try:
            for name in _MODELS:
                if (folder / name).is_file():
                    self._collector.write(folder / name)
                    return
            raise UsageError(f"there is no model in {folder}: {', '.join(_MODELS)}")
        except ThetaError as error:
            self._failed("the statistics were not written", error)

    def _failed(self, what: str, error: ThetaError) -> None:
        if self._strict:
            raise error
        warnings.warn(f"{what}: {error}", stacklevel=3)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The other events of a trainer, of which nothing is made."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def _nothing(*arguments: Any, **others: Any) -> None:
    """Do nothing."""


def latest_metrics(history: list[Mapping[str, Any]]) -> dict[str, float]:
    """The newest value of each number that a trainer logged."""
    found: dict[str, float] = {}
    for record in history:
        for name, value in record.items():
            if isinstance(value, int | float) and name not in _LEFT_OUT:
                found[str(name)] = float(value)
    return found
