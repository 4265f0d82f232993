"""Trainers that commit: a callback for `transformers.Trainer`, which is never imported here.

    trainer = Trainer(..., callbacks=[CommitCallback()])

Every checkpoint that the trainer saves becomes a commit, with its metrics in the message.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from git_theta_ext.api.collecting import Collector, collect
from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.git.repository import Repository

_SHOWN = ("eval_loss", "loss", "train_loss")
_MODELS = (
    "model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin",
)  # fmt: skip
_LEFT_OUT = {"step", "epoch", "total_flos"}


class CommitCallback:
    """Commits the trainer's output folder after each save, as `git commit -- FOLDER` would.

    Only the output folder is committed: what else is staged stays so. Checkpoints that the trainer
    removed (`save_total_limit`) go from the tree and stay in history. Only the first process of a
    distributed run commits. A commit that fails is a warning; it does not end the training.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        push: str | None = None,
        strict: bool = False,
        statistics: Sequence[str] = (),
    ) -> None:
        """Settings.

        Args:
            prefix: what the first line of each message begins with, such as the run's name.
            push: a remote to push the branch to after each commit.
            strict: raise errors instead of warning.
            statistics: what is collected during training and committed beside each checkpoint, for
                merges: `fisher`, `gram`; see `collect`.
        """
        self._prefix = prefix
        self._push = push
        self._strict = strict
        self._statistics = tuple(statistics)
        self._collector: Collector | None = None

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
        """Take the hooks off the model.

        Args:
            args: not looked at.
            state: not looked at.
            control: not changed.
            others: not looked at.
        """
        if self._collector is not None:
            self._collector.close()
            self._collector = None

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Commit what was saved.

        Args:
            args: `transformers.TrainingArguments`, of which `output_dir` is read.
            state: `transformers.TrainerState`: step, epoch and the metrics logged so far.
            control: not changed.
            others: not looked at.

        Raises:
            ThetaError: Git refuses, if this is strict.
        """
        if not getattr(state, "is_world_process_zero", True):
            return
        self._write_statistics(Path(args.output_dir), state)
        try:
            made = commit_folder(Path(args.output_dir), self._message(state))
        except ThetaError as error:
            self._failed("the checkpoint was not committed", error)
            return
        if made is None or self._push is None:
            return
        try:
            _push(Path(args.output_dir), self._push)
        except ThetaError as error:
            self._failed(f"the checkpoint was committed and not pushed to {self._push}", error)

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

    def _message(self, state: Any) -> str:
        metrics = latest_metrics(state.log_history)
        shown = [f"{name} {metrics[name]:.4g}" for name in _SHOWN if name in metrics][:2]
        first = f"{self._prefix}{': ' if self._prefix else ''}step {state.global_step}"
        lines = [first + (f", {', '.join(shown)}" if shown else ""), ""]
        if state.epoch is not None:
            lines.append(f"epoch: {state.epoch:g}")
        lines += [f"{name}: {value:.9g}" for name, value in sorted(metrics.items())]
        return "\n".join(lines) + "\n"


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


def commit_folder(folder: Path, message: str, *, push: str | None = None) -> str | None:
    """Commit a folder as it is now, and nothing else; the commit's id, None if nothing changed.

    Args:
        folder: in a work tree.
        message: of the commit.
        push: a remote to push the current branch to.

    Raises:
        RepositoryError: Git refuses.
        UsageError: Git ignores everything in the folder.
    """
    repository = Repository.discover(folder)
    repository.git("add", "-A", "--", ".")
    if not repository.git("diff", "--cached", "--name-only", "-z", "--", "."):
        _require_seen(repository, folder)
        return None
    repository.git("commit", "--quiet", "-F", "-", "--", ".", stdin=message.encode())
    if push is not None:
        _push(folder, push)
    return repository.resolve("HEAD")


def _push(folder: Path, remote: str) -> None:
    Repository.discover(folder).git("push", "--quiet", "--", remote, "HEAD")


def _require_seen(repository: Repository, folder: Path) -> None:
    """Nothing to commit is no success where Git does not look at the folder at all."""
    if repository.git("ls-files", "-z", "--", "."):
        return
    if repository.git("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", "."):
        raise UsageError(
            f"Git ignores all of {str(folder)!r} (.gitignore)",
            hint="take its pattern out of .gitignore, or train into another folder",
        )
