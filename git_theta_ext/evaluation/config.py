"""What a project declares in `.theta.toml`: evaluations, gates that updates must pass, modules.

A pure function of the file's bytes, so that the rules can be those of another commit than the one
that is judged. `docs/evaluating.md` has the grammar.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from git_theta_ext.checkpoints import modules
from git_theta_ext.checkpoints.modules import Modules
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.globs import Globs
from git_theta_ext.git.settings_file import FILE, Rows, Table, each, tables

PLACES = ("checkpoint", "model_dir", "results", "rev")
"""What may stand in braces in a command."""

_PLACE = re.compile(r"\{([a-z_]+)\}")
_TAG = re.compile(r"tag:[^\s~^:?*\[\\]+")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A command that measures a checkpoint, and which checkpoints it is for.

    Attributes:
        name: of letters, digits and `._+-`.
        command: its text, as it is allowed and hashed; `{checkpoint}`, `{model_dir}`, `{results}`
            and `{rev}` stand in it.
        paths: patterns of the checkpoints; empty: all.
        timeout: seconds; None: no limit.
        examples: files of the repository, or patterns, that it depends on besides the model.
        lower_is_better: metrics of which less is more, where the results do not say so.
    """

    name: str
    command: str
    paths: tuple[str, ...] = ()
    timeout: float | None = None
    examples: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The command as a list of arguments: no shell ever sees it."""
        return tuple(shlex.split(self.command))

    @property
    def definition(self) -> str:
        """The SHA-256 of what is run; results of different definitions are not compared."""
        return definition_of(self.words)

    def is_for(self, path: str) -> bool:
        """Whether a checkpoint (its path from the top) is to be measured by it."""
        return not self.paths or Globs(self.paths, FILE).matches(path)


def definition_of(words: Sequence[str]) -> str:
    """The SHA-256 of a command, word by word."""
    text = json.dumps({"command": list(words)}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


Against = Literal["base", "best", "parents"] | str
"""What a gate compares with; a text beyond the three words is `tag:NAME`."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A rule that an update must pass.

    Attributes:
        name: what `--gate` and reports call it: `glue/rte` unless it was given one.
        evaluation: whose results it looks at; None where it only looks at the checkpoint itself.
        task, metric: which score; None: all that the evaluation gives.
        paths: patterns of the checkpoints; empty: those of the evaluation, or all.
        min, max: bounds of the score itself.
        max_drop, min_gain: bounds of the difference from `against`, in the metric's own unit.
        confidence: of the test, above 0.5 and below 1.
        prove: accept only if a larger drop can be excluded with that confidence.
        against: `base`, `best`, `parents` or `tag:NAME`.
        max_stored: bytes that an update may add to the store.
        new_nan: False: no tensor may get a NaN that it did not have.
        frozen: patterns of tensors that must not change.
        module: the name of the module whose tensors alone it looks at; None: all tensors.
    """

    name: str
    evaluation: str | None = None
    task: str | None = None
    metric: str | None = None
    paths: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    min_gain: float | None = None
    confidence: float = 0.95
    prove: bool = False
    against: Against = "base"
    max_stored: int | None = None
    new_nan: bool = True
    frozen: tuple[str, ...] = ()
    module: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The evaluations, gates and modules of one `.theta.toml`, in its order."""

    evaluations: tuple[Evaluation, ...] = ()
    gates: tuple[Gate, ...] = ()
    modules: Modules = field(default_factory=Modules)

    def evaluation(self, name: str) -> Evaluation | None:
        """The evaluation of that name, if there is one."""
        return next((one for one in self.evaluations if one.name == name), None)


def parse(data: bytes) -> Config:
    """What a `.theta.toml` declares; its other tables are left to those who know them.

    Raises:
        UsageError: it is not usable; names the table, and the line where that can be told.
    """
    document = tables(data)
    rows = Rows(document, "gate", data)
    found = Config(
        each(Rows(document, "evaluation", data), _evaluation),
        each(rows, _gate),
        modules.parse(data),
    )
    for number, gate in enumerate(found.gates):
        if gate.evaluation is not None and found.evaluation(gate.evaluation) is None:
            names = ", ".join(one.name for one in found.evaluations) or "none"
            raise UsageError(
                f"{rows.where(number, 'evaluation')}: there is no evaluation {gate.evaluation!r}",
                hint=f"declared with [[evaluation]]: {names}",
            )
        if gate.module is not None:
            _check_module(found.modules, gate.module, rows.where(number, "module"))
    return found


def _check_module(known: Modules, name: str, where: str) -> None:
    """Refuse a gate for a module that the file does not declare."""
    try:
        known.named(name)
    except UsageError as error:
        raise UsageError(f"{where}: there is no module {name!r}", hint=error.hint) from error


def _evaluation(rows: Rows, number: int) -> Evaluation:
    """One `[[evaluation]]`; UsageError where a key is missing, unknown or of the wrong kind."""
    known = ("name", "command", "path", "timeout", "examples", "lower_is_better")
    rows.refuse_unknown(number, known)
    table = Table(rows, number)
    name, command = table.name("glue"), table.text("command")
    if command is None:
        raise table.error(None, 'it has no command, such as command = "python evaluate.py '
                          '{checkpoint} --out {results}"')  # fmt: skip
    _check_command(table, command)
    timeout = table.number("timeout", 0)
    if timeout == 0:
        raise table.error("timeout", "timeout is a number of seconds above 0; leave it out for no "
                          "limit")  # fmt: skip
    return Evaluation(
        name, command, table.texts("path"), timeout, table.texts("examples"),
        table.texts("lower_is_better"),
    )  # fmt: skip


def _check_command(table: Table, command: str) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise table.error("command", f"{error}: {command!r}") from error
    places = {place for word in words for place in _PLACE.findall(word)}
    if not places & {"checkpoint", "model_dir"}:
        raise table.error(
            "command", f"it does not name what to measure: {command!r}",
            hint="put {checkpoint} where its path goes, or {model_dir} for the model's folder",
        )  # fmt: skip
    for place in sorted(places - set(PLACES)):
        known = ", ".join(f"{{{one}}}" for one in PLACES)
        raise table.error("command", f"unknown place {{{place}}}", hint=f"known: {known}")


def _gate(rows: Rows, number: int) -> Gate:
    """One `[[gate]]`; UsageError where it has no rule, or one that needs what it does not say."""
    rules = ("min", "max", "max_drop", "min_gain", "max_stored", "new_nan", "frozen")
    scored = ("min", "max", "max_drop", "min_gain")
    other = ("name", "evaluation", "task", "metric", "path", "confidence", "prove", "against",
             "module")  # fmt: skip
    rows.refuse_unknown(number, (*rules, *other))
    table = Table(rows, number)
    if not any(table.has(rule) for rule in rules):
        raise table.error(None, "it has no rule", hint=f"one of {', '.join(rules)}")
    evaluation, task, metric = (table.text(key) for key in ("evaluation", "task", "metric"))
    for key in (*scored, "task", "metric", "prove"):
        if evaluation is None and table.has(key):
            raise table.error(key, f"{key} needs an evaluation", 'such as evaluation = "glue"')
    module = table.text("module")
    if module is not None and evaluation is not None:
        raise table.error(
            "module", "scores are of the whole checkpoint, not of one module",
            hint="leave out module or evaluation; module goes with max_stored, new_nan and frozen",
        )  # fmt: skip
    against = table.text("against") or "base"
    if against not in ("base", "best", "parents") and not _TAG.fullmatch(against):
        raise table.error("against", f"against is base, best, parents or tag:NAME, not {against!r}")
    confidence = table.number("confidence")
    if confidence is not None and not 0.5 < confidence < 1:
        raise table.error("confidence", f"confidence is above 0.5 and below 1, not {confidence:g}")
    words = [one for one in (evaluation, task, metric) if one is not None]
    return Gate(
        table.text("name") or "/".join(words) or module or f"gate-{number + 1}",
        evaluation, task, metric, table.texts("path"),
        table.number("min"), table.number("max"),
        table.number("max_drop", 0), table.number("min_gain", 0),
        0.95 if confidence is None else confidence,
        table.flag("prove", False), against, table.size("max_stored"),
        table.flag("new_nan", True), table.texts("frozen"), module,
    )  # fmt: skip
