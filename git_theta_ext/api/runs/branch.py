"""A run's branch: what one saved checkpoint makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.api.collecting import KINDS
from git_theta_ext.api.runs import messages, scores
from git_theta_ext.api.runs.policy import Policy, Saved
from git_theta_ext.api.runs.side_tree import SideTree, is_in
from git_theta_ext.api.runs.squash import squash
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.merge.combine.statistics import statistics_path

_MOST = 100_000
"""Commits of a run that are read when it goes on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What becomes of what is saved; see `Run`."""

    policy: Policy | None = None
    squash: bool = False
    push: str | None = None
    prefix: str = ""
    scores: bool = True
    higher_is_better: Mapping[str, bool] | None = None


class RunBranch:
    """The branch of a run, to which each saved checkpoint is a commit."""

    def __init__(
        self, repository: Repository, name: str, start: str, folder: str, settings: Settings
    ) -> None:
        """Open the branch, or make it.

        Args:
            repository: with a work tree.
            name: of the branch.
            start: a revision that a new branch begins at.
            folder: of the run, from the top; what others have saved elsewhere is none of its own.
            settings: what becomes of what is saved.

        Raises:
            UsageError: as for `SideTree`; git-theta is not set up here.
            RepositoryError, StoreError: as for `SideTree`.
        """
        installation.require(repository)
        self._settings, self._folder = settings, folder
        self._tree = SideTree(repository, name, start, alone=settings.squash)
        self.last: str | None = None
        """The last commit that was made."""
        try:
            self.saves = self._read()
        except BaseException:
            self._tree.close()
            raise

    def _read(self) -> list[Saved]:
        """The checkpoints that the branch has, of the run that goes on; the oldest first."""
        paths, found = self._tree.paths(), dict[str, Saved]()
        for message in self._tree.messages(_MOST):
            saved = messages.read(message)
            if saved is None or not is_in(saved.path, [self._folder]):
                break
            if saved.path not in found and any(is_in(one, [saved.path]) for one in paths):
                found[saved.path] = saved
        return list(found.values())[::-1]

    @property
    def has_policy(self) -> bool:
        """Whether something else than the files that are there says what the tip keeps."""
        return self._settings.policy is not None

    @property
    def beside(self) -> Path:
        """A file in Git's folder for what the run wants to know of itself later."""
        return self._tree.beside

    def take(self, places: Mapping[str, Path]) -> None:
        """Hold the files of a checkpoint until `record` has committed them; see `SideTree.take`."""
        self._tree.take(places)

    def record(self, saved: Saved, epoch: float | None, gone: Sequence[str]) -> None:
        """Commit what was taken, and do what the settings say.

        Args:
            saved: what it is.
            epoch: that it is of, where that is known.
            gone: paths that the tip is not to have any more, whatever the policy says.

        Raises:
            ThetaError: Git, the store or the remote refuses.
        """
        settings = self._settings
        saves = [one for one in self.saves if one.path not in (saved.path, *gone)] + [saved]
        kept = settings.policy.kept(saves) if settings.policy else saves
        dropped = [one.path for one in self.saves if one not in kept and one.path != saved.path]
        message = messages.compose(
            saved.step, saved.metrics, prefix=settings.prefix, epoch=epoch, path=saved.path
        )
        left = [*dropped, saved.path]
        left += [statistics_path(path, kind) for path in left for kind in KINDS]
        commit = self._tree.commit(left, message)
        self.saves = kept
        if commit is None:
            return
        self.last = commit
        repository = self._tree.repository
        if settings.scores:
            known = settings.higher_is_better or {}
            scores.keep(repository, commit, saved.path, saved.metrics, known)
        if settings.squash and squash(self._tree, self._folder, {one.path for one in kept}):
            self.last = repository.resolve("HEAD")
        if settings.push is not None:
            repository.git("push", "--quiet", "--", settings.push, self._tree.ref)

    def close(self) -> None:
        """Let go of the branch."""
        self._tree.close()
