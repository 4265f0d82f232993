"""Parts moved to what their versions are now, by the name of a part: for `git theta update`."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from git_theta_ext.core import limits
from git_theta_ext.core.errors import UsageError
from git_theta_ext.git.repository import Repository
from git_theta_ext.packages.assemble import locked
from git_theta_ext.packages.assemble.assembly import Assembly, advising, prepare
from git_theta_ext.packages.assemble.carry_out import Advance, Built, build
from git_theta_ext.packages.assemble.changes import Changes, changes
from git_theta_ext.packages.assemble.parts import Opener
from git_theta_ext.packages.assemble.written import put, require_nothing_lost, require_tracked


@dataclass(frozen=True, slots=True)
class Done:
    """An assembly that was built, written and added, and what became of the version before."""

    assembly: Assembly
    built: Built
    changes: Changes


def carry_out(
    assembly: Assembly, *, force: bool = False, advance: Advance = lambda _: None
) -> Done:
    """Build a checkpoint, write it, and add it to the index with its recipe and lock.

    Args:
        assembly: what `prepare` gave.
        force: what no commit has may be written over.
        advance: called with the bytes of each object that was brought and each tensor made.

    Raises:
        UsageError: the path is not tracked, or something would be lost.
        ThetaError: an object is not to be had, or something cannot be written.
    """
    with advising(assembly.repository, assembly.recipe_path):
        require_tracked(assembly)
        if not force:
            require_nothing_lost(assembly)
        built = build(assembly.task, advance)
        put(assembly, built.manifest)
    return Done(assembly, built, changes(assembly.before, built.manifest))


def update_parts(
    repository: Repository,
    recipe_path: str,
    names: Collection[str],
    *,
    force: bool = False,
    advance: Advance = lambda _: None,
) -> Done:
    """Move parts of a recipe to what their versions are now, and build its checkpoint anew.

    Args:
        repository: with a work tree.
        recipe_path: of the recipe, from the top of the work tree.
        names: of the parts; all of them, if there is none.
        force: what no commit has may be written over.
        advance: called with the bytes of each object that was brought and each tensor made.

    Raises:
        UsageError: there is no such recipe or part, or something would be lost.
        ThetaError: a part is not to be had, or something cannot be written.
    """
    with Opener(repository, (repository.top / recipe_path).parent, refresh=True) as opener:
        assembly = prepare(repository, recipe_path, opener, moved=tuple(names))
        return carry_out(assembly, force=force, advance=advance)


def planned(repository: Repository, recipe_path: str, names: Collection[str]) -> Assembly:
    """What `update_parts` would build; arguments and errors as there."""
    with Opener(repository, (repository.top / recipe_path).parent, refresh=True) as opener:
        return prepare(repository, recipe_path, opener, moved=tuple(names))


def recipes_with(repository: Repository, name: str) -> list[str]:
    """The recipes, from the top, that have a part of this name, by their locks in the index."""
    entries = [one for one in repository.index(":(top,glob)**/*.lock") if one.stage in (0, 2)]
    paths = {one.oid: one.path for one in entries}
    found = []
    texts = repository.small_blobs(list(paths), locked.MAGIC, limits.RECIPE_LOCK_BYTES)
    for oid, text in texts:
        with suppress(UsageError):
            if locked.parse(text, paths[oid]).part(name) is not None:
                found.append(locked.recipe_of(paths[oid]))
    return sorted(found)
