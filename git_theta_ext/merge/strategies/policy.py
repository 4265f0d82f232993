"""Which strategy is used for which tensor: the environment, git config, or a committed file.

From the strongest to the weakest: `GIT_THETA_MERGE=ties,density=0.2` in the environment; the git
config settings `theta.merge.strategy` and `theta.rebase.strategy`; the rules of `.theta.toml` at
the top of the work tree (else in HEAD); and the defaults: what collides in a merge is a conflict,
and what a rebase, cherry-pick or revert brings is reapplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.globs import Globs
from git_theta_ext.core.globs import check as check_patterns
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.settings_file import FILE, committed_bytes, tables
from git_theta_ext.merge.strategies.choice import CONFLICT, Choice, Setting
from git_theta_ext.merge.strategies.table import check, takes_words

Operation = Literal["merge", "rebase"]
"""`rebase` stands for all that puts a commit on another base: cherry-pick and revert too."""

VARIABLE = "GIT_THETA_MERGE"
STATISTICS = (".fisher.safetensors", ".gram.safetensors")
"""How the names of files end that hold statistics of a checkpoint beside them."""

_DEFAULTS: dict[Operation, Choice] = {"merge": CONFLICT, "rebase": Choice("reapply")}


@dataclass(frozen=True, slots=True)
class Rule:
    """A strategy for the tensors that match one of some patterns, in files that match `paths`."""

    patterns: tuple[str, ...]
    paths: tuple[str, ...]
    choice: Choice


@dataclass(frozen=True, slots=True)
class Settings:
    """What `.theta.toml` says: rules in order, the strategies for all else, how to evaluate."""

    rules: tuple[Rule, ...] = ()
    defaults: tuple[tuple[Operation, Choice], ...] = ()
    evaluate: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The choice for every tensor of one file; `source` says where it comes from."""

    default: Choice
    rules: tuple[Rule, ...] = ()
    source: str = "default"
    _globs: Globs = field(init=False, repr=False, compare=False)
    _owners: tuple[Rule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the patterns of all rules at once: a merge asks for every tensor."""
        pairs = [(pattern, rule) for rule in self.rules for pattern in rule.patterns]
        where = f"{FILE}, [[merge.tensor]]"
        object.__setattr__(self, "_globs", Globs((pattern for pattern, _ in pairs), where))
        object.__setattr__(self, "_owners", tuple(rule for _, rule in pairs))

    @property
    def side(self) -> Literal["ours", "theirs"] | None:
        """The side whose structure is to stand, where the default is to take a side."""
        if self.default.strategy == "ours":
            return "ours"
        return "theirs" if self.default.strategy == "theirs" else None

    def choose(self, name: str) -> Choice:
        """The strategy for a tensor: the first rule that matches, else the default."""
        found = self._globs.first(name)
        return self.default if found is None else self._owners[found].choice


def parse_choice(text: str, where: str) -> Choice:
    """A choice as it stands in the environment or git config: `ties,density=0.2`.

    Raises:
        UsageError: it is none; names `where` it stands.
    """
    strategy, *rest = (part.strip() for part in text.split(","))
    settings: dict[str, Setting] = {}
    for item in rest:
        key, equals, value = item.partition("=")
        if not equals or not key or key in settings:
            raise UsageError(f"{where}: {item!r} is not NAME=VALUE, or comes twice, in {text!r}")
        settings[key] = parse_value(value)
    return checked(strategy, settings, where)


def parse_value(text: str) -> Setting:
    """A number, numbers joined by colons or commas, or a word."""
    items = text.replace(",", ":").split(":")
    try:
        numbers = tuple(float(item) for item in items)
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]


def checked(strategy: str, settings: Mapping[str, Setting], where: str) -> Choice:
    """A choice of a strategy that exists, with settings that it has.

    Raises:
        UsageError: names `where` the mistake stands.
    """
    choice = Choice(strategy, tuple(sorted(settings.items())))
    try:
        return check(choice)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from error


def policy_for(
    repository: Repository, path: str, operation: Operation, environment: Mapping[str, str]
) -> Policy:
    """What is configured for a file.

    Args:
        repository: whose settings and `.theta.toml` count.
        path: of the checkpoint, from the top of the work tree.
        operation: `rebase` has defaults of its own.
        environment: may hold GIT_THETA_MERGE.

    Raises:
        UsageError: a setting is not usable; says which and where.
    """
    if path.endswith(STATISTICS):
        # What both sides measured belongs to the merged model as their mean.
        return Policy(Choice("average"), (), "statistics")
    text = environment.get(VARIABLE)
    if text:
        return Policy(parse_choice(text, VARIABLE), (), VARIABLE)
    name = f"theta.{operation}.strategy"
    text = repository.setting(name)
    if text:
        return Policy(parse_choice(text, f"git config {name}"), (), f"git config {name}")
    return _from_file(committed(repository), path, operation)


def _from_file(settings: Settings, path: str, operation: Operation) -> Policy:
    rules = tuple(
        rule
        for rule in settings.rules
        if operation == "merge" and (not rule.paths or Globs(rule.paths, FILE).matches(path))
    )
    default = dict(settings.defaults).get(operation)
    source = FILE if rules or default else "default"
    return Policy(default or _DEFAULTS[operation], rules, source)


def committed(repository: Repository) -> Settings:
    """What `.theta.toml` says of merges: the work tree's, else HEAD's; nothing if there is none.

    Raises:
        UsageError: it is not usable; names the line or the key.
    """
    data = committed_bytes(repository)
    return Settings() if data is None else parse_file(data)


def parse_file(data: bytes) -> Settings:
    """The settings in the text of a `.theta.toml`; the grammar is in docs/merging.md.

    Raises:
        UsageError: it is not TOML, or has a key, value or strategy that is not known.
    """
    document = tables(data)
    own = {name: _table(document[name], name) for name in ("merge", "rebase") if name in document}
    merge = dict(own.get("merge", {}))
    evaluate = merge.pop("evaluate", None)
    if evaluate is not None and not isinstance(evaluate, str):
        raise UsageError(f"{FILE}, [merge]: evaluate is a command in quotes, not {evaluate!r}")
    rules = merge.pop("tensor", [])
    if not isinstance(rules, list):
        raise UsageError(f"{FILE}: tensor rules are written [[merge.tensor]], with two brackets")
    found = tuple(_rule(rule, number) for number, rule in enumerate(rules, 1))
    for key, lists in (("pattern", [rule.patterns for rule in found]),
                       ("path", [rule.paths for rule in found])):  # fmt: skip
        where = f"{FILE}, {key} of all [[merge.tensor]] together"
        check_patterns([one for items in lists for one in items], where)
    defaults: list[tuple[Operation, Choice]] = []
    if merge:
        defaults.append(("merge", _choice(merge, f"{FILE}, [merge]")))
    if "rebase" in own:
        defaults.append(("rebase", _choice(own["rebase"], f"{FILE}, [rebase]")))
    return Settings(found, tuple(defaults), evaluate)


def _rule(table: object, number: int) -> Rule:
    where = f"{FILE}, [[merge.tensor]] number {number}"
    settings = dict(_table(table, f"merge.tensor number {number}"))
    if "pattern" not in settings:
        raise UsageError(f'{where}: it has no pattern, such as pattern = "encoder.*"')
    patterns = _patterns(settings.pop("pattern"), "pattern", where)
    paths = _patterns(settings.pop("path", []), "path", where)
    return Rule(patterns, paths, _choice(settings, where))


def _table(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{FILE}: {name} is a table, not {value!r}")
    return value


def _patterns(value: object, key: str, where: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise UsageError(f"{where}: {key} is a pattern or a list of patterns, not {value!r}")
    return tuple(items)


def _choice(table: Mapping[str, Any], where: str) -> Choice:
    """The strategy of a table; all other keys are its parameters."""
    settings = dict(table)
    strategy = settings.pop("strategy", None)
    if not isinstance(strategy, str):
        given = f" (only {', '.join(map(repr, list(settings)[:3]))})" if settings else ""
        raise UsageError(f'{where}: it has no strategy{given}, such as strategy = "average"')
    values = {
        key: value
        if isinstance(value, str) and takes_words(strategy, key)
        else _value(value, f"{where}: {key}")
        for key, value in settings.items()
    }
    return checked(strategy, values, where)


def _value(value: object, where: str) -> Setting:
    items = value if isinstance(value, list) else [value]
    numbers = [
        float(item) for item in items if isinstance(item, int | float) and item is not True
        and item is not False
    ]  # fmt: skip
    if len(numbers) != len(items):
        raise UsageError(f"{where} is a number or a list of numbers, not {value!r}")
    return tuple(numbers) if isinstance(value, list) else numbers[0]
