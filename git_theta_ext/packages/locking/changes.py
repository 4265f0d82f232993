"""What changes when a model moves from one version to another: tensors and scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.versions import StoredSide
from git_theta_ext.comparison.compare import compare
from git_theta_ext.comparison.report.text import summary
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import printable
from git_theta_ext.evaluation import travel
from git_theta_ext.evaluation.content import content_of
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.results import Result
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages.fetched import Package
from git_theta_ext.packages.files import PackageFile
from git_theta_ext.packages.locking.contents import models_of

Opened = tuple[Package, Sequence[PackageFile]]


@dataclass(frozen=True, slots=True)
class Change:
    """One checkpoint, or another file, of a model: its path, what happened to it, and scores."""

    path: str
    summary: str
    scores: tuple[str, ...] = ()


def changes(old: Opened, new: Opened) -> list[Change]:
    """What differs between two versions of one package: checkpoints first, then other files.

    Only manifests are read, so nothing is said of the size of a change of values.

    Args:
        old, new: the packages with their files.

    Raises:
        ManifestError: a manifest is damaged.
    """
    before, after = models_of(*old), models_of(*new)
    blocks = Blocks.open(new[0].repository)
    found = []
    for path in sorted({*before, *after}):
        then, now = before.get(path), after.get(path)
        if then is not None and now is not None and list(then) == list(now):
            continue
        found.append(Change(path, _summary(then, now, blocks), _scores(new[0], then, now)))
    return [*found, *_others(old[1], new[1])]


def _summary(
    then: Sequence[Manifest] | None, now: Sequence[Manifest] | None, blocks: Blocks
) -> str:
    """The line that `git theta diff` begins with."""
    old, new = (None if one is None else StoredSide(_joined(one), blocks) for one in (then, now))
    size = sum(entry.tensor.nbytes for one in now or () for entry in one.entries)
    return summary(replace(compare(old, new, measured=False), size=size))


def _joined(parts: Sequence[Manifest]) -> Manifest:
    if len(parts) == 1:
        return parts[0]
    return shards.join([(str(number), part) for number, part in enumerate(parts)])


def _others(old: Iterable[PackageFile], new: Iterable[PackageFile]) -> Iterator[Change]:
    """Files that are no checkpoints, or are ones on one side alone."""
    before = {file.place: file for file in old if file.kind != "checkpoint"}
    after = {file.place: file for file in new if file.kind != "checkpoint"}
    for place in sorted({*before, *after}):
        then, now = before.get(place), after.get(place)
        if then is not None and now is not None and then.blob == now.blob:
            continue
        yield Change(place, "new" if then is None else "deleted" if now is None else "changed")


# -- scores ----------------------------------------------------------------------------------------


def bring_scores(package: Package) -> None:
    """Fetch the results of evaluations that a remote has, if it has some and can be asked."""
    if not package.offline:
        travel.fetch(package.repository, "origin")


def _scores(
    package: Package, then: Sequence[Manifest] | None, now: Sequence[Manifest] | None
) -> tuple[str, ...]:
    """What was measured of both versions: `glue/rte/acc 0.61 → 0.64`."""
    contents = ["" if one is None else content_of(one) for one in (then, now)]
    try:
        results = Kept(package.repository).of([one for one in contents if one])
    except ThetaError:  # of no use here; `git theta scores` says what is wrong
        return ()
    old, new = (_newest(results.get(one, ())) for one in contents)
    return tuple(
        f"{printable('/'.join(key))} {_value(old.get(key))} → {_value(new.get(key))}"
        for key in sorted({*old, *new})
    )


def _newest(results: Iterable[Result]) -> Mapping[tuple[str, ...], float]:
    """The newest value of each score; results come the newest first."""
    found: dict[tuple[str, ...], float] = {}
    for result in results:
        for score in result.scores:
            words = (result.evaluation, score.task, score.metric)
            key = words[1:] if score.task == result.evaluation else words
            found.setdefault(key, score.value)
    return found


def _value(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"
