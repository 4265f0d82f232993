"""The gates of the base, on a workflow's event: what `git theta check` says goes into the report.

The rules are those of the base branch. Nothing of the pull request is executed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from git_theta_ext.checkpoints import modules
from git_theta_ext.cli.github import results
from git_theta_ext.cli.github.findings import Findings
from git_theta_ext.cli.github.lfs_check import Job
from git_theta_ext.comparison.compare import Lacking
from git_theta_ext.comparison.division import divisions
from git_theta_ext.comparison.files import Pair
from git_theta_ext.core.errors import ThetaError
from git_theta_ext.evaluation.gates import machines, words
from git_theta_ext.evaluation.gates.check import Check
from git_theta_ext.evaluation.gates.ends import Ends
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.where import store_of

_TAKEN = 16_000
"""Characters of a comment that the table may take; the report on tensors has the rest."""


def is_on(job: Job, name: str) -> bool:
    """Whether an input of the action, by its variable, is `true`."""
    return job.environment.get(name, "").lower() == "true"


def rules_of(job: Job) -> str | None:
    """The commit whose `.theta.toml` counts: the base, never what is judged; None: none is here.

    After a push the base branch itself is at the head, whose rules do not count for it.
    """
    between = job.between
    rules = between.trusted if between.trusted != between.new else between.old
    return rules and job.repository.resolve(f"{rules}^{{commit}}")


def divide(report: Findings, job: Job) -> None:
    """Have what was found by the modules that the rules declare; where it cannot be, say so."""
    rules = rules_of(job)
    try:
        if rules is not None:
            report.divisions = divisions(report.found, modules.read(job.repository, rules))
    except ThetaError as error:
        report.warn(f"The report is not by modules: {error.message}")


def judge(report: Findings, job: Job, lacking: Callable[[Pair], Lacking]) -> None:
    """Apply the gates; what is refused, or cannot be judged, fails the job.

    Args:
        report: gets the table, the annotations and the exit code.
        job: the repository and the event.
        lacking: tells for a checkpoint which values are not at hand, and why.
    """
    repository, between = job.repository, job.between
    rules = rules_of(job)
    if rules is None:
        report.warn("There is no commit of the base here, so there are no rules to judge by", 3)
        return
    results.fetch(report, job)
    if is_on(job, "THETA_EVALUATE"):
        try:
            results.measure(report, job, rules)
        except ThetaError as error:
            report.warn(f"It could not be measured: {error.message}", error.exit_code)
    ends = Ends(between.old, between.new, rules)
    blocks = Blocks(store_of(repository))  # (which fetch nothing)
    check = Check(repository, ends, Kept(repository), blocks, lacking=lacking)
    try:
        found = check.run()
        found = replace(found, history=check.history(found.rows))
    except ThetaError as error:
        hint = f" ({error.hint})" if error.hint is not None else ""
        report.warn(f"The gates could not be applied: {error.message}{hint}", error.exit_code)
        return
    report.verdict = {0: "accepted", 1: "refused"}.get(found.code, "undecided")
    report.code = report.code or found.code
    report.commands += machines.workflow_commands(found)
    # (Other notes are no reason to comment on what changes no checkpoint.)
    if found.rows or found.changed_modules or (found.notes and report.found):
        report.gates = words.markdown(found, _TAKEN)
