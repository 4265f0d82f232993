"""Which commits are rewritten, which refs follow, and their move in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.object_pipes import AS_WRITTEN, ObjectPipes
from git_theta_ext.git.operations import unmerged
from git_theta_ext.git.process import lines_of, run_git
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.git.trees import Row, stage
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.migration.headers import moved_tag

_LEFT = ("refs/remotes/", "refs/notes/", "refs/bisect/", "refs/replace/")
"""As git-lfs has it: what is of a remote, and what names commits in its content, stays."""
_OF_OTHERS = ("refs/notes/", "refs/bisect/", "refs/replace/", "refs/stash")
_MID_WAY = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply",
            "BISECT_LOG")  # fmt: skip
_FOLLOWING = "theta-migrate-follows"
"""In Git's folder of the work tree: where a branch moves that this is to follow."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user says of refs; nothing: the current branch, without what a remote has."""

    branches: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """A ref that moves from one object to another."""

    ref: str
    old: str
    new: str


def commits(repository: Repository, wanted: Wanted) -> list[str]:
    """The ids of the commits to rewrite, parents first.

    Raises:
        UsageError: options contradict each other, or name no commit here; or HEAD is no branch.
    """
    included, excluded = _ends(repository, wanted)
    names = [*included, *(f"^{one}" for one in excluded)]
    if not included:
        return []
    answer = repository.git(
        "rev-list", "--topo-order", "--reverse", "--stdin",
        stdin="".join(f"{one}\n" for one in names).encode(), env=AS_WRITTEN,
    )  # fmt: skip
    return answer.decode("ascii").split()


def _ends(repository: Repository, wanted: Wanted) -> tuple[list[str], list[str]]:
    """The ids of commits to begin at, and those to leave out with all that they have."""
    if wanted.everything:
        if wanted.branches or wanted.include or wanted.exclude:
            raise UsageError("--everything means all refs: name none beside it")
        return _tips(repository), []
    include = [*wanted.include, *(one for one in wanted.branches if not one.startswith("^"))]
    exclude = [*wanted.exclude, *(one[1:] for one in wanted.branches if one.startswith("^"))]
    if not include:
        if repository.branch("HEAD") is None:
            raise UsageError("HEAD is no branch", hint="name the branches, or: --everything")
        include = ["HEAD"]
    excluded = [_named(repository, one) for one in exclude]
    if not (wanted.include or wanted.exclude) and repository.work_tree is not None:
        excluded += _tips(repository, "refs/remotes")
    return [_named(repository, one) for one in include], excluded


def _tips(repository: Repository, *below: str) -> list[str]:
    """The commits that refs name, without those that are about other refs."""
    form = "%(objecttype) %(objectname) %(*objecttype) %(*objectname) %(refname)"
    found = dict[str, None]()
    for line in lines_of(repository.git("for-each-ref", f"--format={form}", *below)):
        kind, oid, peeled, commit, ref = line.split(" ", 4)
        if ref.startswith(_OF_OTHERS):
            continue
        if kind == "commit":
            found[oid] = None
        elif peeled == "commit":
            found[commit] = None
        elif kind == "tag" and (named := _commit(repository, ref)):
            found[named] = None
    return list(found)


def _commit(repository: Repository, name: str) -> str | None:
    return repository.resolve(f"{name}^{{commit}}")


def _named(repository: Repository, name: str) -> str:
    found = _commit(repository, name)
    if found is None:
        raise unknown(repository, name)
    return found


def updates(repository: Repository, pipes: ObjectPipes, moved: Mapping[str, str]) -> list[Update]:
    """What becomes of the local refs: those of a commit that was rewritten, and tags of one.

    Annotated tags are written anew, with the same words; a signature in them no longer fits.
    """
    answer = repository.git(
        "for-each-ref", "--format=%(objectname) %(objecttype) %(symref) %(refname)"
    )
    found, tags = [], {}
    for line in lines_of(answer):
        oid, kind, symref, ref = line.split(" ", 3)
        if symref or ref.startswith(_LEFT):
            continue
        if kind == "tag":
            if oid not in tags:
                tags[oid] = _moved_tag(pipes, oid, moved)
            new = tags[oid]
        else:
            new = moved.get(oid, oid)
        if new != oid:
            found.append(Update(ref, oid, new))
    return found


def _moved_tag(pipes: ObjectPipes, oid: str, moved: Mapping[str, str], depth: int = 0) -> str:
    """The id of a tag that names what its object became; itself if that stayed."""
    data = pipes.read(oid, "tag")
    old, _ = moved_tag(data, {})
    new = moved.get(old, old)
    stated = pipes.size(old)
    if stated is not None and stated[0] == "tag" and depth < 100:
        new = _moved_tag(pipes, old, moved, depth + 1)
    return oid if new == old else pipes.write("tag", moved_tag(data, {old: new})[1])


def move(repository: Repository, found: Sequence[Update], why: str) -> None:
    """Move refs, all of them or none; each has its old value in the reflog.

    Raises:
        RepositoryError: one was moved by somebody else meanwhile, or is locked.
    """
    rows = [f"update {one.ref}\0{one.new}\0{one.old}\0" for one in found]
    request = "".join(["start\0", *rows, "prepare\0", "commit\0"])
    repository.git(
        "update-ref", "--create-reflog", "-m", why, "-z", "--stdin", stdin=os.fsencode(request)
    )


def require_settled(repository: Repository, found: Sequence[str] = ()) -> None:
    """Refuse what would lose work, or leave another work tree with files of another history.

    Args:
        repository: the one whose refs are to move.
        found: full names of refs that are to move, if they are known yet.

    Raises:
        UsageError: something is not committed, or under way; or another work tree has a branch.
    """
    here = repository.work_tree
    if here is not None:
        # Written down, or every look at a file that is as new as the index has it cleaned again.
        repository.git("update-index", "-q", "--refresh", ok=(0, 1))
        if repository.git("status", "--porcelain", "-z", "--untracked-files=no"):
            raise UsageError(
                "the work tree has changes that are not committed",
                hint="commit or stash them first",
            )
        under_way = [one for one in _MID_WAY if (repository.git_dir / one).exists()]
        if under_way or unmerged(repository):
            raise UsageError("a merge, rebase or bisect is under way", hint="conclude it first")
    require_elsewhere(repository, found)


def require_elsewhere(repository: Repository, found: Sequence[str]) -> None:
    """Refuse to move a branch that another work tree has checked out.

    Raises:
        UsageError: names both.
    """
    here = "" if repository.work_tree is None else os.path.realpath(repository.work_tree)
    other = branch = ""
    for line in [*lines_of(repository.git("worktree", "list", "--porcelain")), ""]:
        word, _, value = line.partition(" ")
        if word == "worktree":
            other, branch = value, ""
        elif word == "branch" and value in found and os.path.realpath(other) != here:
            branch = value
        elif word == "prunable":  # its folder is gone
            branch = ""
        elif not word and branch:
            raise UsageError(
                f"{printable(branch)} is checked out in {printable(other)}, too",
                hint="switch that work tree to another branch first",
            )


def require_room(repository: Repository, found: Sequence[Update]) -> None:
    """Check that the work tree could follow; nothing is changed.

    Raises:
        RepositoryError: a file that Git does not know is in the way.
    """
    one = checked_out(repository, found)
    if one is None:
        return
    repository.git("read-tree", "-n", "-m", "-u", one.old, one.new)
    # What Git ignores it would replace.
    tree = WorkTree(repository.top)
    for path in _changed(repository, one, "A"):
        if os.path.basename(path) == ".gitattributes" and tree.has_file(path):
            raise RepositoryError(f"{printable(path)}, which Git ignores, is in the way")


def _changed(repository: Repository, one: Update, kinds: str) -> dict[str, tuple[str, str]]:
    """Mode and blob that files have after a move, by their paths; of those that are files then."""
    answer = repository.git(
        "diff-tree", "-r", "-z", "--no-renames", f"--diff-filter={kinds}", one.old, one.new,
        env=AS_WRITTEN,
    )  # fmt: skip
    fields = answer.split(b"\0")[:-1]
    found = {}
    for row, path in zip(fields[::2], fields[1::2], strict=True):
        _, mode, _, oid, _ = row.decode("ascii").split(" ")
        if mode.startswith("100"):
            found[os.fsdecode(path)] = mode, oid
    return found


def changed_files(repository: Repository, one: Update) -> dict[str, str]:
    """The blobs of the regular files that a move brings or changes, by their paths."""
    return {path: oid for path, (_, oid) in _changed(repository, one, "AMT").items()}


def checked_out(repository: Repository, found: Sequence[Update]) -> Update | None:
    """The move of the branch that the work tree is of, if it is among these."""
    branch = repository.branch("HEAD") if repository.work_tree is not None else None
    return next((update for update in found if update.ref == branch), None)


def follow(repository: Repository, found: Sequence[Update]) -> None:
    """Bring index and work tree along with the branch that is checked out.

    Raises:
        RepositoryError: a file could not be written; says how to have it.
    """
    one = checked_out(repository, found)
    if one is None:
        return
    try:
        repository.git("read-tree", "-m", "-u", one.old, one.new)
    except RepositoryError as error:
        raise RepositoryError(
            f"the branches were moved, but the work tree could not follow: {error.message}",
            hint="move away what it names, then run the same command again",
        ) from error
    forget_following(repository)


def will_follow(repository: Repository, found: Sequence[Update]) -> None:
    """Keep where the branch that is checked out is about to move, in case this is killed.

    Raises:
        RepositoryError: it cannot be written.
    """
    one = checked_out(repository, found)
    if one is not None:
        place = repository.git_dir / _FOLLOWING
        try:
            files.replace_file(place, json.dumps(asdict(one)).encode("ascii"))
        except OSError as error:
            raise RepositoryError(f"{place}: {error.strerror or error}") from error


def forget_following(repository: Repository) -> None:
    """Undo `will_follow`: nothing was moved, or the work tree has followed."""
    files.remove_quietly(repository.git_dir / _FOLLOWING)


def followed_late(repository: Repository) -> bool:
    """Bring along a work tree that a killed run left behind its branch; whether there was one.

    Its index is what it was before, else somebody has gone on with it, and nothing is done. To Git
    it looks as if the whole migration were about to be undone by a commit.

    Raises:
        RepositoryError: as for `follow`.
    """
    place, said = repository.git_dir / _FOLLOWING, b""
    with suppress(FileNotFoundError), files.own(place) as file:
        said = file.read()
    try:
        one = Update(**json.loads(said))
    except (ValueError, TypeError):
        return False
    behind = (
        checked_out(repository, [one]) is not None
        and repository.resolve(one.ref) == one.new
        and not repository.git("diff-index", "--cached", "--raw", one.old)
    )
    if not behind:
        forget_following(repository)
        return False
    _take_what_is_there(repository, one)
    follow(repository, [one])
    return True


def _take_what_is_there(repository: Repository, one: Update) -> None:
    """Have the index know the files that a killed run has brought to the work tree already.

    Git would not replace them, as they are not what the index has.
    """
    tree, changed = WorkTree(repository.top), _changed(repository, one, "AMT")
    paths = [path for path in changed if "\n" not in path and tree.has_file(path)]
    names = "".join(f"{path}\n" for path in paths)
    answer = run_git(["hash-object", "--stdin-paths"], repository.top, stdin=os.fsencode(names))
    there = zip(paths, answer.decode("ascii").split(), strict=True)
    rows = [Row(changed[path][0], oid, path) for path, oid in there if oid == changed[path][1]]
    if rows:
        stage(repository, rows)
