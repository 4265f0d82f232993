"""`git theta merge OTHER --gate`: the part of the verb that merges only what the gates accept.

Each way of merging is tried beside everything: a tree that nobody sees, a commit that no ref names.
It is measured and judged like any other update, against both parents. What is accepted is merged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from git_theta_ext.cli import consent
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import paragraph, plural, printable
from git_theta_ext.evaluation.config import Evaluation
from git_theta_ext.evaluation.gates import words
from git_theta_ext.evaluation.gates.check import Check, Report, config_at
from git_theta_ext.evaluation.gates.ends import Ends
from git_theta_ext.evaluation.gates.rules import is_higher_better
from git_theta_ext.evaluation.gates.verdict import Row
from git_theta_ext.evaluation.kept import Kept
from git_theta_ext.evaluation.results import Result
from git_theta_ext.evaluation.run import plan, run
from git_theta_ext.evaluation.targets import Target, Targets
from git_theta_ext.git.operations import Heads
from git_theta_ext.git.process import run_program
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.settings_file import FILE
from git_theta_ext.git.trees import commit_tree
from git_theta_ext.merge.branches.tune import Contest, Score, Trial, candidates
from git_theta_ext.merge.strategies import policy
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.objects.blocks import Blocks

_AS_CONFIGURED = "as configured"
_USAGE = 129
"""Git's exit status where it does not know an option."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A way of merging that was tried: the commit that it made, and what the gates say of it.

    `commit` and `report` are None where something stayed in conflict.
    """

    label: str
    choice: Choice | None
    commit: str | None
    report: Report | None

    @property
    def accepted(self) -> bool:
        """Whether it may be merged."""
        return self.report is not None and self.report.code == 0


def choose(
    repository: Repository,
    heads: Heads,
    choice: Choice | None,
    contests: Sequence[Contest],
    *,
    allowed: bool,
) -> Attempt | None:
    """Try until the gates hold; says what was tried. None where nothing was accepted.

    Args:
        repository: with a work tree, in which evaluations are run.
        heads: the two sides.
        choice: the only strategy to try; None: what is configured, then what `--tune` would try.
        contests: the checkpoints that both sides changed.
        allowed: the commands may be run without asking.

    Raises:
        UsageError: HEAD has neither gates nor modules, or a command is not allowed.
    """
    config = config_at(repository, heads.ours)
    if not config.gates and not config.modules:
        raise UsageError(
            f"--gate: there is no gate in the {FILE} of HEAD",
            hint=f'in {FILE}, committed: [[gate]], evaluation = "NAME", max_drop = 0.01',
        )
    needed = {gate.evaluation for gate in config.gates}
    evaluations = [one for one in config.evaluations if one.name in needed]
    consent.require(repository, (one.command for one in evaluations), once=allowed)
    trying = _Trying(repository, heads, evaluations)
    judges = [plural(len(config.gates), "gate")] if config.gates else []
    judges += [plural(len(config.modules.modules), "module")] if config.modules else []
    print(f"Judged by {' and '.join(judges)} of HEAD, against both sides:")
    for attempt in trying.attempts(choice, contests):
        print(f"  {printable(attempt.label)}: {_said(attempt)}", flush=True)
        if attempt.accepted and attempt.report is not None:
            print(f"\n{words.text(attempt.report)}", end="")
            return attempt
    print("Nothing was merged.")
    return None


def verified(repository: Repository, accepted: Attempt) -> int:
    """0: what was merged, or is staged after `--no-commit`, is what was accepted.

    Raises:
        RepositoryError: it is something else.
    """
    made = repository.git("write-tree").decode().strip()
    if made != repository.resolve(f"{accepted.commit}^{{tree}}"):
        raise RepositoryError(
            "the merge is not the one that was judged: a hook or an option changed it",
            hint="git reset --keep ORIG_HEAD   takes the merge back",
        )
    return 0


@dataclass(slots=True)
class _Trying:
    """The attempts of one merge."""

    repository: Repository
    heads: Heads
    evaluations: Sequence[Evaluation]

    def attempts(self, choice: Choice | None, contests: Sequence[Contest]) -> Iterator[Attempt]:
        """What is configured, or was chosen; then the candidates of `--tune`, by what they lose."""
        first = self._attempt(_AS_CONFIGURED if choice is None else str(choice), choice)
        yield first
        found = [] if choice is not None or self._is_forward else contests
        if len(found) != 1:
            if len(found) > 1:
                names = ", ".join(printable(one.path) for one in found)
                print(f"  no other strategy is tried for several checkpoints at once: {names}")
            return
        trials = self._sides()
        for candidate in candidates(found[0], trials):
            attempt = self._attempt(str(candidate), candidate)
            trials.append(Trial(attempt.label, candidate, Score(_worst(attempt))))
            yield attempt

    def _sides(self) -> list[Trial]:
        """Both sides as `candidates` sees them: by the most that is lost where one is taken."""
        kept = Kept(self.repository)
        revisions = (self.heads.ours, self.heads.theirs)
        self._measure(revisions, kept)
        contents = [{one.path: one.content for one in Targets(self.repository).of(rev)}
                    for rev in revisions]  # fmt: skip
        known = kept.of({one for each in contents for one in each.values()})
        gains = [0.0]  # of theirs over ours, each score by its own direction
        for path in contents[0].keys() & contents[1].keys():
            ours, theirs = (known.get(each[path], ()) for each in contents)
            for evaluation in self.evaluations:
                gains += _gains(evaluation, ours, theirs)
        return [
            Trial("ours", None, Score(min(-gain for gain in gains))),
            Trial("theirs", None, Score(min(gains))),
        ]

    @property
    def _is_forward(self) -> bool:
        return self.heads.base == self.heads.ours

    def _attempt(self, label: str, choice: Choice | None) -> Attempt:
        commit = self.heads.theirs if self._is_forward else self._merged(choice)
        if commit is None:
            return Attempt(label, choice, None, None)
        kept = Kept(self.repository)
        self._measure((self.heads.ours, self.heads.theirs, commit), kept)
        sides = (("ours", self.heads.ours), ("theirs", self.heads.theirs))
        check = Check(
            self.repository, Ends(self.heads.ours, commit, self.heads.ours), kept,
            Blocks.open(self.repository), parents=sides,
        )  # fmt: skip
        return Attempt(label, choice, commit, check.run())

    def _merged(self, choice: Choice | None) -> str | None:
        """A commit of the merge that no ref names; None where something is in conflict.

        Raises:
            RepositoryError: Git cannot do that.
        """
        before = os.environ.get(policy.VARIABLE)
        if choice is not None:
            os.environ[policy.VARIABLE] = str(choice)
        try:
            status, output, errors = run_program(
                ["git", "merge-tree", "--write-tree", "--no-messages", self.heads.ours,
                 self.heads.theirs], self.repository.cwd,
            )  # fmt: skip
        finally:
            if choice is not None:
                os.environ.pop(policy.VARIABLE)
                if before is not None:
                    os.environ[policy.VARIABLE] = before
        if status == 1:
            return None
        if status:
            raise RepositoryError(
                f"the merge could not be tried: {paragraph(errors.decode('utf-8', 'replace'))}",
                hint="merging by gates needs Git 2.38 or newer" if status == _USAGE else None,
            )
        tree = output.decode().split()[0]
        sides = (self.heads.ours, self.heads.theirs)
        return commit_tree(self.repository, tree, sides, "A merge that is tried")

    def _measure(self, revisions: Sequence[str], kept: Kept) -> None:
        """Have the checkpoints of some commits measured, as far as they are not."""
        targets = Targets(self.repository)
        there = [{one.path: one for one in targets.of(rev)} for rev in revisions]
        pairs = [
            (one, target)
            for path in dict.fromkeys(path for each in there for path in each)
            for target in _differing([each.get(path) for each in there])
            for one in self.evaluations
            if one.is_for(path) or any(one.is_for(name) for name, _ in target.files)
        ]
        planned = plan(self.repository, pairs, kept)
        limit = {one.name: one.timeout for one in self.evaluations}
        with closing(run(self.repository, planned.jobs, kept, workers=1,
                         seconds=lambda one: limit[one.name])) as done:  # fmt: skip
            for one in done:
                if one.error is not None:
                    name = printable(one.job.target.name)
                    print(f"  {one.job.evaluation.name} of {name}: {paragraph(str(one.error))}")


def _differing(versions: Sequence[Target | None]) -> list[Target]:
    """The versions of a checkpoint that are there; none of one that is the same everywhere."""
    found = [one for one in versions if one is not None]
    same = len(found) == len(versions) and len({(one.content, one.beside) for one in found}) == 1
    return [] if same else found


def _said(attempt: Attempt) -> str:
    """The verdict on an attempt in a line."""
    if attempt.report is None:
        return "something stays in conflict"
    wrong = [row for row in attempt.report.rows if row.verdict != "accepted"]
    if not wrong:
        return "accepted"
    reasons = [f"{row.name} against {row.against or 'nothing'}: {row.reasons[0]}" for row in wrong]
    return printable("; ".join(reasons))


def _lost(row: Row) -> float:
    """What a row says was gained; less than 0 where something was lost."""
    if row.before is None or row.after is None:
        return 0.0
    return row.after - row.before if row.higher_is_better else row.before - row.after


def _worst(attempt: Attempt) -> float:
    """The score of an attempt, for the choice of the next one: the most that a side would lose."""
    rows = attempt.report.rows if attempt.report is not None else ()
    return min((_lost(row) for row in rows if row.difference is not None), default=-1e9)


def _gains(
    evaluation: Evaluation, ours: Sequence[Result], theirs: Sequence[Result]
) -> Iterator[float]:
    """How much better theirs is than ours, by each score of an evaluation that both have."""
    mine, yours = (
        next((one for one in results if one.evaluation == evaluation.name), None)
        for results in (ours, theirs)
    )
    for new in yours.scores if mine is not None and yours is not None else ():
        old = mine.score(new.task, new.metric) if mine is not None else None
        if old is not None:
            higher = is_higher_better(evaluation, new, old)
            yield new.value - old.value if higher else old.value - new.value
