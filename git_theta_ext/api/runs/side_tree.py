"""A work tree for a run's branch, hidden in Git's folder: the user's own, and its index, stay.

It is one of Git's further work trees, so HEAD and index in it are those of the run's branch. That
is what `git add` compares new checkpoints with, what keeps objects from being pruned, and what
makes Git refuse to check the branch out elsewhere meanwhile. Its files are hard links to those of
a checkpoint, while that is added: the trainer may remove its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from git_theta_ext.api.runs import messages
from git_theta_ext.core import files
from git_theta_ext.core.errors import (
    ChangedWhileReadError,
    RepositoryError,
    StoreError,
    UsageError,
)
from git_theta_ext.core.text import printable, size
from git_theta_ext.git.patience import patiently
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import Row, commit_tree, stage, store_blob
from git_theta_ext.objects.store.locks import Busy, Lock

_SETTINGS = (":(top,glob)**/.gitattributes", ":(top).theta.toml")
_STEERING = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
_UNBORN = "refs/theta/unborn"
LARGEST_BLOB = 16 << 20
"""A larger file that no filter takes would make the repository large for ever."""


class _Linked(NamedTuple):
    """What a file was when it was linked: another one in its place, or other bytes, show."""

    inode: int
    nbytes: int
    mtime_ns: int


class SideTree:
    """The hidden work tree of a branch, for one process at a time, until `close`."""

    def __init__(
        self, repository: Repository, branch: str, start: str, *, alone: bool = False
    ) -> None:
        """Make it, and the branch where there is none.

        Args:
            repository: with a work tree.
            branch: without `refs/heads/`.
            start: a revision that a new branch begins at.
            alone: a checkpoint is not stored as an update of another one, whose objects would have
                to stay with it. What is the same in both is shared all the same.

        Raises:
            UsageError: no name for a branch, no such revision, or another process has it.
            RepositoryError: the branch is checked out, or Git fails.
            StoreError: it cannot be written.
        """
        answer = repository.git("check-ref-format", "--branch", branch, ok=(0, 128))
        if os.fsdecode(answer).removesuffix("\n") != branch:
            raise UsageError(f"{printable(branch)!r} is no name for a branch")
        self.branch, self.ref = branch, f"refs/heads/{branch}"
        self._alone = alone
        folder = repository.common_dir / "theta" / "runs"
        self._place = folder / _slug(branch)
        self._linked: dict[str, _Linked] = {}
        self._links: dict[str, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(folder / f"{_slug(branch)}.lock", alone=True, timeout=0)
        except Busy:
            raise UsageError(f"another process trains on the branch {branch}") from None
        except OSError as error:
            raise StoreError(f"cannot lock {folder}: {error.strerror or error}") from error
        try:
            _take_away_left(repository, folder)
            self._repository = self._made(repository, start)
        except BaseException:
            self._lock.release()
            raise
        self._closing = weakref.finalize(
            self, _closed, os.getpid(), repository, self._place, self._lock
        )

    def _made(self, repository: Repository, start: str) -> Repository:
        """The hidden work tree as a repository; what a killed process left is taken away."""
        _removed(repository, self._place)
        words = [str(self._place), self.branch]
        if repository.resolve(self.ref) is None:
            commit = repository.resolve(f"{start}^{{commit}}")
            if commit is None:
                raise UsageError(
                    f"there is no revision {printable(start)!r} for the run to begin at",
                    hint="commit .gitattributes first",
                )
            words = ["--no-track", "-b", self.branch, str(self._place), commit]
        patiently(lambda: repository.git("worktree", "add", "-q", "--no-checkout", *words))
        made = _seen_from(self._place)
        self._begin_at(made, repository.resolve(f"{start}^{{commit}}"))
        made.git("read-tree", "HEAD")
        made.git("checkout-index", "-q", "-z", "--stdin", stdin=_listed(made, *_SETTINGS))
        return made

    def _begin_at(self, made: Repository, start: str | None) -> None:
        """Have a branch on which nothing was saved yet begin where a new one would.

        So a run whose first save failed, for what its beginning lacked, can be begun again.
        """
        tip = made.resolve("HEAD")
        if start is None or tip is None or tip == start:
            return
        message = os.fsdecode(made.git("log", "-1", "--format=%B", tip))
        if messages.read(message) is None and made.git("rev-list", "-1", f"{start}..{tip}") == b"":
            made.git("update-ref", "-m", "git-theta: begin the run", self.ref, start, tip)

    @property
    def repository(self) -> Repository:
        """The repository, seen from this work tree."""
        return self._repository

    @property
    def beside(self) -> Path:
        """The path of a file beside it, which stays."""
        return self._place.with_name(f"{self._place.name}.saved")

    def paths(self) -> list[str]:
        """Every file that the branch has, from the top."""
        return [os.fsdecode(one) for one in _listed(self._repository).split(b"\0")[:-1]]

    def messages(self, most: int) -> list[str]:
        """The messages of the branch's last commits, the newest first."""
        answer = self._repository.git(
            "log", "--first-parent", f"--max-count={most}", "-z", "--format=%B", "HEAD"
        )
        return [os.fsdecode(one) for one in answer.split(b"\0")]

    def take(self, places: Mapping[str, Path]) -> None:
        """Link the files of a checkpoint, so that they stay until they are added.

        Args:
            places: files or folders, by where they stand from the top.

        Raises:
            UsageError: there is nothing in one of these places.
            StoreError: they cannot be linked, nor copied.
        """
        self._let_go()
        found: list[tuple[Path, str]] = []
        for path, place in places.items():
            here = list(_files(place, path))
            if not here:
                raise UsageError(f"there is no checkpoint {printable(str(place))}")
            found += here
        try:
            for source, name in found:
                if source.is_symlink():
                    self._links[name] = os.readlink(source)
                    continue
                target = self._place / name
                target.parent.mkdir(parents=True, exist_ok=True)
                files.link_or_copy(source, target)
                self._linked[name] = _linked(target)
        except OSError as error:
            self._let_go()
            raise StoreError(f"cannot keep {[*places]}: {error.strerror or error}") from error

    def commit(self, dropped: Sequence[str], message: str) -> str | None:
        """Commit what was taken; None if nothing changes.

        Args:
            dropped: paths, of files or folders, at which the tip is to have nothing any more, but
                for what was taken.
            message: of the commit.

        Raises:
            UsageError: a large file is not tracked.
            ChangedWhileReadError: somebody wrote to a file meanwhile.
            RepositoryError: Git fails, or somebody else moved the branch.
        """
        repository = self._repository
        parent = repository.resolve("HEAD")
        if parent is None:
            raise RepositoryError(f"the branch {self.branch} is gone")
        repository.git("read-tree", parent)  # whatever a failed one left
        try:
            self._add()
        finally:
            self._let_go()
        here = {*self._linked, *self._links}
        self._linked, self._links = {}, {}
        gone = [one for one in self.paths() if is_in(one, dropped) and one not in here]
        if gone:
            stage(repository, [Row("0", "0" * len(parent), one) for one in gone])
        tree = repository.git("write-tree").decode().strip()
        if tree == repository.resolve(f"{parent}^{{tree}}"):
            return None
        made = commit_tree(repository, tree, [parent], message)
        self.move(made, parent, message.splitlines()[0])
        return made

    def move(self, commit: str, old: str, reason: str) -> None:
        """Have the branch name another commit, if it still names the old one.

        Raises:
            RepositoryError: it does not, or Git fails.
        """
        patiently(
            lambda: self._repository.git(
                "update-ref", "-m", f"git-theta: {reason}", self.ref, commit, old
            )
        )

    def close(self) -> None:
        """Take the work tree away; the branch stays. At the end of the program, if not before."""
        self._closing()

    def _add(self) -> None:
        """Into the index, through the filters that the attributes name."""
        names = b"".join(os.fsencode(name) + b"\0" for name in self._linked)
        if names and self._alone:
            stage(self._repository, self._stored_alone(names))
        elif names:
            self._update(names, {})
        for name, before in self._linked.items():
            if _linked(self._place / name) != before:
                raise ChangedWhileReadError(f"{printable(name)} changed while it was committed")
        self._refuse_large()
        rows = [
            Row("120000", store_blob(self._repository, os.fsencode(target)), name)
            for name, target in self._links.items()
        ]
        if rows:
            stage(self._repository, rows)

    def _update(self, names: bytes, env: Mapping[str, str]) -> None:
        words = ("update-index", "--add", "--replace", "-z", "--stdin")
        self._repository.git(*words, stdin=names, env=env)

    def _stored_alone(self, names: bytes) -> list[Row]:
        """Add files as to an empty repository: the filter compares with HEAD and the index."""
        alone = self._repository.git_dir / "alone"  # as Git's folder of a work tree is made up
        alone.mkdir(exist_ok=True)
        files.replace_file(alone / "HEAD", f"ref: {_UNBORN}\n".encode())
        files.replace_file(alone / "commondir", os.fsencode(self._repository.common_dir) + b"\n")
        env = {
            "GIT_DIR": str(alone), "GIT_WORK_TREE": str(self._place),
            "GIT_INDEX_FILE": str(alone / "index"),
        }  # fmt: skip
        self._repository.git("read-tree", "--empty", env=env)
        self._update(names, env)
        listed = self._repository.git("ls-files", "-s", "-z", env=env)
        rows = []
        for line in listed.split(b"\0")[:-1]:
            fields, path = line.split(b"\t", 1)
            mode, oid, _ = fields.decode("ascii").split()
            rows.append(Row(mode, oid, os.fsdecode(path)))
        return rows

    def _refuse_large(self) -> None:
        large = [n for n, one in self._linked.items() if one.nbytes >= LARGEST_BLOB]
        values = self._repository.attributes("filter", large)
        for name in large:
            if values[name] in ("unspecified", "unset"):
                raise UsageError(
                    f"{printable(name)} ({size(self._linked[name].nbytes)}) is not tracked: no "
                    f"pattern of .gitattributes gives it the filter theta in {self.branch}",
                    hint="git theta track PATTERN, commit .gitattributes, then start a new run",
                )

    def _let_go(self) -> None:
        """Unlink what was added, or was not."""
        for name in self._linked:
            files.remove_quietly(self._place / name)


def _seen_from(place: Path) -> Repository:
    """The repository, seen from a hidden work tree, whatever variables steer Git elsewhere."""
    if not _STEERING & set(os.environ):
        return Repository.discover_quickly(place)
    git_dir = Path((place / ".git").read_text("utf-8").removeprefix("gitdir: ").rstrip("\n"))
    common = (git_dir / (git_dir / "commondir").read_text("utf-8").rstrip("\n")).resolve()
    made = Repository(place, git_dir, common, place)
    made.env = {
        "GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(place),
        "GIT_INDEX_FILE": str(git_dir / "index"),
    }  # fmt: skip
    return made


def _slug(branch: str) -> str:
    """A name of a folder for a branch: for people, and the only one of its kind."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", branch).strip(".-")[-40:]
    return f"{plain}-{hashlib.sha256(os.fsencode(branch)).hexdigest()[:12]}"


def _removed(repository: Repository, place: Path) -> None:
    """Take a hidden work tree away, with what Git knows of it.

    Raises:
        RepositoryError: Git does not let go of it.
    """

    def remove() -> None:
        repository.git("worktree", "remove", "-f", "-f", str(place))

    if place.exists():
        with suppress(RepositoryError):
            patiently(remove)
        shutil.rmtree(place, ignore_errors=True)
    if _is_known(repository, place):  # of a folder that was half there, or is gone
        patiently(remove)


def _is_known(repository: Repository, place: Path) -> bool:
    """Whether Git has a work tree of this name, which no other one has."""
    listed = lines_of(repository.git("worktree", "list", "--porcelain"))
    return any(one.startswith("worktree ") and one.endswith(f"/{place.name}") for one in listed)


def _closed(pid: int, repository: Repository, place: Path, lock: Lock) -> None:
    """Close what process `pid` has made: a loader of data that it forked has the finalizer too."""
    if os.getpid() != pid:
        return
    with suppress(RepositoryError):
        _removed(repository, place)
    lock.release_for_all()


def _take_away_left(repository: Repository, folder: Path) -> None:
    """Take away what killed processes left, of whatever branch: Git would not check it out."""
    for place in folder.glob("*.lock"):
        with suppress(Busy, OSError):
            lock = Lock(place, alone=True, timeout=0)
            try:
                if (folder / place.stem).exists():
                    _removed(repository, folder / place.stem)
            finally:
                lock.release()


def _listed(repository: Repository, *pathspecs: str) -> bytes:
    return repository.git("ls-files", "-z", "--full-name", "--", *pathspecs)


def _linked(path: Path) -> _Linked:
    found = path.lstat()
    return _Linked(found.st_ino, found.st_size, found.st_mtime_ns)


def _files(place: Path, path: str) -> Iterable[tuple[Path, str]]:
    """Regular files and links at a place or below it, with their paths from the top."""
    try:
        kind = place.lstat().st_mode
    except OSError:
        return
    if stat.S_ISREG(kind) or stat.S_ISLNK(kind):
        yield place, path
    elif stat.S_ISDIR(kind):
        for one in sorted(place.iterdir()):
            if one.name != ".git":
                yield from _files(one, f"{path}/{one.name}")


def is_in(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of some others, or below one."""
    return any(path == one or path.startswith(f"{one}/") for one in folders)
