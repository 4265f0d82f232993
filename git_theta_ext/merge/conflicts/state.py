"""What is open in a merge under way, kept in Git's folder, by the contents of the three versions.

The driver also runs where no merge is in progress (`git merge-tree`), and a path can be renamed: so
a state is found by the three manifests, not by the path. It only remembers what was chosen; the
result is always made anew from the three versions, which is what makes `--undo` exact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from git_theta_ext.core import files
from git_theta_ext.core.errors import StoreError
from git_theta_ext.git.operations import MERGE_STATES
from git_theta_ext.git.repository import Repository
from git_theta_ext.merge.decide.beside_adapter import Grown
from git_theta_ext.merge.strategies.choice import Choice
from git_theta_ext.merge.strategies.policy import Policy, Rule, parse_choice

_VERSION = 1
_KEPT = 100
"""States of merges that were given up are removed beyond this number, oldest first."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """One `git theta resolve`: the tensors that it settled, how, and the structure's side."""

    names: frozenset[str]
    choice: str
    structure: Literal["ours", "theirs"] | None = None


@dataclass(frozen=True)
class State:
    """The policy that the merge began with, what was resolved since, and what is still open.

    `grown` says how a resolve changed the configuration beside an adapter, and `left` has a digest
    of what the result has for each tensor that is open (see `left.py`).
    """

    policy: Policy
    resolutions: tuple[Resolution, ...] = ()
    open: Mapping[str, str] = field(default_factory=dict)
    grown: Grown | None = None
    left: Mapping[str, str] = field(default_factory=dict)

    def choose(self, name: str) -> Choice:
        """The strategy for a tensor: of the last resolution that names it, else the policy's."""
        return self.resolved(name) or self.policy.choose(name)

    def resolved(self, name: str) -> Choice | None:
        """The strategy of the last resolution that names a tensor, if one does."""
        chosen = self._last.get(name)
        return None if chosen is None else parse_choice(chosen, "resolution")

    @cached_property
    def _last(self) -> Mapping[str, str]:
        """For each tensor what the last resolution that names it says."""
        return {name: one.choice for one in self.resolutions for name in one.names}

    @property
    def structure(self) -> Literal["ours", "theirs"] | None:
        """The side whose structure was chosen last, else the policy's."""
        chosen = (one.structure for one in reversed(self.resolutions) if one.structure)
        return next(chosen, self.policy.side)


def key_of(versions: Sequence[bytes | None]) -> str:
    """The name of a state: a hash of the manifests of base, ours and theirs."""
    digest = hashlib.sha256()
    for version in versions:
        digest.update(hashlib.sha256(version or b"").digest())
    return digest.hexdigest()


def _folder(repository: Repository) -> Path:
    return repository.git_dir / MERGE_STATES


def load(repository: Repository, key: str) -> State | None:
    """The state of a merge, or None if nothing is known of it."""
    try:
        data = json.loads((_folder(repository) / f"{key}.json").read_text("utf-8"))
        return _from_json(data) if data["version"] == _VERSION else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def forget(repository: Repository, key: str) -> None:
    """Remove what is kept of a merge, if there is something."""
    with suppress(OSError):
        (_folder(repository) / f"{key}.json").unlink()


def save(repository: Repository, key: str, state: State) -> None:
    """Keep a state.

    Raises:
        StoreError: Git's folder cannot be written.
    """
    folder = _folder(repository)
    path = folder / f"{key}.json"
    try:
        folder.mkdir(exist_ok=True)
        files.replace_file(path, json.dumps(_to_json(state), indent=1).encode())
        _remove_oldest(folder)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _remove_oldest(folder: Path) -> None:
    found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in found[:-_KEPT]:
        with suppress(OSError):
            path.unlink()


def _to_json(state: State) -> dict[str, Any]:
    rules = [{"patterns": rule.patterns, "choice": str(rule.choice)} for rule in state.policy.rules]
    return {
        "version": _VERSION,
        "default": str(state.policy.default),
        "rules": rules,
        "source": state.policy.source,
        "resolutions": [{**asdict(one), "names": sorted(one.names)} for one in state.resolutions],
        "open": dict(state.open),
        "left": dict(state.left),
        "grown": None
        if state.grown is None
        else [one.decode("latin-1") for one in (state.grown.before, state.grown.after)],
    }


def _from_json(data: Any) -> State:
    rules = tuple(
        Rule(tuple(rule["patterns"]), (), parse_choice(rule["choice"], "state"))
        for rule in data["rules"]
    )
    policy = Policy(parse_choice(data["default"], "state"), rules, str(data["source"]))
    resolutions = tuple(
        Resolution(frozenset(one["names"]), one["choice"], one["structure"])
        for one in data["resolutions"]
    )
    texts = [str(one).encode("latin-1") for one in data.get("grown") or ()]
    grown = Grown(*texts) if texts else None
    return State(policy, resolutions, dict(data["open"]), grown, dict(data.get("left") or {}))
