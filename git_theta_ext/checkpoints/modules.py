"""The parts of a model that `.theta.toml` names: which tensors each has, and who answers for it.

A pure function of the file's bytes; which version of it counts is the caller's choice.
`docs/modules.md` has the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from git_theta_ext.checkpoints.shards import index_of, model_of, names_model, pattern_of
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.globs import Globs
from git_theta_ext.core.globs import check as check_patterns
from git_theta_ext.core.patterns import expand
from git_theta_ext.core.text import nearest
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.settings_file import (
    FILE,
    Rows,
    Table,
    bytes_at,
    committed_bytes,
    each,
    tables,
)

KEYS = ("name", "pattern", "owners", "frozen", "path")
_OWNER = re.compile(r"@[\w.-]+(?:/[\w.-]+)*|[\w.+-]+@[\w.-]+", re.ASCII)
_OWNER_CHARS = 256


@dataclass(frozen=True, slots=True)
class Module:
    """A part of a model.

    Attributes:
        name: of letters, digits and `._+-`.
        patterns: of its tensors' names, without braces: what they stood for is written out.
        owners: who answers for it: `@user`, `@org/team`, or a mail address.
        frozen: whether its tensors are not to change.
        paths: patterns of the checkpoints that it is about, from the top; empty: all.
    """

    name: str
    patterns: tuple[str, ...]
    owners: tuple[str, ...] = ()
    frozen: bool = False
    paths: tuple[str, ...] = ()

    def is_in(self, path: str) -> bool:
        """Whether a checkpoint may have tensors of it.

        A shard goes by the pattern and the index of its model, too.
        """
        globs = Globs(self.paths, FILE)
        return not self.paths or any(globs.matches(name) for name in _names_of(path))


def _names_of(path: str) -> set[str]:
    """What a checkpoint may be called: a shard, or a model, also by its pattern and its index."""
    model = pattern_of(path) if names_model(path) else model_of(path)
    return {path} if model is None else {path, model, index_of(model)}


class _Matcher:
    """The patterns of some modules at once, and whose each is."""

    def __init__(self, modules: tuple[Module, ...]) -> None:
        pairs = [(pattern, module) for module in modules for pattern in module.patterns]
        self._globs = Globs((pattern for pattern, _ in pairs), f"{FILE}, [[module]]")
        self._whose = [module for _, module in pairs]

    def of(self, tensor: str) -> tuple[Module, ...]:
        found = self._globs.every(tensor)
        if len(found) < 2:
            return tuple(self._whose[at] for at in found)
        return tuple({self._whose[at].name: self._whose[at] for at in found}.values())


@dataclass(frozen=True, slots=True)
class Modules:
    """All modules of one version of `.theta.toml`, in its order.

    Attributes:
        modules: their names differ.
        where: what messages call that version.
    """

    modules: tuple[Module, ...] = ()
    where: str = FILE
    _of_path: dict[str, _Matcher] = field(default_factory=dict, repr=False, compare=False)
    _of_some: dict[tuple[str, ...], _Matcher] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self.modules)

    def __iter__(self) -> Iterator[Module]:
        """One after the other, in the order of the file."""
        return iter(self.modules)

    def of(self, path: str, tensor: str) -> tuple[Module, ...]:
        """The modules that a tensor belongs to, in order: one if all is well, or none, or several.

        Args:
            path: of its checkpoint, from the top; of a sharded model its pattern, or a shard.
            tensor: its name.

        Raises:
            UsageError: the names need more work than is allowed.
        """
        matcher = self._of_path.get(path)
        if matcher is None:
            matcher = self._of_path[path] = self._matcher(path)
        return matcher.of(tensor)

    def _matcher(self, path: str) -> _Matcher:
        """The one for a path; shards of one model, and most checkpoints, have the same."""
        some = tuple(module for module in self.modules if module.is_in(path))
        names = tuple(module.name for module in some)
        if names not in self._of_some:
            self._of_some[names] = _Matcher(some)
        return self._of_some[names]

    def named(self, name: str) -> Module:
        """The module of a name.

        Raises:
            UsageError: there is none; lists the names.
        """
        names = [module.name for module in self.modules]
        if name in names:
            return self.modules[names.index(name)]
        near = nearest(name, names)
        known = ", ".join(names) or "none; declare one with [[module]]"
        hint = f"did you mean {near}?" if near else f"modules: {known}"
        raise UsageError(f"{self.where} has no module {name!r}", hint=hint)


def read(repository: Repository, revision: str | None) -> Modules:
    """The modules of a revision; of the index for `""`, of the work tree (else HEAD) for None.

    Raises:
        UsageError: `.theta.toml` is not usable, or there is no such revision.
    """
    if revision is None:
        return parse(committed_bytes(repository) or b"", FILE)
    where = f"{FILE} of {revision}" if revision else f"{FILE} of the index"
    return parse(bytes_at(repository, revision) or b"", where)


def parse(text: bytes, where: str = FILE) -> Modules:
    """The modules that a `.theta.toml` declares; its other tables are left to those who know them.

    Args:
        text: its bytes.
        where: what messages call it.

    Raises:
        UsageError: it is not usable; names the table, and the line where that can be told.
    """
    rows = Rows(tables(text, where), "module", text, where)
    found = Modules(each(rows, _module), where)
    check_patterns([one for module in found for one in module.patterns], rows.label)
    return found


def _module(rows: Rows, number: int) -> Module:
    """One `[[module]]`; UsageError where a key is missing, unknown or of the wrong kind."""
    rows.refuse_unknown(number, KEYS)
    table = Table(rows, number)
    name = table.name("vision")
    patterns = table.texts("pattern")
    if not patterns:
        key = "pattern" if table.has("pattern") else None
        raise table.error(key, 'it has no pattern, such as pattern = "vision_tower.*"')
    try:
        expanded = tuple(dict.fromkeys(one for each in patterns for one in expand(each)))
    except UsageError as error:
        raise table.error("pattern", error.message) from error
    owners = table.texts("owners")
    for owner in owners:
        if len(owner) > _OWNER_CHARS or not _OWNER.fullmatch(owner):
            raise table.error(
                "owners", f"{owner[:80]!r} is no owner", hint="@user, @org/team, or a mail address"
            )
    return Module(name, expanded, owners, table.flag("frozen", False), table.texts("path"))
