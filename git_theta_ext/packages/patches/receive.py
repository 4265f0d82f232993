"""Take what a patch brings into a repository: our objects first, Git's next, and refs last.

Nothing is believed. Each of our objects was hashed when the patch was opened and is hashed again as
it enters the store; Git's are checked by Git itself, first in a folder of their own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import (
    MissingObjectError,
    RepositoryError,
    StoreError,
    UsageError,
)
from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.process import run_git_fed
from git_theta_ext.git.repository import (
    Repository,
    any_commit_here,
    scratch_objects,
    skips_smudge,
)
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.merge.decide.decisions import entries_of
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_work
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES
from git_theta_ext.packages.patches.bundle import Changed
from git_theta_ext.packages.patches.opened import Patch

Advance = Callable[[int], object]
_SHOWN = 5


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
    if not patch.header.prerequisites:
        raise UsageError(f"{printable(patch.name)} does not say which commit it is made on")
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

    Args:
        patch: an open one.
        store: where they go.
        wanted: their ids and lengths; those that the patch lacks are passed over.
        advance: called with the length of each.

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


@contextmanager
def scratch(blocks: Blocks) -> Iterator[Blocks]:
    """The same blocks, but what is written goes into a folder that is gone afterwards."""
    above = blocks.store.scratch("patch").parent
    with tempfile.TemporaryDirectory(prefix="patch-", dir=above) as folder:
        aside = blocks.above(Path(folder))
        aside.chosen = blocks.chosen
        yield aside


def move_objects(wanted: Mapping[str, int], aside: Blocks, real: Blocks) -> int:
    """Put what lies aside into the store; how many objects it did not have.

    Raises:
        StoreError: it cannot be written.
    """
    count = 0
    with real.store.gathering():
        for oid, size in wanted.items():
            if not real.store.keep(oid, size):
                place = aside.store.find(oid, size)
                if place is not None:
                    real.store.take(place, oid, size, move=True)
                    count += 1
        real.store.flush()
    return count


def verify(before: Manifest | None, made: Manifest, blocks: Blocks, name: str) -> None:
    """Rebuild what is new in a version, so that nothing is relied on that cannot be written.

    Args:
        before: the version that is known to be right; None: there is none.
        made: the new version.
        blocks: where its objects are; missing ones are fetched.
        name: of the checkpoint, for a message.

    Raises:
        ThetaError: a tensor is damaged, or asks for more than any honest one.
    """
    known = entries_of(before)
    entries = [entry for entry in made.entries if known.get(entry.tensor.name) != entry]
    blocks.ensure(ref for entry in entries for block in entry.blocks for ref in block.objects())
    pairs = [pair for entry in entries for pair in entry.parts()]
    check_work(blocks, pairs, name, reading=True)
    for _ in ordered_map(lambda pair: blocks.read(*pair).nbytes, pairs, lambda pair: pair[1].held):
        pass


def take(repository: Repository, patch: Patch, blocks: Blocks, advance: Advance = nothing) -> int:
    """Bring commits and objects here; no ref is changed, and no file.

    Args:
        repository: one in which the base of the patch is.
        patch: an open one.
        blocks: those of the repository.
        advance: called with the length of each object.

    Returns:
        How many of our objects were not here.

    Raises:
        RepositoryError: Git finds the commits damaged, or not whole; then nothing was taken.
        MissingObjectError, TransferError: an object that the last version needs is nowhere.
        CorruptObjectError, StoreError: see `take_objects` and `verify`.
    """
    _check_commits(repository, patch)
    with scratch(blocks) as aside:
        take_objects(patch, aside.store, patch.objects, advance)
        if not skips_smudge(repository, os.environ):
            for one in patch.description.files:
                base, new = patch.versions(one)
                if new is not None:
                    verify(base, new, aside, one.path)
        count = move_objects(patch.objects, aside, blocks)
    _index(repository, patch)
    return count


def _index(repository: Repository, patch: Patch, env: Mapping[str, str] | None = None) -> None:
    """Have Git take what the commits of a patch are made of, and check it.

    Raises:
        RepositoryError: something is damaged, or not what Git allows.
    """
    run_git_fed(
        ["-c", "core.bigFileThreshold=16m", "index-pack", "--stdin", "--strict", "--fix-thin"],
        repository.cwd,
        lambda write: patch.pack.write_some(patch.names, write),
        env=env,
    )


def _check_commits(repository: Repository, patch: Patch) -> None:
    """Have Git check what a patch brings, in a folder that is gone afterwards.

    Raises:
        RepositoryError: it is damaged, or leads to what is neither in it nor here.
    """
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        env = scratch_objects(repository, Path(folder) / "objects")
        try:
            _index(repository, patch, env)
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
