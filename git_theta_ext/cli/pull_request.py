"""The report on a pull request: `python -I -m git_theta_ext.cli.pull_request`, run by action.yml.

It compares the head of a pull request, a merge group or a push with where it left its base, has one
comment with the report, writes the report as HTML and into the summary of the job, and checks that
the server has every object that the new manifests name. Whatever it finds missing, the report is
made without and says so, and everything is written before the job fails. It reads Git's objects
only; nothing of the pull request is executed, and nothing in it chooses whom requests go to.
Source of the variables: docs.github.com/actions, "Variables".
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TextIO, cast

from git_theta_ext.checkpoints import shards
from git_theta_ext.cli.github import findings, gate, lfs_check
from git_theta_ext.cli.github.at_hand import AtHand, without_values
from git_theta_ext.cli.github.event import Ends, Event, ends, read_event
from git_theta_ext.cli.github.findings import Findings
from git_theta_ext.cli.github.github import Api
from git_theta_ext.cli.github.lfs_check import Job
from git_theta_ext.cli.whole import committed_whole
from git_theta_ext.comparison.compare import Comparison, Lacking
from git_theta_ext.comparison.files import OnDamage, Pair, changed_checkpoints
from git_theta_ext.comparison.named import version_of
from git_theta_ext.comparison.report import html, markdown
from git_theta_ext.comparison.report.words import is_training_state
from git_theta_ext.comparison.spectrum import with_spectra
from git_theta_ext.core import advice, files
from git_theta_ext.core.errors import ManifestError, ThetaError, TransferError, UsageError
from git_theta_ext.core.terminal import HarmlessStream
from git_theta_ext.core.text import annotation, no_workflow_command, paragraph
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.where import store_of

MARKER = "<!-- git-theta-ext: report on checkpoints -->"
"""How our comment begins; by it, it is found again."""
_MAX_LISTED = 20
_NAME_CHARS = 100
_OURS = re.compile(r"GITHUB_|ACTIONS_|INPUT_|THETA_|RUNNER_|.*(TOKEN|SECRET|PASSWORD)", re.I)
"""Variables that are for this process, and not for what it starts."""


def main(environment: Mapping[str, str] | None = None) -> int:
    """Report on the event that the environment tells of; the exit code.

    0 if the report stands and nothing is amiss, 1 if objects are missing on the server or a gate
    refuses, 3 if a gate cannot judge, others as for all errors.
    """
    if environment is None:
        environment = dict(os.environ)
        _keep_apart(os.environ)
    try:
        return _run(environment)
    except ThetaError as error:
        _append(environment.get("GITHUB_STEP_SUMMARY"), findings.failure(error))
        print(f"::error::{annotation(error.message)}")
        if error.hint is not None:
            hint = no_workflow_command(f"  hint: {paragraph(error.hint, '        ')}")
            print(hint, file=sys.stderr)
        return error.exit_code


def _keep_apart(variables: dict[str, str] | os._Environ[str]) -> None:
    """Give git no token, no file of the runner, and no settings that start a program."""
    for name in [name for name in variables if _OURS.match(name)]:
        variables.pop(name, None)
    first = int(variables.get("GIT_CONFIG_COUNT") or 0)
    settings = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, "diff.external": ""}
    for at, (name, value) in enumerate(settings.items(), first):
        variables[f"GIT_CONFIG_KEY_{at}"], variables[f"GIT_CONFIG_VALUE_{at}"] = name, value
    variables["GIT_CONFIG_COUNT"] = str(first + len(settings))
    variables["GIT_TERMINAL_PROMPT"] = "0"
    # What is compared is what the event names, not what a ref says to take in place of it.
    variables["GIT_NO_REPLACE_OBJECTS"] = "1"


def _run(environment: Mapping[str, str]) -> int:
    """The exit code of a report that was made and written."""
    event = read_event(environment)
    if not event.head.strip("0"):
        print("The branch was deleted: there is nothing to compare")
        _append(
            environment.get("GITHUB_OUTPUT"),
            "changed=false\nobjects=skipped\nverdict=skipped\nhtml=\nresults=\n",
        )
        return 0
    repository = Repository.discover(environment.get("GITHUB_WORKSPACE") or None)
    between = ends(repository, event, environment.get("THETA_BASE", ""))
    report = Findings()
    old, new = version_of(repository, between.old), version_of(repository, between.new)
    report.between = (old, new) if old is not None and new is not None else None
    _fill(report, repository, event, between, environment)
    _write(report, event, environment)
    return report.code


def _fill(
    report: Findings, repository: Repository, event: Event, between: Ends, env: Mapping[str, str]
) -> None:
    """Compare, and check the objects."""

    def damaged(path: str, error: ManifestError) -> None:
        report.warn(f"{path}: the manifest is damaged: {error.message}", error.exit_code)

    def pairs(on_damage: OnDamage) -> Iterator[Pair]:
        # One after the other, and again when they are needed: together they may not fit in memory.
        blocks = Blocks(store_of(repository))  # (which fetch nothing)
        return changed_checkpoints(
            repository, [between.old, between.new], [], blocks=blocks, on_damage=on_damage
        )

    at_hand = AtHand(store_of(repository), _limit(env))
    job = Job(repository, event, between, env)
    gated = gate.is_on(job, "THETA_CHECK")
    whole = gated and gate.is_on(job, "THETA_EVALUATE")
    models = (pair for pair in pairs(damaged) if not is_training_state(pair.path))
    at_hand.plan(models, gated, whole)
    at_hand.plan((pair for pair in pairs(_silent) if is_training_state(pair.path)), gated)
    lfs_check.ask(report, job, at_hand)
    for pair in pairs(_silent):
        with closing(pair):
            one = _compared(report, repository, pair, between, at_hand)
        if one.differs:
            report.found.append((pair.path, one))
    gate.divide(report, job)
    if gated:
        gate.judge(report, job, lambda pair: _lacking(repository, pair, between, at_hand))
    foreign = committed_whole(repository, between.old, between.new)
    if len(foreign) > _MAX_LISTED:
        report.warn(f"{len(foreign):,} checkpoints were committed whole, without git-theta")
    for path in foreign[:_MAX_LISTED]:
        report.warn(
            f"{path} was committed whole, without git-theta: "
            f"git theta install --local && {advice.STORE_BY_TENSOR}"
        )


def _silent(path: str, error: ManifestError) -> None:
    """It was said before."""


def _compared(
    report: Findings, repository: Repository, pair: Pair, between: Ends, at_hand: AtHand
) -> Comparison:
    """A comparison with what is at hand; without all values where they are not what they claim."""
    lacking = _lacking(repository, pair, between, at_hand)
    try:
        found = pair.compare(lacking=lacking)
        return with_spectra(found, pair.old, pair.new)
    except ThetaError as error:
        report.warn(f"{pair.path}: its values cannot be read: {error.message}", error.exit_code)
        return without_values(pair)


def _lacking(repository: Repository, pair: Pair, between: Ends, at_hand: AtHand) -> Lacking:
    """Tells which values of a checkpoint are not at hand, and why."""
    known = {} if pair.old is None else {ref.oid: ref for ref in pair.old.manifest.objects()}
    return at_hand.lacking(known, cache(lambda: _author(repository, pair.path, between)))


def _author(repository: Repository, path: str, between: Ends) -> str | None:
    """Whose commit is the last one to change a checkpoint."""
    place = shards.pathspec_of(path) if shards.names_model(path) else literal(path)
    answer = repository.git(
        "log", "-1", "--no-show-signature", "--format=%an", between.new, f"^{between.old}",
        "--", place, ok=(0, 128),
    )  # fmt: skip
    return answer.decode("utf-8", "replace").strip()[:_NAME_CHARS] or None


def _limit(environment: Mapping[str, str]) -> int:
    text = environment.get("THETA_MAX_GIB") or "16"
    if not text.isascii() or not text.isdecimal() or len(text) > 6:
        raise UsageError(f"max-gib is {text[:40]!r}, not a number of GiB")
    return int(text) << 30


def _write(report: Findings, event: Event, env: Mapping[str, str]) -> None:
    """Summary, outputs and page, then the comment, then the findings."""
    notes = findings.notes(report.warnings)
    table = f"{report.gates}\n" if report.gates else ""
    limit = markdown.LIMIT - len(MARKER) - 1 - len(table)
    text = table + markdown.render(report.found, limit, report.between, notes, report.divisions)
    page = Path(env.get("RUNNER_TEMP") or ".") / "git-theta-report.html"
    remarks = [warning.text for warning in report.warnings]
    whole = html.render(report.found, report.between, remarks, report.divisions)
    files.replace_file(page, whole.encode())
    changed = bool(report.found or report.warnings)
    _append(env.get("GITHUB_STEP_SUMMARY"), text)
    _append(
        env.get("GITHUB_OUTPUT"),
        f"changed={str(changed).lower()}\nobjects={report.objects}\nverdict={report.verdict}\n"
        f"html={page}\nresults={report.results}\n",
    )
    for warning in report.warnings:
        kind = "error" if warning.fatal else "warning"
        print(f"::{kind}::{annotation(warning.text)}")
    for command in report.commands:
        print(command)
    if event.number is not None:
        told = changed or report.gates
        _comment(env, event, event.number, f"{MARKER}\n{text}" if told else None)


def _comment(env: Mapping[str, str], event: Event, number: int, body: str | None) -> None:
    token = env.get("GITHUB_TOKEN", "")
    if not token:
        print("No token: the report is in the summary of this job")
        return
    api = Api(env.get("GITHUB_API_URL", "https://api.github.com"), event.repository, token)
    try:
        print(f"Comment: {api.comment(number, MARKER, body)}")
    except TransferError as error:
        # Pull requests from forks get a token that may only read.
        words = "the report is in the summary of this job"
        print(f"::notice::{annotation(error.message)}; {words}")


def _append(path: str | None, text: str) -> None:
    if path:
        with files.appending(path, follow=True) as file:
            file.write(text.encode())


if __name__ == "__main__":
    # Whatever else is printed, a traceback that quotes a name among it, commands no runner.
    sys.stderr = cast(TextIO, HarmlessStream(sys.stderr, in_workflow=True))
    sys.exit(main())
