"""A branch of pointers of git-lfs beside one of manifests, kept up: for hosts that know only those.

Its commits are those of the source, rewritten as an export does. Which is whose is found from the
commits themselves, author, dates, message and parents, so that any clone can go on with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.object_pipes import ObjectPipes
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.migration import refs, steps
from git_theta_ext.migration.exporting import TO_LFS, Exporting
from git_theta_ext.migration.found import Files
from git_theta_ext.migration.headers import parse_commit
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
    with steps.pipes_of(repository) as pipes:
        path = None if dry_run else place(repository, "mirror", TO_LFS)
        journal = Journal(path, pipes)
        commits = adopt(repository, pipes, journal, found)
        fresh = [one for one in commits if one not in journal.commits]
        if not force:
            require_ours(found, [one.new for one in journal.commits.values()])
        if dry_run:
            return Mirrored(found.ref, len(fresh), 0, found.target, moved=False)
        written: list[int] = []
        files = Files(pipes, Selection(("*",)), LfsFiles(repository))
        exporting = Exporting(
            repository, files, journal, TO_LFS, lambda _, size: written.append(size)
        )
        steps.rewritten(pipes, exporting, journal, commits)
        tip = journal.moved(found.source)
        if moved := tip != found.target:
            update = Update(found.ref, found.target or "0" * len(tip), tip)
            refs.move(repository, [update], f"git theta mirror {source}")
        journal.close(done=True)
    return Mirrored(found.ref, len(fresh), len(written), tip, moved)


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
    ref = target if target.startswith("refs/heads/") else f"refs/heads/{target}"
    if not repository.git("check-ref-format", "--branch", ref[11:], ok=(0, 1, 128)).strip():
        raise UsageError(f"{printable(target)} is no name for a branch")
    if ref in (repository.branch(source), repository.branch("HEAD")):
        raise UsageError(
            f"{printable(target)} is the source, or is checked out; the mirror is a branch of its "
            "own, which nobody commits to"
        )
    refs.require_elsewhere(repository, [ref])
    return Ends(tip, ref, repository.resolve(f"{ref}^{{commit}}"))


def adopt(repository: Repository, pipes: ObjectPipes, journal: Journal, found: Ends) -> list[str]:
    """The commits of the source, parents first; those that the target has are noted as done.

    Args:
        repository: has both branches.
        pipes: reads them.
        journal: is told what the target has.
        found: the ends of both.
    """
    commits = _history(repository, found.source)
    made: dict[tuple[tuple[str, ...], bytes], list[str]] = {}
    for oid in _history(repository, found.target) if found.target else ():
        commit = parse_commit(pipes.read(oid, "commit"))
        made.setdefault((commit.parents, commit.rest), []).append(oid)
    for oid in commits:
        commit = parse_commit(pipes.read(oid, "commit"))
        parents = tuple(journal.moved(one) for one in commit.parents)
        there = made.get((parents, commit.rest), ())
        if len(there) == 1 and oid not in journal.commits:
            journal.note_commit(oid, there[0], frozenset())
    return commits


def _history(repository: Repository, tip: str) -> list[str]:
    answer = repository.git("rev-list", "--topo-order", "--reverse", tip)
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
