"""Take what a patch brings into a repository: our objects first, Git's next, and refs last.

Nothing is believed. Each of our objects was hashed when the patch was opened and is hashed again as
it enters the store; Git's are checked by Git itself, first in a folder of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import (
    MissingObjectError,
    RepositoryError,
    StoreError,
    UsageError,
)
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.process import run_git_fed
from git_theta_ext.git.repository import Repository, any_commit_here, scratch_objects
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES
from git_theta_ext.packages.patches.bundle import Changed
from git_theta_ext.packages.patches.opened import Patch

Advance = Callable[[int], object]
_SHOWN = 5
_CHECKED = ("-c", "core.bigFileThreshold=16m", "-c", "fsck.badTimezone=warn")


def nothing(count: int) -> None:
    """Report progress to nobody."""


def lacking(repository: Repository, patch: Patch) -> list[tuple[str, str]]:
    """The commits that a patch needs and that are not here, with their subjects."""
    return [one for one in patch.header.prerequisites if not any_commit_here(repository, [one[0]])]


def require_base(repository: Repository, patch: Patch) -> None:
    """Refuse a patch whose base is not here, and say which that is.

    Raises:
        UsageError: the repository names its objects by another hash.
        MissingObjectError: a commit that it needs is not here; says how its checkpoints differ from
            those of HEAD.
    """
    if len(patch.tip) != len(repository.resolve("HEAD") or patch.tip):
        raise UsageError(
            f"{printable(patch.name)} is of a repository that names its commits by "
            f"{patch.header.algorithm}, this one is not"
        )
    absent = lacking(repository, patch)
    if not absent:
        return
    oid, subject = absent[0]
    needs = f"commit {oid[:12]} ({printable(subject)})"
    lines = [f"{printable(patch.name)} needs {needs}, which is not here"]
    for one in patch.description.files:
        if one.checkpoint and one.base:
            lines.append(_difference(repository, patch, one))
    raise MissingObjectError(
        "\n".join(lines),
        hint="git fetch   brings it, where the remote has it\n"
        "git theta apply FILE   adds the update to the checkpoint that is here",
    )


def _difference(repository: Repository, patch: Patch, one: Changed) -> str:
    """How the base of a file differs from what HEAD has there."""
    path, name = one.was or one.path, printable(one.was or one.path)
    base = patch.manifest(one.base)
    ours = _at_head(repository, path)
    if base is None or ours is None:
        return f"  {name}: no such checkpoint in HEAD"
    held = {entry.tensor.name: [b.sha256 for b in entry.blocks] for entry in ours.entries}
    other = [
        entry.tensor.name
        for entry in base.entries
        if held.get(entry.tensor.name) != [block.sha256 for block in entry.blocks]
    ]
    if not other:
        return f"  {name}: the tensors of its base are those of HEAD"
    more = f" and {len(other) - _SHOWN:,} more" if len(other) > _SHOWN else ""
    shown = ", ".join(map(printable, other[:_SHOWN])) + more
    count = plural(len(base.entries), "tensor")
    return f"  {name}: {len(other):,} of {count} of its base are not those of HEAD: {shown}"


def _at_head(repository: Repository, path: str) -> Manifest | None:
    oid = repository.blob_at("HEAD", path) if repository.resolve("HEAD") else None
    if oid is None or repository.blob_size(oid) <= POINTER_BYTES:
        return None
    for _, text in repository.small_blobs([oid], b"git-theta manifest", 1 << 27):
        return parse_manifest(text)
    return None


def take_objects(patch: Patch, store: Store, wanted: dict[str, int], advance: Advance) -> int:
    """Put objects that lie in a patch into a store, hashed; how many it did not have.

    Raises:
        CorruptObjectError: one has other bytes than its name says.
        StoreError: the store cannot be written.
    """
    count = 0
    for oid, size in wanted.items():
        if patch.holds(oid, size) and not store.keep(oid, size):
            place = store.scratch("patch")
            try:
                patch.write_object(oid, place)
                store.take(place, oid, size, move=True)
            except OSError as error:
                raise StoreError(f"cannot write {store.root}: {error.strerror}") from error
            finally:
                files.remove_quietly(place)
            count += 1
        advance(size)
    return count


@dataclass(frozen=True, slots=True)
class Taken:
    """What a patch brought: our objects that were not here."""

    objects: int


def take(repository: Repository, patch: Patch, blocks: Blocks, advance: Advance = nothing) -> Taken:
    """Bring commits and objects here; no ref is changed, and no file.

    Raises:
        RepositoryError: Git finds the commits damaged, or not whole; then nothing was taken.
        MissingObjectError, TransferError: an object that the last version needs is nowhere.
        CorruptObjectError, StoreError: see `take_objects`.
    """
    _check_commits(repository, patch)
    store = blocks.store
    with store.gathering():
        count = take_objects(patch, store, patch.objects, advance)
        store.flush()
    for one in patch.description.files:
        new = patch.manifest(one.new)
        if new is not None:
            blocks.ensure(new.objects())
    run_git_fed(
        [*_CHECKED, "index-pack", "--stdin", "--strict", "--fix-thin"],
        repository.cwd,
        lambda write: patch.pack.write_some(patch.names, write),
    )
    return Taken(count)


def _check_commits(repository: Repository, patch: Patch) -> None:
    """Have Git check what a patch brings, in a folder that is gone afterwards.

    Raises:
        RepositoryError: it is damaged, or leads to what is neither in it nor here.
    """
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        env = scratch_objects(repository, Path(folder) / "objects")
        try:
            run_git_fed(
                [*_CHECKED, "index-pack", "--stdin", "--strict", "--fix-thin"],
                repository.cwd,
                lambda write: patch.pack.write_some(patch.names, write),
                env=env,
            )
            known = [f"^{oid}" for oid, _ in patch.header.prerequisites]
            repository.git("rev-list", "--objects", "--quiet", patch.tip, *known, env=env)
        except RepositoryError as error:
            raise RepositoryError(
                f"{printable(patch.name)}: Git refuses its commits: {error.message}",
                hint="nothing was taken of it",
            ) from error
        base = patch.description.base
        for one in patch.description.files:
            path = one.was or one.path
            there = repository.tree(base, path, ok=(0, 128)) if one.base else []
            if one.base and (not there or there[0].oid != one.base):
                raise RepositoryError(
                    f"{printable(patch.name)}: its base has another {printable(path)} than it says"
                )
