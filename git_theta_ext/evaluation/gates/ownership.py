"""The rules of modules: a frozen one stays as it is, and what an update changes has one owner.

They are gates that `[[module]]` brings along: those of the base count. Manifests say all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from git_theta_ext.checkpoints.modules import Module, Modules
from git_theta_ext.comparison.division import Division, Part, divided
from git_theta_ext.comparison.files import Pair
from git_theta_ext.core.errors import UsageError
from git_theta_ext.evaluation.config import Gate
from git_theta_ext.evaluation.gates.properties import named
from git_theta_ext.evaluation.gates.verdict import Row, Verdict

NAME = "modules"
"""What `--gate` calls all rules of modules."""
_SAID = 8
"""Modules or checkpoints that a sentence names; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Touched:
    """A module that an update changes in a checkpoint, whose owners are to be asked."""

    path: str
    part: Part


@dataclass(frozen=True, slots=True)
class Judged:
    """What the modules say of one checkpoint.

    Attributes:
        rows: one for each frozen module, one on tensors without a module or with several.
        touched: the modules that the update changes.
        left: tensors that it leaves as they were, and that have no module, or several.
    """

    rows: tuple[Row, ...] = ()
    touched: tuple[Touched, ...] = ()
    left: tuple[str, ...] = ()


def judge_modules(modules: Modules, pair: Pair, own: Modules | None = None) -> Judged:
    """Apply the rules of modules to a checkpoint that an update changes; no value is read.

    Args:
        modules: those of the base.
        pair: the checkpoint as it is in the base, and now.
        own: the modules that the update itself declares, where they are others.

    Raises:
        UsageError: the tensors' names need more work than is allowed.
    """
    if not modules:
        return Judged()
    if not pair.compared:
        if not any(one.is_in(pair.path) for one in modules):
            return Judged()
        why = "it cannot be read here"
        return Judged((Row(Gate(NAME), pair.path, "checkpoint", "unmeasured", (why,)),))
    found = pair.compare(measured=False)
    division = divided(found, modules, pair.path)
    if division is None:
        return Judged()
    is_new = found.old_format is None
    rows = [_frozen(part, pair.path, is_new) for part in division.parts if part.module.frozen]
    rows.append(_belonging(division, pair.path, own))
    touched = tuple(Touched(pair.path, part) for part in division.parts if part.changed)
    return Judged(tuple(rows), touched, division.left)


def asked(module: Module) -> str:
    """Whom to ask about a module: its owners, or that there is none."""
    return ", ".join(module.owners) or "no owner is named"


def _frozen(part: Part, path: str, is_new: bool) -> Row:
    """The row on a frozen module: its tensors are as they were, under their names."""
    module = part.module
    gate = Gate(f"module {module.name}", frozen=module.patterns)
    if is_new:
        return Row(gate, path, "frozen", "accepted", ("the checkpoint is new",), "base")
    if part.changed:
        why = f"frozen tensors differ: {named(part.names)}; to ask: {asked(module)}"
        return Row(gate, path, "frozen", "refused", (why,), "base", None, float(part.changed))
    return Row(gate, path, "frozen", "accepted", (), "base", None, 0.0)


def _belonging(division: Division, path: str, own: Modules | None) -> Row:
    """The row on tensors that the update changed or added, and that have not one module each."""
    why = []
    if division.outside:
        why.append(f"these belong to no module: {named(division.outside)}")
        homes = _homes(division.outside, path, own)
        if homes:
            why.append(f"its own modules have them ({', '.join(homes)}): merge those first")
    if division.several:
        each = [f"{name} ({_names(those)})" for name, those in division.several]
        why.append(f"these belong to several modules: {named(each)}")
    wrong = len(division.outside) + len(division.several)
    verdict: Verdict = "refused" if wrong else "accepted"
    subject = "one for each tensor"
    return Row(Gate(NAME), path, subject, verdict, tuple(why), "base", None, float(wrong))


def _homes(tensors: Sequence[str], path: str, own: Modules | None) -> list[str]:
    """The modules of an update's own that have all of some tensors, each of them one."""
    try:
        found = [own.of(path, name) for name in tensors] if own is not None else []
    except UsageError:
        return []  # (its names and patterns are its own, too)
    if not all(len(those) == 1 for those in found):
        return []
    return list(dict.fromkeys(those[0].name for those in found))


def _names(modules: Sequence[Module]) -> str:
    return ", ".join(one.name for one in modules)


def said_of_change(old: Modules, new: Modules) -> str:
    """How the modules of an update differ from those of its base, in a sentence; "" if they do not.

    What loosens comes first: a frozen module that would not be any more, or would be gone.
    """
    before = {one.name: one for one in old}
    after = {one.name: one for one in new}
    loosened: list[str] = []
    others: list[str] = []
    for name, module in before.items():
        now = after.get(name)
        if now is None:
            (loosened if module.frozen else others).append(f"{name} is gone")
        elif module.frozen and not now.frozen:
            loosened.append(f"{name} is not frozen any more")
        elif now != module:
            (loosened if module.frozen else others).append(f"{name} has {_differing(module, now)}")
    others += [f"{name} is new" for name in after if name not in before]
    said = [*loosened, *others]
    if not said:
        return ""
    return f"this changes the modules, and that counts once it is on the base: {_counted(said)}"


def _differing(old: Module, new: Module) -> str:
    words = {
        "other patterns": old.patterns != new.patterns,
        "other owners": old.owners != new.owners,
        "other paths": old.paths != new.paths,
        "been frozen": old.frozen != new.frozen,
    }
    return " and ".join(word for word, differs in words.items() if differs)


def said_of_left(left: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What an update does not change and is nobody's part, or several's, by checkpoint."""
    found = [f"{named(names)} in {path}" for path, names in left.items() if names]
    if found:
        yield f"left as they were, though they have no module or several: {_counted(found)}"


def said_of_own(own: Modules, pairs: Iterable[Pair]) -> Iterator[str]:
    """What an update's own modules would leave without a module, or give to several.

    Args:
        own: the modules that it declares.
        pairs: all checkpoints that it has, as if they were new; they are closed.
    """
    found = []
    for pair in pairs:
        with closing(pair):
            one = pair.compare(measured=False)
            division = divided(one, own, pair.path) if pair.compared else None
        if division is None:
            continue
        if division.outside:
            found.append(f"{named(division.outside)} in {pair.path} would have no module")
        if division.several:
            names = [name for name, _ in division.several]
            found.append(f"{named(names)} in {pair.path} would have several")
    if found:
        yield f"by its own modules, {_counted(found)}"


def _counted(said: Sequence[str]) -> str:
    """The first of some phrases, and how many more there are."""
    more = [f"and {len(said) - _SAID} more"] if len(said) > _SAID else []
    return "; ".join([*said[:_SAID], *more])
