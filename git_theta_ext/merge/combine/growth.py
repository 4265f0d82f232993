"""A rank that grows: the adapter's configuration is changed along with its factors, and back again.

Only verbs that own the work tree do this. What the configuration was before is kept with the state
of the merge, so that the next resolve begins with it, and taking one back restores it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from git_theta_ext.checkpoints.adapters.peft_config import CONFIG, Scaling
from git_theta_ext.checkpoints.adapters.peft_names import module_of
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.merge.combine.apply import Merged
from git_theta_ext.merge.decide.beside_adapter import Grown, config_path, result_text
from git_theta_ext.merge.decide.decisions import Plan
from git_theta_ext.merge.decide.products import product_rank

Wanted = Mapping[str, tuple[int, float]]
"""Rank and alpha of modules, by their names."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration beside an adapter as the index has it, as Git merged it, and as needed."""

    path: str
    now: bytes
    before: bytes
    after: bytes

    @property
    def grown(self) -> Grown | None:
        """How it is changed; None where it is as Git merged it, or as the user settled it."""
        return Grown(self.before, self.after) if self.after != self.before else None

    def write(self, repository: Repository) -> None:
        """Write and stage it, if it is not there already.

        Raises:
            ThetaError: it cannot be written or staged.
        """
        if self.after != self.now:
            WorkTree(repository.top).replace(self.path, self.after)
            repository.git("add", "--", literal(self.path))


def settings_for(
    repository: Repository, path: str, plan: Plan, merged: Merged, grown: Grown | None
) -> Settings | None:
    """The configuration that a merged adapter needs; None where none is tracked, or in conflict.

    Args:
        repository: where the checkpoint is in conflict.
        path: of the checkpoint, from the top.
        plan: of the merge.
        merged: its result.
        grown: how an earlier resolve changed the configuration.

    Raises:
        UsageError: the settings cannot say what the factors need, or the work tree has changes of
            them that would be lost.
    """
    now = result_text(repository, path)
    if not isinstance(now, bytes):
        return None
    before = grown.before if grown is not None and now == grown.after else now
    alphas = {
        module_of(one.left.name) or one.left.name: one.alpha
        for name, one in plan.blends.items()
        if one.alpha is not None and name not in merged.open
    }
    after = config_with(before, ranks_of(merged.manifest), alphas) if alphas else before
    place = config_path(path)
    changed = after != now and repository.git("diff", "--name-only", "-z", "--", literal(place))
    if changed:
        raise UsageError(
            f"{printable(place)} has changes that are not staged and would be overwritten",
            hint=advise(repository, "git add FILE, then run the command again", place),
        )
    return Settings(place, now, before, after)


def ranks_of(manifest: Manifest) -> dict[str, int]:
    """The rank of every module of a LoRA whose factors a checkpoint has."""
    found = ((one.tensor.name, product_rank(one.tensor)) for one in manifest.entries)
    return {module_of(name) or name: rank for name, rank in found if rank is not None}


def config_with(text: bytes, ranks: Mapping[str, int], alphas: Mapping[str, float]) -> bytes:
    """An adapter's configuration that fits some ranks, and scales some modules as they need it.

    Where all modules get the same rank and alpha, these are set; else they are set for the modules
    that differ, by their names, before all patterns that are there.

    Args:
        text: the configuration that is changed; a JSON object.
        ranks: of all modules.
        alphas: of those that changed; the others keep theirs.

    Raises:
        UsageError: no patterns of names say what the modules need.
    """
    settings: dict[str, Any] = json.loads(text)
    wanted = {
        module: (rank, alphas.get(module, Scaling(Path(CONFIG), settings).alpha(module)))
        for module, rank in ranks.items()
    }
    if len(set(wanted.values())) == 1:
        ((settings["r"], settings["lora_alpha"]),) = set(wanted.values())
        for key in ("rank_pattern", "alpha_pattern"):
            if settings.get(key):
                settings[key] = {}
    else:
        off = [module for module in wanted if module in alphas]
        patterns = _with_patterns(settings, {one: wanted[one] for one in off})
        if not _fits(patterns, wanted):
            patterns = _with_patterns(settings, wanted)
        settings = patterns
    if not _fits(settings, wanted):
        raise UsageError(
            f"{CONFIG} cannot give every module the rank and scaling that it needs",
            hint="keep the rank: --set rank=keep",
        )
    lines = text.count(b"\n") > 1
    made = json.dumps(settings, indent=2 if lines else None, ensure_ascii=text.isascii())
    return made.encode() + (b"\n" if text.endswith(b"\n") else b"")


def _with_patterns(settings: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """Settings with patterns for some modules before all others; a longer name comes first.

    A dot of a name matches any character there, so that names with fewer dots come before others.
    """
    names = sorted(wanted, key=lambda name: (-len(name), name.count("."), name))
    made = dict(settings)
    for place, key in enumerate(("rank_pattern", "alpha_pattern")):
        first = {name: wanted[name][place] for name in names}
        made[key] = {**first, **{k: v for k, v in (settings.get(key) or {}).items()
                                 if k not in first}}  # fmt: skip
    return made


def _fits(settings: Mapping[str, Any], wanted: Wanted) -> bool:
    scaling = Scaling(Path(CONFIG), settings)
    return all(
        scaling.rank(module) in (None, rank) and scaling.alpha(module) == alpha
        for module, (rank, alpha) in wanted.items()
    )
