"""`git theta update NAME`, where NAME is a part of a recipe: it moves, and the checkpoint is built.

`git theta update` itself is about `models.toml`; what that does not name is looked for in recipes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence

from git_theta_ext.cli.verbs.assemble import report
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.packages.assemble.update import planned, recipes_with, update_parts


def recipes_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The recipes, by their paths from the top, that have parts of these names, and which.

    Nothing outside of a work tree.
    """
    found: dict[str, list[str]] = {}
    try:
        repository = Repository.discover()
    except RepositoryError:
        return {}
    for name in names if repository.work_tree is not None else ():
        for recipe in recipes_with(repository, name):
            found.setdefault(recipe, []).append(name)
    return found


def run(recipes: Mapping[str, Sequence[str]], args: argparse.Namespace) -> int:
    """Move the parts of each recipe, build its checkpoint anew, and say what changed.

    Args:
        recipes: what `recipes_of` gave.
        args: with `dry_run`, `force`, `quiet` and `json`.

    Raises:
        UsageError: a recipe is not usable, or something would be lost.
        ThetaError: a part is not to be had, or something cannot be written.
    """
    repository = Repository.discover()
    if not args.dry_run:
        installation.require(repository)
    for recipe, names in recipes.items():
        if args.dry_run:
            report(planned(repository, recipe, names), None, args)
        else:
            done = update_parts(repository, recipe, names, force=args.force)
            report(done.assembly, done, args)
    return 0
