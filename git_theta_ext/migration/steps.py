"""The steps that all migrations share: plan, rewrite, check, and only then move refs."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from git_theta_ext.core.errors import MissingObjectError, RepositoryError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git import object_pipes
from git_theta_ext.git.object_pipes import ObjectPipes
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import commit_tree
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.manifest.text import Parser
from git_theta_ext.migration import refs
from git_theta_ext.migration.found import LFS, MISSING, OTHER, RAW, Files, Version, versions
from git_theta_ext.migration.headers import parse_commit
from git_theta_ext.migration.in_force import require_filters
from git_theta_ext.migration.journal import FOLDER, Journal
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.refs import Update
from git_theta_ext.migration.rewrite import Converter, Rewriter
from git_theta_ext.migration.selection import Selection
from git_theta_ext.objects.store.locks import Busy, Lock
from git_theta_ext.objects.store.where import store_of

_STALE_SECONDS = 24 * 3600
_FORGOTTEN_SECONDS = 30 * 24 * 3600
"""A journal that nobody went on with for as long goes; it saves time and holds nothing else."""
_ALIVE = "alive"
_NAMED = 20
"""Missing objects that a message names."""


@contextmanager
def pipes_of(repository: Repository, *, only_looks: bool = False) -> Iterator[ObjectPipes]:
    """The objects of a repository, with room for what is on its way.

    Args:
        repository: whose objects they are.
        only_looks: nothing is written into it, so that it need not be this user's to write to.

    Raises:
        RepositoryError: git cannot be started, or the folder not be made.
    """
    folder = repository.common_dir / FOLDER
    try:
        folder = _room(folder, only_looks=only_looks)
        with tempfile.TemporaryDirectory(
            prefix="theta-", dir=folder, ignore_cleanup_errors=True
        ) as own:
            alive = _held(Path(own) / _ALIVE)
            try:
                with object_pipes.opened(repository, Path(own)) as pipes:
                    yield pipes
            finally:
                if alive is not None:
                    alive.release()
    except BrokenPipeError:
        raise  # of whoever reads what is printed
    except OSError as error:
        raise RepositoryError(f"{error.filename or folder}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # a journal may be in it
            (repository.common_dir / FOLDER).rmdir()


def _room(folder: Path, *, only_looks: bool) -> Path:
    """The folder, made and without what killed processes left; or one for what is soon gone."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        if only_looks:
            return Path(tempfile.gettempdir())
        raise
    if only_looks and not os.access(folder, os.W_OK):
        return Path(tempfile.gettempdir())
    _remove_stale(folder)
    return folder


def _held(path: Path) -> Lock | None:
    """A lock that says that this process lives; None where the file system knows none."""
    with suppress(OSError, Busy):
        return Lock(path, alone=True, timeout=0)
    return None


def _remove_stale(folder: Path) -> None:
    """Remove what killed processes had on its way, and journals that nobody comes back for."""
    for old in folder.iterdir():
        with suppress(OSError):
            age = time.time() - old.stat().st_mtime
            if not old.is_dir():
                if age > _FORGOTTEN_SECONDS:
                    old.unlink()
                continue
            if (old / _ALIVE).exists():
                alive = _held(old / _ALIVE)
                if alive is None:
                    continue
                alive.release()
            elif age < _STALE_SECONDS:
                continue
            shutil.rmtree(old, ignore_errors=True)


def planned(
    repository: Repository,
    found: Files,
    commits: Sequence[str],
    *,
    fetch: bool,
    remote: str | None = None,
) -> tuple[list[Version], list[str]]:
    """All versions of the files that are meant, and why some of git-lfs's are missing.

    Args:
        repository: the one that is migrated.
        found: looks at files.
        commits: ids, parents first.
        fetch: ask remotes for files of git-lfs that are not here.
        remote: the name of the one to ask first.
    """
    every = list(versions(found, commits))
    lacking = [one.found.ref for one in every if one.found.kind == MISSING]
    said: list[str] = []
    if lacking and fetch:
        said = LfsFiles(repository).fetch([ref for ref in lacking if ref is not None], remote)
        found.forget_missing()
        every = [_again(found, one) if one.found.kind == MISSING else one for one in every]
    found.whole = whole_paths(found, every)
    return [
        _again(found, one) if one.found.kind == OTHER and one.path in found.whole else one
        for one in every
    ], said


def whole_paths(found: Files, every: Iterable[Version]) -> frozenset[str]:
    """The paths of which one version is moved for what it holds, so that all have to be."""
    chosen = found.selection.above is not None
    return frozenset(
        one.path
        for one in every
        if one.found.kind in (LFS, RAW) and (chosen or found.selection.by_content(one.path))
    )


def _again(found: Files, one: Version) -> Version:
    return Version(one.path, one.oid, found.look(one.path, one.oid))


def missing_of(every: Sequence[Version]) -> list[tuple[str, UpdateRef]]:
    """The paths and objects of git-lfs that are not here, each object once."""
    found: dict[str, tuple[str, UpdateRef]] = {}
    for one in every:
        if one.found.kind == MISSING and one.found.ref is not None:
            found.setdefault(one.found.ref.oid, (one.path, one.found.ref))
    return list(found.values())


def missing_lines(missing: Sequence[tuple[str, UpdateRef]]) -> list[str]:
    """What a message says of them: each on a line, up to a number."""
    lines = [f"  {printable(path)}: sha256:{ref.oid} ({ref.size} bytes)" for path, ref in missing]
    if len(lines) > _NAMED:
        lines[_NAMED:] = [f"  and {len(lines) - _NAMED} more"]
    return lines


def rewritten(
    pipes: ObjectPipes, converter: Converter, journal: Journal, commits: Sequence[str]
) -> Mapping[str, str]:
    """Rewrite commits; those that became others, with what they became.

    Args:
        pipes: reads and writes.
        converter: says what becomes of files.
        journal: has what is done already, and is told the rest.
        commits: ids, parents first.
    """
    done = Rewriter(pipes, converter, journal).run(commits)
    return {old: done[old] for old in commits if done[old] != old}


def require_objects(repository: Repository, pipes: ObjectPipes, journal: Journal) -> None:
    """Check that a run that was stopped left everything that its manifests name.

    Raises:
        MissingObjectError: something was pruned since; the journal is gone, so that the next run
            begins anew.
    """
    store, parser = store_of(repository), Parser()
    for blob in set(journal.blobs.values()):
        refs_of = parser.parse(pipes.read(blob, "blob")).objects()
        if not all(store.keep(ref.oid, ref.size) for ref in refs_of):
            journal.close(done=True)
            raise MissingObjectError(
                "objects of the run that was stopped have been pruned since; nothing was moved",
                hint="run the same command again: it begins anew",
            )


def moved_refs(
    repository: Repository, pipes: ObjectPipes, moved: Mapping[str, str], why: str
) -> list[Update]:
    """Move all refs of commits that were rewritten, and the work tree with them.

    Args:
        repository: whose refs move.
        pipes: writes tags.
        moved: the commits that were rewritten, and what they became.
        why: goes into the reflogs.

    Raises:
        UsageError: another work tree has one of the branches, or Git would start the wrong filter.
        RepositoryError: a ref moved meanwhile, or a file is in the way; nothing was moved.
    """
    found = refs.updates(repository, pipes, moved)
    move(repository, pipes, found, why)
    return found


def move(repository: Repository, pipes: ObjectPipes, found: Sequence[Update], why: str) -> None:
    """Move refs, and the work tree with the one that is checked out; errors as `moved_refs`.

    Args:
        repository: whose refs move.
        pipes: read what they are to name.
        found: the refs, with what they name now and then.
        why: goes into the reflogs.
    """
    refs.require_settled(repository, [one.ref for one in found])
    refs.require_room(repository, found)
    here = refs.checked_out(repository, found)
    if here is not None:
        files = Files(pipes, Selection(("*",)), LfsFiles(repository))
        require_filters(repository, pipes, files, here)
    if found:
        refs.will_follow(repository, found)
        try:
            refs.move(repository, found, why)
        except RepositoryError:
            refs.forget_following(repository)
            raise
        refs.follow(repository, found)


def added(
    repository: Repository,
    pipes: ObjectPipes,
    converter: Converter,
    journal: Journal,
    message: str,
) -> Update | None:
    """A commit on top of the current branch in which files are converted; no history changes.

    None where there is nothing to convert. Errors as for `moved_refs`; no ref was moved then.

    Args:
        repository: whose branch moves.
        pipes: reads and writes.
        converter: says what becomes of files.
        journal: what is done already.
        message: of the commit.

    Raises:
        UsageError: HEAD is no branch.
    """
    branch, head = repository.branch("HEAD"), repository.resolve("HEAD^{commit}")
    if branch is None or head is None:
        raise UsageError("HEAD is no branch with a commit")
    tree = Rewriter(pipes, converter, journal).on_top(head)
    if tree == parse_commit(pipes.read(head, "commit")).tree:
        return None
    made = Update(branch, head, commit_tree(repository, tree, [head], message))
    move(repository, pipes, [made], "git theta migrate import --no-rewrite")
    return made


def map_lines(moved: Mapping[str, str]) -> Iterator[bytes]:
    """The lines of an object map, as git-lfs writes it: old id, comma, new id."""
    return (f"{old},{new}\n".encode("ascii") for old, new in moved.items())
