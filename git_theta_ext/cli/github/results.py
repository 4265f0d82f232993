"""The results of evaluations on a runner: brought from the server, measured, and sent back.

What is measured is measured by the base's word: its `.theta.toml`, its scripts, its examples, in a
work tree of the base. Of the pull request there are the tensors, as data.
"""

from __future__ import annotations

import os
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from git_theta_ext.cli.github import web
from git_theta_ext.cli.github.findings import Findings
from git_theta_ext.cli.github.lfs_check import Job
from git_theta_ext.core.errors import RepositoryError, ThetaError
from git_theta_ext.core.text import annotation, no_workflow_command, plural, printable
from git_theta_ext.evaluation import travel
from git_theta_ext.evaluation.config import Evaluation
from git_theta_ext.evaluation.gates.check import config_at
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.measure import uses_folder
from git_theta_ext.evaluation.ref_names import REF
from git_theta_ext.evaluation.run import plan, run
from git_theta_ext.evaluation.targets import Target, Targets
from git_theta_ext.git.repository import Repository

_BUNDLE = "git-theta-results.bundle"


def fetch(report: Findings, job: Job) -> None:
    """Bring the results that the workflow's own repository has, whatever a fork has."""
    try:
        with _credentials(job):
            travel.fetch(job.repository, url_of(job))
    except RepositoryError:
        # What is not measured then is said to be not measured.
        report.warn(f"Results could not be fetched from {web.shown(url_of(job))}")


def measure(report: Findings, job: Job, base: str) -> None:
    """Measure what the gates need of both versions, and have the results sent back.

    Args:
        report: gets what failed, and the place of the file with the results.
        job: the repository and the event.
        base: the commit whose evaluations, scripts and examples are used.
    """
    repository = job.repository
    before = repository.resolve(REF)
    temp = job.environment.get("RUNNER_TEMP") or None
    with tempfile.TemporaryDirectory(prefix="git-theta-", dir=temp) as folder:
        place = str(Path(folder) / "base")
        repository.git("worktree", "add", "--detach", place, base)
        try:
            _run(report, job, Repository.discover(place), base)
        finally:
            repository.git("worktree", "remove", "--force", place)
    after = repository.resolve(REF)
    if after is None or after == before:
        return
    bundle = Path(job.environment.get("RUNNER_TEMP") or ".") / _BUNDLE
    repository.git("bundle", "create", "--quiet", str(bundle), REF)
    report.results = str(bundle)
    try:
        with _credentials(job):
            travel.publish(repository, url_of(job), url_of(job))
        print("Results were sent to the repository")
    except ThetaError:
        words = f"the results could not be sent to {web.shown(url_of(job))}"
        print(f"::notice::{annotation(words)}; they are in the artifact git-theta-results")


def _run(report: Findings, job: Job, place: Repository, base: str) -> None:
    """Run the evaluations of the base that gates are about, over both versions."""
    config = config_at(place, base)
    names = {gate.evaluation for gate in config.gates}
    evaluations = [one for one in config.evaluations if one.name in names]
    targets = Targets(place)
    # (Before the first commit there is the empty tree, which has no targets.)
    old, new = (
        {one.path: one for one in targets.of(rev)} if place.resolve(f"{rev}^{{commit}}") else {}
        for rev in (job.between.old, job.between.new)
    )
    kept = Kept(place)
    pairs = [
        (one, target)
        for path, now in new.items()
        for one in evaluations
        if differs(one, old.get(path), now)
        and (one.is_for(path) or any(one.is_for(each) for each, _ in now.files))
        for target in (old.get(path), now)
        if target is not None
    ]
    planned = plan(place, pairs, kept)
    limits = {one.name: one.timeout for one in evaluations}
    print(f"{plural(len(planned.jobs), 'version')} to measure")
    with closing(run(place, planned.jobs, kept, workers=1,
                     seconds=lambda one: limits[one.name])) as done:  # fmt: skip
        for one in done:
            name = f"{one.job.evaluation.name} of {one.job.target.name}"
            if one.error is not None:
                report.warn(f"{name}: {one.error.message}")
            else:
                print(no_workflow_command(f"Measured: {printable(name)}"))


def differs(evaluation: Evaluation, old: Target | None, new: Target) -> bool:
    """Whether an evaluation may give another result: for other tensors, or files that it gets."""
    if old is None or old.content != new.content:
        return True
    return uses_folder(evaluation) and old.beside != new.beside


def url_of(job: Job) -> str:
    """The repository of the workflow."""
    site = job.environment.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    return f"{site}/{job.event.repository}.git"


@contextmanager
def _credentials(job: Job) -> Iterator[None]:
    """Let git use the token within the block, for this URL and not where it redirects to."""
    settings = [("http.followRedirects", "false"), ("credential.helper", "")]
    token = job.environment.get("GITHUB_TOKEN", "")
    if token:
        login = b64encode(f"x-access-token:{token}".encode()).decode("ascii")
        settings.append((f"http.{url_of(job)}.extraHeader", f"Authorization: Basic {login}"))
    before = dict(os.environ)
    at = int(before.get("GIT_CONFIG_COUNT") or 0)
    for number, (name, value) in enumerate(settings, at):
        os.environ[f"GIT_CONFIG_KEY_{number}"] = name
        os.environ[f"GIT_CONFIG_VALUE_{number}"] = value
    os.environ["GIT_CONFIG_COUNT"] = str(at + len(settings))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
