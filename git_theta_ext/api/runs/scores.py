"""The metrics of a run as results that `git theta scores` shows."""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Mapping

from git_theta_ext.api.runs.messages import finite
from git_theta_ext.core.version import VERSION
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.measure import committer
from git_theta_ext.evaluation.results import Result, Score
from git_theta_ext.evaluation.targets import Targets
from git_theta_ext.git.repository import Repository

EVALUATION = "training"
_NO_MODEL = re.compile(
    r"(optimizer|optim|scheduler|scaler|random|rng_state|training_args|sampler).*"
    r"|.*\.(fisher|gram)\.safetensors"
)


def keep(
    repository: Repository,
    commit: str,
    path: str,
    metrics: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
) -> int:
    """Keep the metrics of a commit's checkpoint as scores of the models in it; how many models.

    Args:
        repository: any.
        commit: that has the checkpoint.
        path: of the checkpoint, from the top.
        metrics: numbers by name; those that are not finite are no scores.
        higher_is_better: what is known of that, by name; a loss is better lower.

    Raises:
        EvaluationError: there are too many.
        RepositoryError: Git could not write them.
    """
    scores = tuple(
        Score(EVALUATION, name, value, higher_is_better=_higher(name, higher_is_better))
        for name, value in sorted(finite(metrics).items())
    )
    if not scores:
        return 0
    who, now = committer(repository), int(time.time())
    models = [
        one for one in Targets(repository).of(commit, path)
        if not _NO_MODEL.fullmatch(posixpath.basename(one.path))
    ]  # fmt: skip
    Kept(repository).add(
        Result(one.content, EVALUATION, None, None, None, "imported", who, now, commit, one.path,
               f"git-theta {VERSION} training run", scores)
        for one in models
    )  # fmt: skip
    return len(models)


def _higher(name: str, known: Mapping[str, bool]) -> bool | None:
    return known.get(name, False if "loss" in name.lower() else None)
