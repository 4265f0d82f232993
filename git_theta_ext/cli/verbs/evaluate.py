"""`git theta evaluate`: measure versions of a checkpoint, or take results that somebody has."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from git_theta_ext.cli import consent
from git_theta_ext.core.errors import EvaluationError, UsageError
from git_theta_ext.core.text import paragraph, plural, printable, to_json
from git_theta_ext.evaluation import config
from git_theta_ext.evaluation.config import Evaluation
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.measure import committer
from git_theta_ext.evaluation.readers.read import LOOKED_FOR, files_in, read_all
from git_theta_ext.evaluation.records import as_json
from git_theta_ext.evaluation.results import Result, Score
from git_theta_ext.evaluation.run import Done, Planned, plan
from git_theta_ext.evaluation.run import run as run_jobs
from git_theta_ext.evaluation.targets import Target, Targets, commits_of, file_target
from git_theta_ext.git.paths import from_top
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import LISTED
from git_theta_ext.git.settings_file import FILE, committed_bytes

_EXAMPLE = (
    f'in {FILE}: [[evaluation]], name = "glue", command = "python evaluate.py '
    '{checkpoint} --out {results}"'
)


def add_parser(subparsers: Any) -> None:
    """Add the parser of `evaluate`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure versions of a checkpoint, and keep the results",
        description="Run the evaluations that .theta.toml declares over each checkpoint of a "
        "commit, of a range of commits, or over a file, and keep the results with the content "
        "that was measured. What was measured before is not measured again. With --import, take "
        "results that are there.",
    )
    parser.add_argument(
        "what", nargs="?", default="HEAD", metavar="REV|RANGE|FILE",
        help="what to measure (default: HEAD); a range as main..HEAD measures each of its commits",
    )  # fmt: skip
    parser.add_argument(
        "--evaluation", action="append", metavar="NAME", default=[],
        help="only this one of the evaluations in .theta.toml (may be given again)",
    )  # fmt: skip
    parser.add_argument("--path", metavar="PATH", help="only this checkpoint, from the top")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="run N at once")
    parser.add_argument(
        "--timeout", type=float, metavar="S",
        help="seconds that a command may take (default: timeout in .theta.toml)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="measure again what was measured")
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help="only say what would be measured"
    )
    parser.add_argument(
        "--import", dest="files", nargs="+", action="extend", metavar="FILE",
        help="run nothing: keep the results that these files have, of lm-evaluation-harness, "
        "Inspect, Hugging Face, JSON or CSV; of a folder, all that it has",
    )  # fmt: skip
    parser.add_argument(
        "--allow-evaluation", action="store_true",
        help="this once, run the commands in .theta.toml without asking",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, or import.

    Raises:
        UsageError: there is nothing to measure, or no leave to run it.
        EvaluationError: not everything could be measured.
    """
    if args.jobs < 1:
        raise UsageError(f"--jobs takes a number from 1 on, not {args.jobs}")
    if args.timeout is not None and not 0 < args.timeout < math.inf:
        raise UsageError(f"--timeout takes a number of seconds above 0, not {args.timeout:g}")
    repository = Repository.discover()
    declared = config.parse(committed_bytes(repository) or b"")
    if args.files:
        return _import(repository, args, declared)
    evaluations = _chosen(declared, args.evaluation)
    targets = _targets(repository, args)
    pairs = [(one, target) for target in targets for one in evaluations if _fits(one, target)]
    if not pairs:
        raise UsageError(_nothing(targets, evaluations), hint="git theta ls-files")
    kept = Kept(repository)
    planned = plan(repository, pairs, kept, force=args.force)
    if args.dry_run:
        return _would_run(args, planned)
    consent.require(
        repository, (job.evaluation.command for job in planned.jobs), once=args.allow_evaluation
    )
    return _run(repository, args, planned, kept)


def _chosen(declared: config.Config, names: Sequence[str]) -> list[Evaluation]:
    """The evaluations that are to be run."""
    if not declared.evaluations:
        raise UsageError("this repository declares no evaluation", hint=_EXAMPLE)
    found = []
    for name in names or [one.name for one in declared.evaluations]:
        one = declared.evaluation(name)
        if one is None:
            known = ", ".join(each.name for each in declared.evaluations)
            raise UsageError(f"there is no evaluation {printable(name)!r}", hint=f"known: {known}")
        found.append(one)
    return found


def _targets(repository: Repository, args: argparse.Namespace) -> list[Target]:
    """The checkpoints that the arguments name."""
    if ".." not in args.what and repository.resolve(f"{args.what}^{{commit}}") is None:
        if not Path(args.what).is_file():
            raise UsageError(
                f"{printable(args.what)} is neither a revision nor a file here", hint=LISTED
            )
        return [file_target(Path(args.what).resolve(), _name_of(repository, args.what))]
    found = Targets(repository)
    targets = [one for commit in commits_of(repository, args.what) for one in found.of(commit)]
    for problem in found.damaged:
        print(f"git theta: warning: {paragraph(problem)}", file=sys.stderr)
    if args.path is None:
        return targets
    chosen = [one for one in targets if args.path in (one.path, *(path for path, _ in one.files))]
    if not chosen:
        paths = ", ".join(sorted({printable(one.path) for one in targets})) or "none"
        raise UsageError(f"there is no checkpoint {printable(args.path)}", hint=f"there: {paths}")
    return chosen


def _name_of(repository: Repository, name: str) -> str:
    """A file as it is called from the top; outside of the work tree by its name alone."""
    try:
        return from_top(repository, name)
    except UsageError:
        return Path(name).name


def _fits(one: Evaluation, target: Target) -> bool:
    if not target.rev:
        return True
    return one.is_for(target.path) or any(one.is_for(path) for path, _ in target.files)


def _nothing(targets: Sequence[Target], evaluations: Sequence[Evaluation]) -> str:
    if not targets:
        return "there is no checkpoint that is stored tensor by tensor"
    paths = ", ".join(sorted({printable(one.path) for one in targets})[:5])
    names = ", ".join(one.name for one in evaluations)
    return f"no evaluation ({names}) is for {paths}: see path in {FILE}"


def _would_run(args: argparse.Namespace, planned: Planned) -> int:
    """Say what would be run; 0."""
    if args.json:
        jobs = [{"evaluation": job.evaluation.name, "path": job.target.path, "rev": job.target.rev}
                for job in planned.jobs]  # fmt: skip
        known = [as_json(one) for _, one in planned.known]
        print(to_json({"measured": [], "known": known, "failed": [], "would_measure": jobs}))
        return 0
    for job in planned.jobs:
        print(f"would measure {job.evaluation.name}: {printable(job.target.name)}")
    print(f"{plural(len(planned.jobs), 'evaluation')} to run, {len(planned.known)} known")
    return 0


def _run(repository: Repository, args: argparse.Namespace, planned: Planned, kept: Kept) -> int:
    """Run what is planned and say how it went."""
    say = _Speaker(args.json)
    for job, result in planned.known:
        say.line(f"{job.evaluation.name}: {printable(job.target.name)} was measured before")
        say.scores(result.scores)
    if planned.jobs and sys.stderr is not None and sys.stderr.isatty():
        count = plural(len(planned.jobs), "evaluation")
        print(f"git theta: {count} to run; Ctrl-C stops, and keeps what is done", file=sys.stderr)
    measured: list[Result] = []
    failed: list[Done] = []

    def limit(one: Evaluation) -> float | None:
        return one.timeout if args.timeout is None else args.timeout

    with closing(run_jobs(repository, planned.jobs, kept, workers=args.jobs, seconds=limit)) as all:
        for number, done in enumerate(all, 1):
            where = f" ({number} of {len(planned.jobs)})" if len(planned.jobs) > 1 else ""
            name = f"{done.job.evaluation.name}: {printable(done.job.target.name)}{where}"
            if done.result is None:
                failed.append(done)
                print(f"git theta: {name}: {paragraph(str(done.error))}", file=sys.stderr)
                continue
            measured.append(done.result)
            say.line(name)
            say.scores(done.result.scores)
            for remark in done.remarks:
                print(f"git theta: warning: {paragraph(remark)}", file=sys.stderr)
    if args.json:
        print(to_json({
            "measured": [as_json(one) for one in measured],
            "known": [as_json(one) for _, one in planned.known],
            "failed": [
                {"evaluation": one.job.evaluation.name, "path": one.job.target.path,
                 "rev": one.job.target.rev, "error": str(one.error)} for one in failed
            ],
        }))  # fmt: skip
    if failed:
        raise EvaluationError(
            f"{len(failed)} of {plural(len(planned.jobs), 'evaluation')} gave no result",
            hint="the same command measures only what is still missing",
        )
    return 0


class _Speaker:
    """Says what was measured, unless JSON is wanted."""

    def __init__(self, as_json: bool) -> None:
        self._quiet = as_json

    def line(self, text: str) -> None:
        if not self._quiet:
            print(text, flush=True)

    def scores(self, scores: Sequence[Score]) -> None:
        for score in scores:
            error = score.error
            margin = "" if error is None else f" ± {error:.2g}"
            count = "" if score.count is None else f"  ({plural(score.count, 'example')})"
            self.line(f"  {printable(score.name)} {score.value:.4g}{margin}{count}")


def _import(repository: Repository, args: argparse.Namespace, declared: config.Config) -> int:
    """Keep the results of files for one checkpoint.

    Raises:
        UsageError: it is not clear which checkpoint, or which evaluation; or an option is for runs.
    """
    given = {"--dry-run": args.dry_run, "--jobs": args.jobs != 1,
             "--timeout": args.timeout is not None,
             "--force": args.force, "--allow-evaluation": args.allow_evaluation}  # fmt: skip
    for option in (name for name, is_given in given.items() if is_given):
        raise UsageError(f"{option} says how to run an evaluation; --import runs nothing")
    names = args.evaluation or [one.name for one in declared.evaluations]
    if len(names) != 1:
        raise UsageError(
            "say which evaluation these results are of",
            hint=f"git theta evaluate --import {printable(args.files[0])} --evaluation NAME",
        )
    evaluation = declared.evaluation(names[0])
    targets = _targets(repository, args)
    if evaluation is not None and args.path is None:
        targets = [one for one in targets if _fits(evaluation, one)]
    if len({one.content for one in targets}) != 1:
        paths = ", ".join(sorted({printable(one.path) for one in targets})[:5]) or "none"
        raise UsageError(
            f"say which checkpoint these results are of; there: {paths}", hint="--path PATH"
        )
    (target, *_) = targets
    lower = evaluation.lower_is_better if evaluation else ()
    scores, source, remarks = read_all(_given(repository, args.files), names[0], lower)
    for remark in remarks:
        print(f"git theta: warning: {paragraph(remark)}", file=sys.stderr)
    result = Result(
        target.content, names[0], None, None, None, "imported", committer(repository),
        int(time.time()), target.rev, target.path, source, scores,
    )  # fmt: skip
    kept = Kept(repository)
    known = kept.of([target.content]).get(target.content, ())
    again = any(_same(one, result) for one in known)
    if not again:
        kept.add([result])
    if args.json:
        print(to_json({"imported": [] if again else [as_json(result)],
                       "known": [as_json(result)] if again else []}))  # fmt: skip
        return 0
    what = "These results are kept already for" if again else "Kept for"
    print(f"{what} {printable(target.name)}, as {names[0]} (read from {printable(source)}):")
    _Speaker(False).scores(scores)
    return 0


def _given(repository: Repository, names: Sequence[str]) -> list[Path]:
    """The files that are to be read, those of folders among them.

    Raises:
        UsageError: one is not there, or is a revision, which `--import` has taken for a file.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.exists():
            if repository.resolve(f"{name}^{{commit}}") is not None:
                raise UsageError(f"{printable(name)} is a revision: it goes before --import")
            raise UsageError(f"there is no file {printable(name)}")
        found += files_in(path) if path.is_dir() else [path]
    if not found:
        raise UsageError(
            f"there is no file of results in {printable(names[0])}", hint=f"looked for {LOOKED_FOR}"
        )
    return found


def _same(one: Result, other: Result) -> bool:
    """Whether two results say the same, whoever brought them and when."""
    rows = [as_json(each) for each in (one, other)]
    kept = ("evaluation", "definition", "examples", "beside", "origin", "source")
    if any(rows[0][key] != rows[1][key] for key in kept):
        return False
    scores = [[score | {"kind": None, "examples": None} for score in row["scores"]] for row in rows]
    return scores[0] == scores[1]
