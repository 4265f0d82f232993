"""An assembled checkpoint in the work tree and in the index, with its recipe and its lock."""

from __future__ import annotations

import os
import time
from contextlib import closing, suppress

from git_theta_ext.checkpoints.clean import TICK_SECONDS, WORTH_REMEMBERING, Cleaner
from git_theta_ext.checkpoints.memo import Memo
from git_theta_ext.checkpoints.placed import write_version
from git_theta_ext.checkpoints.predecessors import Predecessors
from git_theta_ext.checkpoints.versions import FileSide
from git_theta_ext.core import limits
from git_theta_ext.core.errors import ThetaError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.paths import advise
from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import Repository, literal
from git_theta_ext.git.trees import Row, stage, store_blob
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.packages.assemble import locked
from git_theta_ext.packages.assemble.assembly import Assembly
from git_theta_ext.packages.assemble.changes import differing
from git_theta_ext.packages.assemble.check import wanted
from git_theta_ext.packages.assemble.origin import is_as_locked

_BEFORE_NS = 3_000_000_000


def require_tracked(assembly: Assembly) -> None:
    """Refuse a path whose checkpoints Git would take for plain files.

    Raises:
        UsageError: no pattern gives it the filter.
    """
    if assembly.repository.attribute("filter", assembly.path) != "theta":
        raise UsageError(
            f"{printable(assembly.path)} is not tracked: no pattern of .gitattributes gives it the "
            "filter theta",
            hint=advise(assembly.repository, "git theta track FILE   then try again",
                        assembly.path),
        )  # fmt: skip


def require_nothing_lost(assembly: Assembly) -> None:
    """Refuse to write over what neither a commit has nor this recipe made.

    A conflict is there to be settled; what an earlier assembly staged may be staged anew.

    Raises:
        UsageError: the file of the work tree, or the version in the index, would be lost.
    """
    repository, path = assembly.repository, assembly.path
    if any(entry.stage for entry in assembly.staged):
        return
    if not assembly.staged:
        if os.path.lexists(repository.top / path) and not _is_made(assembly):
            raise _would_be_lost(path, "is not tracked by Git")
        return
    if assembly.is_modified and WorkTree(repository.top).has_file(path) and not _is_made(assembly):
        raise _would_be_lost(path, "has changes that are not added")
    oid = assembly.staged[0].oid
    committed = repository.resolve("HEAD") is not None and oid == repository.blob_at("HEAD", path)
    if not committed and not _was_assembled(assembly):
        raise _would_be_lost(path, "has staged changes that are not committed")


def _would_be_lost(path: str, why: str) -> UsageError:
    return UsageError(
        f"{printable(path)} {why}: that would be lost",
        hint="commit it first, or write over it: git theta assemble --force RECIPE",
    )


def _was_assembled(assembly: Assembly) -> bool:
    """Whether all tensors that the index has are what the lock that was staged says of them."""
    repository, before = assembly.repository, assembly.before
    held = [one for one in repository.index(literal(assembly.lock_path)) if one.stage == 0]
    if before is None or not held or repository.blob_size(held[0].oid) > limits.RECIPE_LOCK_BYTES:
        return False
    try:
        lock = locked.parse(repository.blob(held[0].oid), assembly.lock_path)
    except UsageError:
        return False
    return is_as_locked(lock, before)


def _is_made(assembly: Assembly) -> bool:
    """Whether the work tree has what is made now, as where a run was killed before it was added."""
    try:
        with closing(FileSide(assembly.repository.top / assembly.path)) as side:
            return not differing(wanted(assembly), side.manifest.by_name())
    except (ThetaError, OSError):
        return False


def put(assembly: Assembly, manifest: Manifest) -> None:
    """Write the checkpoint and the lock, and add them and the recipe to the index.

    Each file is whole or as it was; the index changes last, so that Git finds them to be what it
    says.

    Args:
        assembly: what was built.
        manifest: all objects that it names are in the store.

    Raises:
        StoreError: a file cannot be written.
        RepositoryError: the index is locked or cannot be written.
    """
    repository = assembly.repository
    text = locked.lock_bytes(assembly.new_lock(manifest))
    WorkTree(repository.top).replace(assembly.lock_path, text)
    write_version(repository, assembly.path, manifest, assembly.blocks)
    _stage_written(repository, assembly.path, manifest_bytes(manifest), assembly.blocks)
    names = b"".join(
        os.fsencode(path) + b"\0" for path in (assembly.recipe_path, assembly.lock_path)
    )
    run_git(["update-index", "--add", "-z", "--stdin"], repository.top, stdin=names)


def _stage_written(repository: Repository, path: str, text: bytes, blocks: Blocks) -> None:
    """Stage a checkpoint that was just written, so that `git status` finds it unchanged.

    It is not hashed again. Git has no way to take a file for what a filter would make of it: it
    sends the file to the filter. So the filter's memory of answers is given this one before.

    Args:
        repository: one with a work tree.
        path: of the file, from the top; whatever the index has there, a conflict too, is replaced.
        text: the manifest that the file was made from.
        blocks: whose store has every object that it names.

    Raises:
        RepositoryError: the index is locked or cannot be written.
    """
    tree = WorkTree(repository.top)
    mode = "100755" if (repository.top / path).lstat().st_mode & 0o100 else "100644"
    stage(repository, [Row(mode, store_blob(repository, text), path)])
    # Git would read a file again whose time lies in the same tick as that of the index.
    tree.set_time(path, time.time_ns() - _BEFORE_NS)
    with suppress(OSError), FileSource(repository.top / path) as source:
        if source.size >= WORTH_REMEMBERING:
            time.sleep(2 * TICK_SECONDS)
            memo = Memo(store_of(repository).root / "memo")
            Cleaner(blocks, Predecessors(repository), memo).remember(path, source, text)
    repository.update_index([path])
