"""What a model card says of a version: its name, what changed since the last one, its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from git_theta_ext.checkpoints.read import open_checkpoint
from git_theta_ext.comparison.compare import compare
from git_theta_ext.comparison.named import version_of
from git_theta_ext.comparison.report.text import summary
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.tensors import DType
from git_theta_ext.evaluation.content import content_of
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.report.tables import marks, shown
from git_theta_ext.evaluation.scored import Cell, Column
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.release.card import Facts, ScoreLine
from git_theta_ext.packages.release.chosen import Weights, spec_of

_VERSIONS = ("v[0-9]*", "[0-9]*", "*@v[0-9]*", "*@[0-9]*")
"""What tags of versions look like, those of GTO among them; `nightly` is none."""


def version_name(repository: Repository, revision: str, commit: str) -> str | None:
    """The tag that a release is called by: what was typed, else one at the commit; None if none.

    Args:
        repository: any.
        revision: as the user typed it.
        commit: its object id.
    """
    name = revision.removeprefix("refs/tags/").removeprefix("tags/")
    if repository.resolve(f"refs/tags/{name}^{{commit}}") == commit:
        return name
    return _described(repository, commit, ["--exact-match"], _VERSIONS)


def previous_version(repository: Repository, version: str | None, commit: str) -> str | None:
    """The nearest tag of a version before a commit; of `NAME@v2`, of the same name."""
    model = None if version is None or "@" not in version else version.rpartition("@")[0]
    patterns = _VERSIONS if model is None else (f"{_literal(model)}@*",)
    return _described(repository, f"{commit}^", ["--abbrev=0"], patterns)


def _literal(text: str) -> str:
    return "".join(f"\\{char}" if char in "*?[\\" else char for char in text)


def _described(
    repository: Repository, revision: str, options: Sequence[str], patterns: Sequence[str]
) -> str | None:
    matching = [word for pattern in patterns for word in ("--match", pattern)]
    answer = repository.git("describe", "--tags", *options, *matching, revision, ok=(0, 128))
    return answer.decode("utf-8", "surrogateescape").strip() or None


def facts_of(
    repository: Repository,
    revision: str,
    commit: str,
    weights: Sequence[Weights],
    *,
    base: str | None,
    made: Sequence[tuple[str, str]],
    dtype: DType | None,
) -> Facts:
    """All that the section of the card says.

    Args:
        repository: any.
        revision: as the user typed it.
        commit: its object id.
        weights: the models that are released.
        base: what an adapter was trained on.
        made: how the weights were written.
        dtype: what floats were cast to.
    """
    version = version_name(repository, revision, commit)
    before = previous_version(repository, version, commit)
    named = version_of(repository, commit)
    changes = [
        (one.path if len(weights) > 1 else "", text)
        for one in weights
        if before is not None and (text := _changed(repository, before, commit, one)) is not None
    ]
    scores, notes = _scores(repository, weights)
    if scores and dtype is not None:
        notes.append(f"Measured before the cast to {dtype.name}.")
    return Facts(
        version, commit, "" if named is None else named.date, base, before,
        tuple(changes), tuple(made), tuple(scores), tuple(notes),
    )  # fmt: skip


def _changed(repository: Repository, before: str, commit: str, weights: Weights) -> str | None:
    """The line that sums up a diff with an earlier version, from the manifests alone."""
    try:
        old = open_checkpoint(repository, f"refs/tags/{before}:{weights.path}").side()
    except ThetaError:
        return "it was not in that version, or not stored tensor by tensor"
    new = open_checkpoint(repository, spec_of(commit, weights)).side()
    found = compare(old, new, measured=False)
    return summary(replace(found, stored=0)) if found.changes else "no tensor"


def _scores(
    repository: Repository, weights: Sequence[Weights]
) -> tuple[list[ScoreLine], list[str]]:
    """The newest score of each metric, and what their marks mean."""
    contents = {content_of(one.manifests): one for one in weights}
    lines: list[ScoreLine] = []
    notes: dict[str, None] = {}
    for content, results in Kept(repository).of(contents).items():
        seen: dict[str, Cell] = {}
        for result in results:
            for score in result.scores:
                cell = Cell(score, result, True)
                words = result.evaluation, score.task, score.metric
                column = Column(*words, score.higher_is_better, {0: (cell,)})
                if seen.setdefault(column.name, cell) is cell:
                    notes.update(dict.fromkeys(marks([column])))
        several = f"{contents[content].path}: " if len(weights) > 1 else ""
        lines += [ScoreLine(several + name, shown([cell])) for name, cell in sorted(seen.items())]
    return lines, list(notes)
