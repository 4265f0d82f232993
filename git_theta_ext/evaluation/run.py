"""Many runs of evaluations: what is to be done, and doing it, several at once.

Each result is kept as soon as it is there. A run that was stopped, or died, goes on where it was:
what has been measured is not measured again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from git_theta_ext.core.errors import EvaluationError, RepositoryError, StoreError, ThetaError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.evaluation.config import Evaluation
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.measure import Bounds, Job, committer, measure, uses_folder
from git_theta_ext.evaluation.results import Result
from git_theta_ext.evaluation.stopping import ended_politely
from git_theta_ext.evaluation.targets import Target, hash_of_beside, hash_of_examples
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.blocks import Blocks

_POLL_SECONDS = 0.2
_SAID = 20
"""Scores that are said where they cannot be kept."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Jobs that are to be run, and those whose results are known, with these."""

    jobs: tuple[Job, ...]
    known: tuple[tuple[Job, Result], ...]


@dataclass(frozen=True, slots=True)
class Done:
    """A job that was run: its result, or why there is none, and remarks."""

    job: Job
    result: Result | None
    error: ThetaError | None = None
    remarks: tuple[str, ...] = ()


def plan(
    repository: Repository,
    pairs: Iterable[tuple[Evaluation, Target]],
    kept: Kept,
    *,
    force: bool = False,
) -> Planned:
    """What has to be measured; the same content once, wherever it stands.

    Args:
        repository: its work tree has the examples.
        pairs: checkpoints, each with an evaluation that is for it.
        kept: the results that are there.
        force: measure what was measured, too.

    Raises:
        UsageError: a file of examples is not there.
    """
    hashes: dict[str, str | None] = {}
    jobs: dict[tuple[str | None, ...], Job] = {}
    for evaluation, target in pairs:
        if evaluation.name not in hashes:
            hashes[evaluation.name] = hash_of_examples(repository.top, evaluation)
        beside = hash_of_beside(repository, target) if uses_folder(evaluation) else None
        job = Job(evaluation, target, hashes[evaluation.name], beside)
        key = (target.content, evaluation.name, evaluation.definition, job.examples_hash, beside)
        jobs.setdefault(key, job)
    found = {} if force else kept.of({job.target.content for job in jobs.values()})
    todo, known = [], []
    for job in jobs.values():
        results = found.get(job.target.content, ())
        result = next((one for one in results if job.matches(one)), None)
        if result is None:
            todo.append(job)
        else:
            known.append((job, result))
    return Planned(tuple(todo), tuple(known))


def run(
    repository: Repository,
    jobs: Sequence[Job],
    kept: Kept,
    *,
    workers: int,
    seconds: Callable[[Evaluation], float | None],
) -> Generator[Done, None, None]:
    """Run jobs, some at once; each is given when its result is kept, or has failed.

    When the caller is interrupted, or closes the generator, the commands are ended.

    Args:
        repository: where they are from.
        jobs: in the order in which they begin.
        kept: where results go.
        workers: how many run at once.
        seconds: the time limit of an evaluation.

    Raises:
        RepositoryError: a result cannot be kept.
    """
    blocks = Blocks.open(repository)
    stop = threading.Event()
    by = committer(repository)

    def one(job: Job) -> Done:
        try:
            bounds = Bounds(seconds(job.evaluation), stop)
            result, remarks = measure(job, repository, blocks, by=by, bounds=bounds)
        except ThetaError as error:
            return Done(job, None, error)
        except OSError as error:
            what = f"cannot write to the temporary folder: {error.strerror or error}"
            return Done(job, None, StoreError(what))
        return Done(job, result, None, remarks)

    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="evaluation")
    with ended_politely():
        try:
            waiting: set[Future[Done]] = {pool.submit(one, job) for job in jobs}
            while waiting:
                finished, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
                for future in finished:
                    done = future.result()
                    yield _keep(done, kept)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _keep(done: Done, kept: Kept) -> Done:
    """A job whose result is kept; one that is too large is as none.

    Raises:
        RepositoryError: it cannot be kept; says what was measured, which may have taken hours.
    """
    if done.result is None:
        return done
    try:
        kept.add([done.result])
    except EvaluationError as error:
        return Done(done.job, None, error)
    except RepositoryError as error:
        scores = [f"    {printable(one.name)} {one.value!r}" for one in done.result.scores[:_SAID]]
        left = len(done.result.scores) - len(scores)
        scores += [f"    and {plural(left, 'more score')}"] if left else []
        name = f"{done.job.evaluation.name}: {printable(done.job.target.name)}"
        raise RepositoryError(
            "\n".join([f"{name} was measured, but cannot be kept: {error.message}", *scores]),
            hint=error.hint,
        ) from error
    return done
