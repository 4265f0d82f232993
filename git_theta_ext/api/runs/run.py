"""A training run that is committed while it goes on.

with theta.Run("out", keep="best:3,last:5", metric="loss") as run:
    for step, batch in enumerate(batches, 1):
        loss = train(model, optimizer, batch)
        if step % 100 == 0:
            run.save(step, {"model.safetensors": model.state_dict(),
                            "optimizer.pt": optimizer.state_dict()}, metrics={"loss": loss})
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from operator import index
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from git_theta_ext.api.runs import writing
from git_theta_ext.api.runs.branch import RunBranch, Settings
from git_theta_ext.api.runs.messages import numbers
from git_theta_ext.api.runs.own_folders import OwnFolders
from git_theta_ext.api.runs.policy import Saved, parse
from git_theta_ext.api.runs.snapshot import Snapshots
from git_theta_ext.api.runs.worker import Worker
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository

Busy = Literal["wait", "skip"]


class Run:
    """A branch on which each saved checkpoint becomes a commit, made beside the training.

    `save` copies what it is given into this machine's memory and returns; files and commit are made
    by a thread. One save is made at a time, so there is one copy at most. The user's own branch,
    index and work tree are not touched, but for the files that `save` writes. A training that is
    killed leaves the branch at its last whole commit. An error of a commit is raised by the next
    `save` or `commit`, or by `finish`.

    A branch that is there goes on: what it has saved counts for `keep`.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        branch: str = "runs/{name}",
        name: str = "checkpoint-{step}",
        start: str = "HEAD",
        keep: str | None = None,
        metric: str | None = None,
        mode: Literal["min", "max"] = "min",
        squash: bool = False,
        push: str | None = None,
        busy: Busy = "wait",
        prefix: str = "",
        scores: bool = True,
        active: bool = True,
    ) -> None:
        """Open the run's branch, or make it.

        Args:
            folder: where the run's checkpoints are, in a work tree; made when it is needed.
            branch: its name; `{name}` stands for the folder's. It is checked out nowhere.
            name: of a checkpoint's folder, for `save`. Without `{step}` each save takes the place
                of the one before: `git theta log` and `scores` of one path show the whole run.
            start: the revision that a new branch begins at. It has to have the `.gitattributes`
                that track the files of a checkpoint.
            keep: what the branch's tip keeps, such as `best:3,last:5,every:1000`: the best three by
                `metric`, the last five, and each of a step that 1000 divides. The newest stays
                always, all others stay in the history. None: the tip has what the folder has.
            metric: what the best are chosen by.
            mode: `min` where less of it is better, else `max`.
            squash: take what `keep` lets go out of the history too, so that `git theta prune` can
                free it: commits of this run only, and none that another branch, a tag or a remote
                has. Each checkpoint is stored on its own, not as an update of another one.
            push: a remote to push the branch to after each commit.
            busy: what a save does while one is under way: `wait`, or `skip` it.
            prefix: what each message begins with.
            scores: keep metrics as results, for `git theta scores`.
            active: False in all but one process of a distributed run: nothing is done then.

        Raises:
            UsageError: a setting cannot be used, or another process has the branch.
            RepositoryError: there is no repository, or the branch is checked out.
        """
        self.active = active
        self._busy = busy
        if busy not in ("wait", "skip"):
            raise UsageError(f"busy is wait or skip, not {busy!r}")
        policy = None if keep is None else parse(keep, metric, mode)
        if policy is not None and "{step}" not in name:
            raise UsageError(
                f"with name={name!r} every save takes the place of the one before; there is "
                "nothing for keep= to choose from"
            )
        if squash and policy is None:
            raise UsageError("squash=True takes out what keep= lets go; there is no keep=")
        if squash and push is not None:
            raise UsageError("squash=True rewrites the branch, and push= publishes it: choose one")
        self.folder = _absolute(folder)
        self.branch = branch.replace("{name}", self.folder.name)
        self._name = name
        self._own: OwnFolders | None = None
        self._under_way: Path | None = None
        self._snapshots = Snapshots()
        self._worker = Worker(f"the run {self.branch}")
        self._branch: RunBranch | None = None
        if not active:
            return
        repository = Repository.discover(_existing(self.folder))
        self._top = repository.top
        below = self._path(self.folder)
        higher = {metric: mode == "max"} if metric else {}
        settings = Settings(policy, squash, push, prefix, scores, higher)
        self._branch = RunBranch(repository, self.branch, start, below, settings)
        if policy is not None:
            self._own = OwnFolders(self._branch.beside, below)

    @property
    def last(self) -> str | None:
        """The id of the last commit that this run has made; None before the first one is whole."""
        return None if self._branch is None else self._branch.last

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints that the branch's tip has, the oldest first."""
        return [] if self._branch is None else [one.step for one in self._branch.saves]

    @property
    def under_way(self) -> Path | None:
        """The file or folder whose commit is under way, if one is."""
        return self._under_way if self._worker.busy else None

    def save(
        self,
        step: int,
        files: Mapping[str, Any],
        metrics: Mapping[str, Any] | None = None,
        *,
        epoch: float | None = None,
    ) -> bool:
        """Save a checkpoint as files in a folder of its own, and commit it.

        Args:
            step: that it is of.
            files: contents by name. `model.safetensors` takes tensors by name (`.npz` and `.gguf`
                too), `optimizer.pt` whatever `torch.save` takes, `state.json` what JSON has; any
                other file text or bytes. Tensors may be of torch, on any device, or of NumPy.
            metrics: numbers by name, of NumPy and torch too.
            epoch: for the message.

        Returns:
            Whether it is saved: False where one was under way and is to be skipped, or not active.

        Raises:
            UsageError: something cannot be saved.
            ThetaError: the save before this one failed.
        """
        if not self.ready():
            return False
        writing.check(files)
        path = f"{self._path(self.folder)}/{self._name.replace('{step}', str(_whole(step)))}"
        saved = Saved(_whole(step), path, numbers(metrics))
        contents = self._snapshots.take(dict(files))

        def job() -> None:
            if self._own is not None:
                self._own.add(path)
            writing.write(self._top, path, contents)
            self._opened.take({path: self._top / path})
            self._record(saved, epoch)

        self._start(job, path)
        return True

    def save_with(
        self,
        write: Callable[[Any, Path], object],
        value: Any,
        place: str | PathLike[str],
        step: int,
        metrics: Mapping[str, Any] | None = None,
        *,
        epoch: float | None = None,
        beside: Sequence[str | PathLike[str]] = (),
    ) -> None:
        """Have a function write a checkpoint from a copy of a value, and commit it.

        Waits for the save before, whatever `busy` says.

        Args:
            write: called in a thread with the copy and the place.
            value: built of dicts, lists, tensors, arrays and values.
            place: the file or folder that is written, below the run's folder.
            step, metrics, epoch: as for `save`.
            beside: further files that `write` makes, which belong to the checkpoint.

        Raises:
            UsageError: something cannot be copied.
            ThetaError: the save before this one failed.
        """
        if not self.active:
            return
        self._worker.wait()
        place = _absolute(place)
        saved = Saved(_whole(step), self._path(place), numbers(metrics))
        places = {self._path(one): one for one in (place, *map(_absolute, beside))}
        copy = self._snapshots.take(value)

        def job() -> None:
            write(copy, place)
            self._opened.take(places)
            self._record(saved, epoch)

        self._start(job, saved.path)

    def commit(
        self,
        place: str | PathLike[str],
        step: int,
        metrics: Mapping[str, Any] | None = None,
        *,
        epoch: float | None = None,
        beside: Sequence[str | PathLike[str]] = (),
    ) -> bool:
        """Commit a checkpoint that is there as a file or folder: of a trainer, of Accelerate.

        Its files are linked at once; they may be removed afterwards, but not written to.

        Args:
            place: below the run's folder; counted from the current folder.
            step, metrics, epoch: as for `save`.
            beside: further files that belong to it.

        Returns:
            As `save`.

        Raises:
            UsageError: there is no such file or folder.
            StoreError: its files can be neither linked nor copied.
            ThetaError: the save before this one failed.
        """
        if not self.ready():
            return False
        place = _absolute(place)
        path = self._path(place)
        saved = Saved(_whole(step), path, numbers(metrics))
        self._opened.take({self._path(one): one for one in (place, *map(_absolute, beside))})
        self._start(lambda: self._record(saved, epoch), path)
        return True

    def ready(self) -> bool:
        """Whether a save would be made now; waits for the one under way, or not, as `busy` says.

        Raises:
            ThetaError: the save before failed.
        """
        if not self.active or (self._worker.busy and self._busy == "skip"):
            return False
        self._worker.wait()
        return True

    def wait(self) -> None:
        """Wait for the commit that is under way.

        Raises:
            ThetaError: it failed.
        """
        self._worker.wait()

    def finish(self) -> None:
        """Wait for the commit that is under way, and let go of the branch; once is enough.

        Raises:
            ThetaError: a commit failed.
        """
        self._worker.join()
        self._snapshots.clear()
        if self._branch is not None:
            self._branch.close()
        self.active = False
        self._worker.check()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish; what went wrong in the training itself is not hidden."""
        try:
            self.finish()
        except Exception as failed:
            if error is None:
                raise
            error.add_note(f"besides, the last checkpoint was not committed: {failed}")

    @property
    def _opened(self) -> RunBranch:
        """The branch, of a run that is active."""
        assert self._branch is not None
        return self._branch

    def _start(self, job: Callable[[], object], path: str) -> None:
        self._under_way = self._top / path
        self._worker.start(job)

    def _record(self, saved: Saved, epoch: float | None) -> None:
        gone = [one.path for one in self._opened.saves if not (self._top / one.path).exists()]
        if self._opened.has_policy:
            gone = []
        self._opened.record(saved, epoch, gone)
        kept = {one.path for one in self._opened.saves}
        for path in self._own.take_others(kept) if self._own is not None else ():
            shutil.rmtree(self._top / path, ignore_errors=True)

    def _path(self, place: Path) -> str:
        """A place from the top of the work tree.

        Raises:
            UsageError: it is not in it.
        """
        for top, one in ((self._top, place), (self._top.resolve(), place.resolve())):
            if one.is_relative_to(top) and one != top:
                return one.relative_to(top).as_posix()
        raise UsageError(f"{place} is not in a folder of the work tree {self._top}")


def _whole(step: int) -> int:
    """A step as an int, of NumPy and torch too; part of one would be another step's checkpoint."""
    try:
        return index(step)
    except TypeError as error:
        raise UsageError(f"a step is a whole number, not {step!r}") from error


def _existing(folder: Path) -> Path:
    """The nearest folder above that is there."""
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _absolute(place: str | PathLike[str]) -> Path:
    return Path(place).absolute()
