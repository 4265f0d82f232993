"""A branch of pointers of git-lfs beside one of manifests, kept up: for hosts that know only those.

Its commits are those of the source, rewritten as an export does. Which is whose is found from the
commits themselves, author, dates, message and parents, so that any clone can go on with it.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.object_pipes import AS_WRITTEN, Item, ObjectPipes
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.migration import refs, steps
from git_theta_ext.migration.exporting import TO_LFS, Exporting
from git_theta_ext.migration.found import MANIFEST, Files
from git_theta_ext.migration.headers import parse_commit
from git_theta_ext.migration.importing import ATTRIBUTES
from git_theta_ext.migration.journal import Journal, place
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.refs import Update
from git_theta_ext.migration.selection import Selection


@dataclass(frozen=True, slots=True)
class Ends:
    """The tip of the source, the ref of the target, and what that names now (None: nothing)."""

    source: str
    ref: str
    target: str | None


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What was done: commits and files that are new, and the target's tip; None: it has none."""

    ref: str
    commits: int
    files: int
    tip: str | None
    moved: bool
    """Whether the target is another than before."""


def bring_up(
    repository: Repository, source: str, target: str, *, force: bool = False, dry_run: bool = False
) -> Mirrored:
    """Rewrite the commits of the source that the target lacks, and move the target there.

    Args:
        repository: has both.
        source: a revision.
        target: the name of a branch, which need not be there.
        force: move it even if it has commits that are none of the source.
        dry_run: only count commits.

    Raises:
        UsageError: as for `ends`, or the target has other commits.
        MissingObjectError: the values of a version are nowhere to be had.
    """
    found = ends(repository, source, target)
    with steps.pipes_of(repository, only_looks=dry_run) as pipes:
        path = None if dry_run else place(repository, "mirror", TO_LFS)
        journal = Journal(path, pipes)
        files = Files(pipes, Selection(("*",)), LfsFiles(repository))
        known = adopt(repository, pipes, files, journal, found)
        fresh = len(known.commits) - len(known.made)
        if not force:
            require_ours(found, known.made.values())
        if dry_run:
            return Mirrored(found.ref, fresh, 0, found.target, moved=False)
        written: list[int] = []
        exporting = Exporting(
            repository, files, journal, TO_LFS, lambda _, size: written.append(size)
        )
        steps.rewritten(pipes, exporting, journal, known.commits)
        tip = journal.moved(found.source)
        if moved := tip != found.target:
            update = Update(found.ref, found.target or "0" * len(tip), tip)
            refs.move(repository, [update], f"git theta mirror {source}")
        journal.close(done=True)
    return Mirrored(found.ref, fresh, len(written), tip, moved)


def ends(repository: Repository, source: str, target: str) -> Ends:
    """What a mirror goes from and to.

    Raises:
        UsageError: there is no such source; or the target is none, is the source, or is checked
            out; or the history is cut short here.
    """
    if repository.git("rev-parse", "--is-shallow-repository") == b"true\n":
        raise UsageError(
            "this clone is shallow, and a mirror has all commits",
            hint="git fetch --unshallow",
        )
    tip = repository.resolve(f"{source}^{{commit}}")
    if tip is None:
        raise unknown(repository, source)
    short = target.removeprefix("refs/heads/")
    name = repository.git("check-ref-format", "--branch", short, ok=(0, 1, 128)).strip()
    if not name:
        raise UsageError(f"{printable(target)} is no name for a branch")
    ref = f"refs/heads/{os.fsdecode(name)}"
    if ref in (repository.branch(source), repository.branch("HEAD")):
        raise UsageError(
            f"{printable(target)} is the source, or is checked out; the mirror is a branch of its "
            "own, which nobody commits to"
        )
    refs.require_elsewhere(repository, [ref])
    return Ends(tip, ref, repository.resolve(f"{ref}^{{commit}}"))


@dataclass(frozen=True, slots=True)
class Known:
    """The commits of the source, parents first, and what those are in the target that it has."""

    commits: list[str]
    made: dict[str, str]


def adopt(
    repository: Repository, pipes: ObjectPipes, files: Files, journal: Journal, found: Ends
) -> Known:
    """Look for the commits that the target has already; they are noted as done.

    A commit is told by its parents, author, dates and message, and its files have to be those of
    the source, with pointers for manifests: a branch of manifests is no mirror of itself.

    Args:
        repository: has both branches.
        pipes: reads them.
        files: tells manifests.
        journal: is told what the target has.
        found: the ends of both.
    """
    commits = _history(repository, found.source)
    there: dict[tuple[tuple[str, ...], bytes], list[tuple[str, str]]] = {}
    for oid in _history(repository, found.target) if found.target else ():
        commit = parse_commit(pipes.read(oid, "commit"))
        there.setdefault((commit.parents, commit.rest), []).append((oid, commit.tree))
    made: dict[str, str] = {}
    trees = _Trees(pipes, files)
    for oid in commits:
        commit = parse_commit(pipes.read(oid, "commit"))
        parents = tuple(made.get(one, one) for one in commit.parents)
        alike = [
            new for new, tree in there.get((parents, commit.rest), ())
            if trees.mirrors("", commit.tree, tree)
        ]  # fmt: skip
        if len(alike) == 1:
            made[oid] = alike[0]
            journal.note_commit(oid, alike[0], frozenset())
    return Known(commits, made)


class _Trees:
    """Compares folders of manifests with folders of pointers."""

    def __init__(self, pipes: ObjectPipes, files: Files) -> None:
        self._pipes, self._files = pipes, files
        self._known: dict[tuple[str, str], bool] = {}

    def mirrors(self, path: str, source: str, target: str) -> bool:
        """Whether a folder has the files of another, pointers in place of manifests."""
        key = (source, target)
        if key not in self._known:
            ours, theirs = (
                {one.name: one for one in self._pipes.tree(oid, path) if one.name != ATTRIBUTES}
                for oid in key
            )
            self._known[key] = ours.keys() == theirs.keys() and all(
                self._alike(f"{path}/{os.fsdecode(name)}", one, theirs[name])
                for name, one in ours.items()
            )
        return self._known[key]

    def _alike(self, path: str, one: Item, other: Item) -> bool:
        if one.mode != other.mode:
            return False
        if one.is_folder:
            return self.mirrors(path, one.oid, other.oid)
        if one.is_file and self._files.look(path, one.oid).kind == MANIFEST:
            return self._files.is_pointer(other.oid)
        return one.oid == other.oid


def _history(repository: Repository, tip: str) -> list[str]:
    answer = repository.git("rev-list", "--topo-order", "--reverse", tip, env=AS_WRITTEN)
    return answer.decode("ascii").split()


def require_ours(found: Ends, made: Collection[str]) -> None:
    """Refuse to move a branch whose commits the mirror did not make.

    Raises:
        UsageError: the target's tip is none of them.
    """
    if found.target is not None and found.target not in made:
        raise UsageError(
            f"{printable(found.ref)} has commits that are no mirror of this source; it stays",
            hint="choose another name for the mirror, or give --force, which drops them",
        )
