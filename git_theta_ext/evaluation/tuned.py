"""What `git theta merge --tune` measured, kept with all other results."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from git_theta_ext.evaluation.config import definition_of, parse
from git_theta_ext.evaluation.content import content_of
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.measure import committer
from git_theta_ext.evaluation.results import Result, Score
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.settings_file import committed_bytes
from git_theta_ext.merge.branches.tune import Trial

TUNE = "tune"
"""What an evaluation is called that no `[[evaluation]]` declares."""


class Trials:
    """Keeps the score of each candidate as it is evaluated.

    The merge that is made later has the tensors of its candidate, and so its result.
    """

    def __init__(self, repository: Repository, path: str, words: Sequence[str]) -> None:
        """Trials of one contest.

        Args:
            repository: where the results go.
            path: of the checkpoint.
            words: of the command that evaluates.

        Raises:
            UsageError: `.theta.toml` is not usable.
        """
        self._kept = Kept(repository)
        self._path, self._definition = path, definition_of(words)
        self._by = committer(repository)
        declared = parse(committed_bytes(repository) or b"").evaluations
        fitting = (one.name for one in declared if one.definition == self._definition)
        self._name = next(fitting, TUNE)

    def keep(self, trial: Trial) -> None:
        """Keep what was measured now; an earlier run has kept what is remembered.

        Raises:
            RepositoryError: it cannot be written.
        """
        score = trial.score
        if trial.manifest is None or not math.isfinite(score.value):
            return
        found = Score(self._name, "score", score.value, score.error, True, score.examples)
        self._kept.add([
            Result(
                content_of([trial.manifest]), self._name, self._definition, None, None, "measured",
                self._by, int(time.time()), "", self._path, "printed", (found,),
            )
        ])  # fmt: skip
