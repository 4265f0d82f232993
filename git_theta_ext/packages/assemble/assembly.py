"""A recipe of the work tree, with its lock and its parts: what it makes, before it is made."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import IndexEntry, Repository, literal
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import HEAD_BYTES, Entry, Manifest, is_manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages.assemble import locked, recipe_file
from git_theta_ext.packages.assemble.carry_out import Task
from git_theta_ext.packages.assemble.given import Given
from git_theta_ext.packages.assemble.locked import Lock, LockedPart, LockedTensor
from git_theta_ext.packages.assemble.parts import Opened, Opener
from git_theta_ext.packages.assemble.plan import make_plan
from git_theta_ext.packages.assemble.recipe_file import Part, RecipeFile

EVERY: tuple[str, ...] = ()
"""The names of all parts, where some are to be moved."""


@dataclass(frozen=True)
class Assembly:
    """What a recipe makes.

    Attributes:
        repository: with a work tree.
        recipe_path: of the recipe, from the top; `lock_path` and `path` of its lock and checkpoint.
        recipe: what it says.
        lock: what its parts were before; None where there is no lock.
        parts: what they are now, in the order of the recipe.
        plan: the tensors that it makes, by name.
    """

    repository: Repository
    recipe_path: str
    recipe: RecipeFile
    lock: Lock | None
    parts: tuple[Opened, ...]
    plan: Mapping[str, Given]

    @property
    def lock_path(self) -> str:
        """The lock, from the top."""
        return locked.lock_of(self.recipe_path)

    @property
    def path(self) -> str:
        """The checkpoint, from the top."""
        return below(self.recipe_path, self.recipe.path)

    @cached_property
    def staged(self) -> list[IndexEntry]:
        """What the index has at the path of the checkpoint: nothing, one, or a conflict."""
        return self.repository.index(literal(self.path))

    @property
    def is_modified(self) -> bool:
        """Whether the file of the work tree is another one than that of the index, or gone."""
        words = ("--porcelain", "-z", "--untracked-files=no", "--", literal(self.path))
        return self.repository.git("status", *words)[1:2] not in (b" ", b"")

    @cached_property
    def before(self) -> Manifest | None:
        """The version that the index has; of a conflict ours. None where none is by tensor."""
        stages = {entry.stage: entry.oid for entry in self.staged}
        oid = stages.get(0) or stages.get(2) or stages.get(3)
        text = b"" if oid is None else self.repository.blob(oid)
        return parse_manifest(text) if is_manifest(text[:HEAD_BYTES]) else None

    @cached_property
    def blocks(self) -> Blocks:
        """Those of this repository."""
        return Blocks.open(self.repository)

    @cached_property
    def task(self) -> Task:
        """What is to be carried out."""
        return Task(self.repository, self.blocks, self.recipe, self.parts, self.plan, self.before)

    def new_lock(self, manifest: Manifest) -> Lock:
        """The lock of what was built."""
        entries = manifest.by_name()
        rows = [
            (one.part, name, LockedTensor(locked.digest_of(entries[name]), one.sources))
            for name, one in self.plan.items()
        ]
        parts = locked.with_tensors([part.locked for part in self.parts], rows)
        return Lock(self.recipe.path, parts)


def below(recipe: str, path: str) -> str:
    """A path that counts from the folder of a recipe, from the top."""
    return posixpath.join(posixpath.dirname(recipe), path)


def prepare(
    repository: Repository,
    recipe_path: str,
    opener: Opener,
    *,
    moved: Collection[str] | None = None,
    must_be_locked: bool = False,
) -> Assembly:
    """Read a recipe and its lock, open the parts, and plan.

    Args:
        repository: with a work tree.
        recipe_path: of the recipe, from the top of the work tree.
        opener: finds the parts.
        moved: names of parts that are to be what their versions are now; `EVERY`; None: as locked.
        must_be_locked: a part that the lock does not have is an error.

    Raises:
        UsageError: the recipe or the lock is not usable, or a part cannot be had as it says.
        ThetaError: a part is not to be had.
    """
    with advising(repository, recipe_path):
        return _prepare(repository, recipe_path, opener, moved, must_be_locked)


@contextmanager
def advising(repository: Repository, recipe_path: str) -> Iterator[None]:
    """Errors of what is done inside name the recipe where their hints have RECIPE."""
    try:
        yield
    except ThetaError as error:
        if error.hint is None or "RECIPE" not in error.hint:
            raise
        hint = advise(repository, error.hint, recipe_path, "RECIPE")
        raise type(error)(error.message, hint=hint) from error


def _prepare(
    repository: Repository,
    recipe_path: str,
    opener: Opener,
    moved: Collection[str] | None,
    must_be_locked: bool,
) -> Assembly:
    """As `prepare`."""
    recipe = read_recipe(repository, recipe_path)
    lock_path = locked.lock_of(recipe_path)
    for name in moved or ():
        if recipe.part(name) is None:
            names = ", ".join(part.name for part in recipe.parts)
            raise UsageError(f"{recipe_path} has no part {printable(name)!r}; it has: {names}")
    versions = {part.name: opener.version_of(part) for part in recipe.parts}
    # Parts of one version go together, or a model would be made of two states of one branch.
    moving = {versions[name] for name in (versions if moved == EVERY else moved or ())}
    kept = [part for part in recipe.parts if versions[part.name] not in moving]
    lock, known = _read_lock(repository, lock_path, kept)
    beside = {versions[name]: one for name, one in known.items()}
    parts = []
    for part in recipe.parts:
        before = known.get(part.name)
        if before is None and must_be_locked:
            raise UsageError(
                f"part {part.name} is not in {lock_path} as {recipe_path} has it (--locked)",
                hint="git theta assemble RECIPE   locks it",
            )
        opened = opener.open(part, before, beside.get(versions[part.name]))
        beside.setdefault(versions[part.name], opened.locked)
        parts.append(opened)
    tensors: list[Mapping[str, Entry]] = [part.tensors for part in parts]
    plan = make_plan(recipe, tensors)
    return Assembly(repository, recipe_path, recipe, lock, tuple(parts), plan)


def read_recipe(repository: Repository, path: str) -> RecipeFile:
    """The recipe at a path of the work tree.

    Raises:
        UsageError: there is none, or it is not usable.
    """
    if not WorkTree(repository.top).has_file(path):
        raise UsageError(f"there is no file {printable(path)}", hint="docs/assembling.md shows one")
    if not path.endswith(".toml"):
        raise UsageError(f"{printable(path)} is no recipe: its name ends in .toml")
    return recipe_file.parse(_read(repository, path, limits.SETTINGS_BYTES), path)


def _read(repository: Repository, path: str, most: int) -> bytes:
    try:
        with files.plain(repository.top / path) as file:
            return file.read(most + 1)
    except OSError as error:
        raise UsageError(f"cannot read {printable(path)}: {error.strerror or error}") from error


def _read_lock(
    repository: Repository, path: str, parts: Iterable[Part]
) -> tuple[Lock | None, dict[str, LockedPart]]:
    """The lock of the work tree, and what some parts are locked to as the recipe has them.

    Of a merge in which both sides changed it: part by part, from the three versions of the index.
    """
    stages = {entry.stage: entry.oid for entry in repository.index(literal(path))}
    sources = {part.name: part.source for part in parts}
    if 2 in stages or 3 in stages:
        versions = [
            locked.parse(repository.blob(stages[stage]), path) if stage in stages else None
            for stage in (1, 2, 3)
        ]
        return versions[1], locked.merged(versions[0], versions[1], versions[2], sources)
    if not WorkTree(repository.top).has_file(path):
        return None, {}
    lock = locked.parse(_read(repository, path, limits.RECIPE_LOCK_BYTES), path)
    return lock, locked.merged(None, lock, None, sources)
