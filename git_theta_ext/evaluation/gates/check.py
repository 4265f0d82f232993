"""A check: the gates of the base, applied to each checkpoint that an update changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.modules import Modules
from git_theta_ext.comparison.compare import Lacking
from git_theta_ext.comparison.files import Pair, changed_checkpoints
from git_theta_ext.comparison.named import Version as Commit
from git_theta_ext.comparison.named import version_of
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.globs import Globs
from git_theta_ext.evaluation.config import Config, Evaluation, Gate, parse
from git_theta_ext.evaluation.gates import ownership
from git_theta_ext.evaluation.gates.ends import Ends, empty_tree
from git_theta_ext.evaluation.gates.ownership import Touched
from git_theta_ext.evaluation.gates.properties import properties
from git_theta_ext.evaluation.gates.rules import Case, Version, best, judge, with_results
from git_theta_ext.evaluation.gates.verdict import Row, code_of
from git_theta_ext.evaluation.gates.versions import MOST, Versions, pathspec
from git_theta_ext.evaluation.measure import uses_folder
from git_theta_ext.evaluation.results import Result
from git_theta_ext.evaluation.targets import Target
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.settings_file import FILE, bytes_at
from git_theta_ext.objects.blocks import Blocks


class Results(Protocol):
    """Where results are kept."""

    def of(
        self, contents: Iterable[str], *, outcomes: bool = False
    ) -> Mapping[str, tuple[Result, ...]]:
        """The results of some contents, the newest first."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        rows: what each gate says, in the order of the checkpoints.
        old, new: the commits that were compared; None where one is none (the empty tree).
        rules: the commit whose gates counted; None where there is none.
        gates: how many gates there are.
        changed: the checkpoints that differ.
        notes: what a reader must know besides.
        modules: how many modules are declared.
        touched: the modules that differ, checkpoint by checkpoint; their owners are to be asked.
        changed_modules: how the update's own modules are others, as one of the notes; else "".
        history: by checkpoint and subject, the scores of the base and of the versions since, the
            oldest first; None where one was not measured. Empty where it was not asked for.
    """

    rows: tuple[Row, ...]
    old: Commit | None
    new: Commit | None
    rules: Commit | None
    gates: int
    changed: tuple[str, ...]
    notes: tuple[str, ...] = ()
    modules: int = 0
    touched: tuple[Touched, ...] = ()
    changed_modules: str = ""
    history: Mapping[tuple[str, str], tuple[float | None, ...]] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """The exit code of `git theta check`."""
        return code_of(self.rows)

    @property
    def owners(self) -> tuple[str, ...]:
        """Whom to ask: the owners of the modules that differ, each once."""
        return tuple(dict.fromkeys(one for each in self.touched for one in each.part.module.owners))


def config_at(repository: Repository, commit: str | None) -> Config:
    """What `.theta.toml` declares in a commit; nothing where there is none.

    Raises:
        UsageError: it is not usable.
    """
    data = bytes_at(repository, commit) if commit is not None else None
    return Config() if data is None else parse(data)


def chosen(config: Config, names: Sequence[str]) -> tuple[Gate, ...]:
    """The gates that are called so, or whose names begin so (`glue`); all without names.

    Raises:
        UsageError: a name is that of no gate.
    """
    for name in names:
        if name == ownership.NAME and config.modules:
            continue
        if not any(_is_called(gate, name) for gate in config.gates):
            known = ", ".join(gate.name for gate in config.gates) or "none"
            raise UsageError(f"there is no gate {name!r}", hint=f"gates of {FILE}: {known}")
    return tuple(
        gate for gate in config.gates
        if not names or any(_is_called(gate, name) for name in names)
    )  # fmt: skip


def _is_called(gate: Gate, name: str) -> bool:
    return gate.name == name or gate.name.startswith(f"{name}/")


@dataclass(slots=True)
class Check:
    """A check of one update.

    Attributes:
        repository: where everything is.
        ends: what is compared, and whose rules count.
        results: where results are found.
        blocks: where values are read from, for gates on new NaN.
        only: names of the gates that count; all where there are none.
        lacking: tells for a checkpoint why values cannot be read; by default all are fetched.
        parents: labels and commits that every gate compares with, whatever it says itself; those
            of a merge that is tried.
    """

    repository: Repository
    ends: Ends
    results: Results
    blocks: Blocks | None = None
    only: Sequence[str] = ()
    lacking: Callable[[Pair], Lacking] | None = None
    parents: Sequence[tuple[str, str]] = ()
    _versions: Versions = field(init=False)

    def __post_init__(self) -> None:
        self._versions = Versions(self.repository)

    def run(self) -> Report:
        """Judge; nothing is evaluated, and nothing is written.

        Raises:
            UsageError: `.theta.toml` is not usable, or has no such gate.
            ThetaError: a checkpoint cannot be read.
        """
        repository, ends = self.repository, self.ends
        config = config_at(repository, ends.rules)
        gates = chosen(config, self.only)
        modules = config.modules
        if self.only and ownership.NAME not in self.only:
            modules = Modules()
        own, said = self._own_modules(config.modules)
        rows: list[Row] = []
        touched: list[Touched] = []
        left: dict[str, Sequence[str]] = {}
        paths: dict[str, str] = {}
        for base, pair in self._pairs(gates, modules):
            with closing(pair):
                if base == ends.old:
                    lacking = None if self.lacking is None else self.lacking(pair)
                    names = self._names(pair.path, pair.renamed_from or pair.path)
                    matching = [gate for gate in gates if _is_for(gate, config, names)]
                    rows += properties(matching, pair, config.modules, lacking)
                    judged = ownership.judge_modules(modules, pair, own)
                    rows += judged.rows
                    touched += judged.touched
                    left[pair.path] = judged.left
                if pair.path not in paths:
                    paths[pair.path] = pair.renamed_from or pair.path
                    self._versions.note(base, ends.new, pair)
        paths |= {path: path for path in self._changed_beside(config, gates) if path not in paths}
        rows += judge(self._cases(config, gates, paths))
        order = {path: at for at, path in enumerate(paths)}
        rows.sort(key=lambda row: order[row.path])
        return Report(
            tuple(rows), version_of(repository, ends.old), version_of(repository, ends.new),
            version_of(repository, ends.rules) if ends.rules else None,
            len(gates), tuple(paths),
            (*self._notes(gates, modules), *said, *ownership.said_of_left(left)),
            len(modules.modules), tuple(touched), said[0] if own is not None else "",
        )  # fmt: skip

    def history(self, rows: Sequence[Row]) -> dict[tuple[str, str], tuple[float | None, ...]]:
        """The scores of the versions from the base to the update; see `Report`."""
        found = {}
        for path in dict.fromkeys(row.path for row in rows if row.after is not None):
            answer = self.repository.git(
                "rev-list", "--reverse", f"-{MOST}", self.ends.new, f"^{self.ends.old}",
                "--", pathspec(path), ok=(0, 128),
            )  # fmt: skip
            commits = [self.ends.old, *answer.decode().split()]
            contents = [self._versions.content(commit, path) for commit in commits]
            known = self.results.of({one for one in contents if one})
            for row in (one for one in rows if one.path == path and one.gate.evaluation):
                found[path, row.subject] = tuple(
                    _newest(known.get(one or "", ()), row) for one in contents
                )
        return found

    def _names(self, *paths: str) -> set[str]:
        """What a gate may call a checkpoint: its paths; of a model, its files and their index."""
        found = set(paths)
        for path in paths:
            if shards.names_model(path):
                model = shards.find(self.repository, self.ends.new, path)
                found |= {name for name, _ in model.shards} if model is not None else set()
                found.add(f"{path.replace('-*-of-*', '')}.index.json")
        return found

    def _changed_beside(self, config: Config, gates: Sequence[Gate]) -> Iterable[str]:
        """Checkpoints with other files beside them, where an evaluation gets their folder.

        Another tokenizer or configuration may change a score as other tensors do.
        """
        names = {gate.evaluation for gate in gates}
        if not any(one.name in names and uses_folder(one) for one in config.evaluations):
            return
        old = self._versions.targets(self.ends.old)
        for path, target in self._versions.targets(self.ends.new).items():
            before = old.get(path)
            if before is not None and _beside(before) != _beside(target):
                yield path

    def _pairs(self, gates: Sequence[Gate], modules: Modules) -> Iterable[tuple[str, Pair]]:
        """What differs from the base, and from the parents where a gate asks for those."""
        bases = [self.ends.old] if gates or modules else []
        if any(gate.against == "parents" for gate in gates) or self.parents:
            bases += [commit for _, commit in self._parents() if commit not in bases]
        for base in bases:
            for pair in changed_checkpoints(
                self.repository, [base, self.ends.new], [], blocks=self.blocks
            ):
                yield base, pair

    def _parents(self) -> list[tuple[str, str]]:
        """The labels and commits of the parents of a merge; none of another commit."""
        if self.parents:
            return list(self.parents)
        answer = self.repository.git("rev-list", "--parents", "-1", self.ends.new, "--")
        parents = answer.decode().split()[1:]
        numbered = [(f"parent {number}", one) for number, one in enumerate(parents, 1)]
        return numbered if len(parents) > 1 else []

    def _notes(self, gates: Sequence[Gate], modules: Modules) -> Iterable[str]:
        """What is said of rules that the update itself brings."""
        before, after, rules = (
            self.repository.blob_at(one, FILE) if one is not None else None
            for one in (self.ends.old, self.ends.new, self.ends.rules)
        )
        if before != after and after is not None:
            yield f"this changes {FILE}: its gates count once they are on the base"
        if not gates and not modules and rules is None:
            yield f"there is no {FILE} on the base, so there is no gate"

    def _own_modules(self, modules: Modules) -> tuple[Modules | None, list[str]]:
        """The modules of an update that changes those of its base, and what is said of that."""
        repository, ends = self.repository, self.ends
        if repository.blob_at(ends.old, FILE) == repository.blob_at(ends.new, FILE):
            return None, []
        everything = changed_checkpoints(
            repository, [empty_tree(repository), ends.new], [], blocks=self.blocks,
            on_damage=lambda *_: None,
        )  # fmt: skip
        try:
            own = config_at(repository, ends.new).modules
            said = ownership.said_of_change(modules, own)
            return (own, [said, *ownership.said_of_own(own, everything)]) if said else (None, [])
        except UsageError as error:
            # (It is the update's own, and keeps nobody from judging it.)
            return None, [f"the {FILE} of this is not usable: {error.message}"]

    # -- the versions that are compared ------------------------------------------------------------

    def _cases(self, config: Config, gates: Sequence[Gate], paths: Mapping[str, str]) -> list[Case]:
        """The cases with the results of all versions, which are read together.

        Args:
            config: has the evaluations.
            gates: those that count.
            paths: of the checkpoints, each with that of its old version.
        """
        planned = []
        for path, old in paths.items():
            names = self._names(path, old)
            for gate in gates:
                evaluation = config.evaluation(gate.evaluation or "")
                if evaluation is not None and _is_for(gate, config, names):
                    update = self._versions.version("this", self.ends.new, [path], evaluation)
                    others = self._others(gate, evaluation, update, (path, old))
                    planned.append((gate, evaluation, path, update, others))
        contents = {one.content for *_, update, others in planned for one in (update, *others)}
        known = self.results.of(sorted(one for one in contents if one), outcomes=True)
        return [
            Case(gate, evaluation, path, with_results(update, evaluation, known),
                 tuple(with_results(one, evaluation, known) for one in others))
            for gate, evaluation, path, update, others in planned
        ]  # fmt: skip

    def _others(
        self, gate: Gate, evaluation: Evaluation, update: Version, paths: Sequence[str]
    ) -> list[Version]:
        """What a gate compares with."""
        ends, versions = self.ends, self._versions
        if gate.max_drop is None and gate.min_gain is None:
            return []
        if (gate.against == "parents" or self.parents) and (parents := self._parents()):
            return [versions.version(*parent, paths, evaluation) for parent in parents]
        if gate.against.startswith("tag:"):
            name = gate.against.removeprefix("tag:")
            commit = self.repository.resolve(f"refs/tags/{name}^{{commit}}")
            if commit is None:
                return [Version(f"tag {name}", "", "")]
            return [versions.version(name, commit, paths, evaluation)]
        base = versions.version(ends.label, ends.old, paths[::-1], evaluation)
        if gate.against != "best":
            return [base]
        there = [base, *versions.history(ends.old, paths[-1], evaluation)]
        known = self.results.of({one.content for one in (update, *there) if one.content})
        return [base, *best(
            [with_results(one, evaluation, known) for one in there], gate, evaluation,
            with_results(update, evaluation, known),
        )]  # fmt: skip


def _is_for(gate: Gate, config: Config, names: Iterable[str]) -> bool:
    """Whether a gate is for a checkpoint of these names."""
    evaluation = config.evaluation(gate.evaluation) if gate.evaluation is not None else None
    if gate.paths:
        return any(Globs(gate.paths, FILE).matches(name) for name in names)
    return evaluation is None or any(evaluation.is_for(name) for name in names)


def _beside(target: Target) -> set[tuple[str, str]]:
    return {(PurePosixPath(path).name, oid) for path, oid in target.beside}


def _newest(results: Sequence[Result], row: Row) -> float | None:
    """The newest score of a version that a row is about."""
    for result in results:
        if result.evaluation == row.gate.evaluation:
            for score in result.scores:
                if score.name == row.subject:
                    return score.value
    return None
