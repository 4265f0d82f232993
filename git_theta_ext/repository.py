"""Git itself: the only module that knows GitPython and pygit2.

pygit2 serves fast reads inside the process; the git command, run through GitPython, does whatever
must behave exactly as Git does and everything in repositories that libgit2 cannot open (SHA-256
object names, extensions it does not know). Git's environment (`GIT_DIR`, `GIT_WORK_TREE`,
`GIT_INDEX_FILE`, alternates) is inherited by every command and so respected.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from git_theta_ext.errors import RepositoryError, UsageError
from git_theta_ext.store import Store

if TYPE_CHECKING:
    import pygit2

_MERGE_HEADS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the index: octal mode, object id, stage (0; 1 base, 2 ours, 3 theirs), path."""

    mode: str
    oid: str
    stage: int
    path: str


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """What the index knows of a work-tree file that Git wrote or read: object id and status."""

    oid: str
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Repository:
    """One repository, as Git sees it from the folder in which the command was started."""

    def __init__(self, cwd: Path, git_dir: Path, common_dir: Path, work_tree: Path | None) -> None:
        """Use `discover`; the paths are absolute, `work_tree` is None for a bare repository."""
        self.cwd = cwd
        self.git_dir = git_dir
        self.common_dir = common_dir
        self.work_tree = work_tree
        self._quick = False

    @classmethod
    def discover(cls, cwd: Path | str | None = None) -> Repository:
        """The repository around `cwd` (default: the current folder).

        Raises:
            RepositoryError: there is none, or Git refuses it (safe.directory).
        """
        folder = Path(cwd) if cwd is not None else Path.cwd()
        answer = run_git(
            ["rev-parse", "--is-inside-work-tree", "--absolute-git-dir", "--git-common-dir"], folder
        )
        lines = os.fsdecode(answer)[:-1].split("\n")
        if len(lines) != 3:
            # A path with a newline in it: ask for one at a time.
            asked = ("--is-inside-work-tree", "--absolute-git-dir", "--git-common-dir")
            lines = [os.fsdecode(run_git(["rev-parse", one], folder)[:-1]) for one in asked]
        inside, git_dir, common = lines
        top = None
        if inside == "true":
            answer = run_git(["rev-parse", "--show-toplevel"], folder)
            top = Path(os.fsdecode(answer[:-1]))
        return cls(folder, Path(git_dir), (folder / common).resolve(), top)

    @classmethod
    def discover_quickly(cls, cwd: Path | str | None = None) -> Repository:
        """As `discover`, within the process where that is sure to give the same answer.

        Reads then go through libgit2 as far as it can tell, and no process is started for them.

        Raises:
            RepositoryError: see `discover`.
        """
        import pygit2

        folder = Path(cwd) if cwd is not None else Path.cwd()
        if any(name.startswith(_STEERING) for name in os.environ):
            return cls.discover(folder)
        try:
            place = pygit2.discover_repository(str(folder))
            if place is None:
                return cls.discover(folder)
            opened = pygit2.Repository(place)
        except (pygit2.GitError, KeyError, ValueError, OSError):
            return cls.discover(folder)
        git_dir = Path(opened.path).resolve()
        made = cls(folder, git_dir, _common_dir(git_dir), _top(opened.workdir, git_dir, folder))
        made.__dict__["_libgit2"] = _Reader(opened)
        made._quick = True
        return made

    def git(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
    ) -> bytes:
        """What `git ARGUMENTS` prints, run in the folder in which this command was started.

        Raises:
            RepositoryError: git exits with a status that is not in `ok`; carries what it printed.
        """
        return run_git(arguments, self.cwd, stdin=stdin, env=env, ok=ok)

    def setting(self, name: str, default: str | None = None) -> str | None:
        """A setting of git config, by its full name in any case, or `default`."""
        section, _, rest = name.partition(".")
        subsection, _, key = rest.rpartition(".")
        dot = "." if subsection else ""
        return self._settings.get(f"{section.lower()}.{subsection}{dot}{key.lower()}", default)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean setting, in any of Git's spellings.

        Raises:
            UsageError: the value is not a boolean.
        """
        value = self.setting(name)
        if value is None:
            return default
        if value.lower() in ("true", "yes", "on", "1", ""):
            return True
        if value.lower() in ("false", "no", "off", "0"):
            return False
        raise UsageError(f"git config {name} is {value!r}, not true or false")

    @cached_property
    def _settings(self) -> dict[str, str]:
        text = self.git("config", "--list", "-z").decode("utf-8", "surrogateescape")
        pairs = (item.partition("\n") for item in text.split("\0") if item)
        return {name: value if newline else "true" for name, newline, value in pairs}

    @cached_property
    def store(self) -> Store:
        """The object store of this repository; `theta.storage` may name another folder."""
        root = self.common_dir / "theta"
        reader = self._libgit2 if self._quick and root.is_dir() else None
        # libgit2 may look for the system's settings elsewhere, so its word counts only where the
        # store is in its usual place.
        configured = reader.setting("theta.storage") if reader else self.setting("theta.storage")
        if configured:
            root = self.common_dir / Path(configured).expanduser()
        return Store(root, self._alternate_stores())

    def _alternate_stores(self) -> list[Path]:
        """`theta` folders of the repositories that this one borrows Git objects from."""
        folders: list[str] = []
        try:
            text = (self.common_dir / "objects/info/alternates").read_text("utf-8")
            folders += [line for line in text.splitlines() if line and not line.startswith("#")]
        except (OSError, UnicodeDecodeError):
            pass
        folders += os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", "").split(os.pathsep)
        base = self.common_dir / "objects"
        return [(base / folder).resolve().parent / "theta" for folder in folders if folder]

    @property
    def top(self) -> Path:
        """The top of the work tree.

        Raises:
            RepositoryError: the repository is bare.
        """
        if self.work_tree is None:
            raise RepositoryError(f"{self.git_dir} has no work tree here")
        return self.work_tree

    def blob(self, oid: str) -> bytes:
        """The content of a blob.

        Raises:
            RepositoryError: there is no such blob here.
        """
        reader = self._libgit2
        if reader is not None:
            content = reader.blob(oid)
            if content is not None:
                return content
        return self.git("cat-file", "blob", oid)

    def blob_size(self, oid: str) -> int:
        """The length of a blob in bytes, without reading it.

        Raises:
            RepositoryError: there is no such blob here.
        """
        return int(self.git("cat-file", "-s", oid))

    def attribute(self, name: str, path: str) -> str:
        """The value of a Git attribute for a path from the top; `unspecified` if it has none."""
        answer = run_git(
            ["check-attr", "-z", "--stdin", name], self.top, stdin=os.fsencode(path) + b"\0"
        )
        return os.fsdecode(answer.split(b"\0")[2])

    def blob_at(self, revision: str, path: str) -> str | None:
        """The object id of the blob at `path` (from the top) in a revision, or None.

        `revision` is a full object id, a ref or a pseudo-ref such as HEAD.
        """
        reader = self._libgit2
        if reader is not None:
            return reader.blob_at(revision, path)
        answer = self.git(
            "ls-tree", "-z", "--full-tree", revision, "--", path, env=_LITERAL, ok=(0, 128)
        )
        if not answer:
            return None
        kind, oid = answer.split(b"\t", 1)[0].split()[1:3]
        return oid.decode() if kind == b"blob" else None

    @cached_property
    def _libgit2(self) -> _Reader | None:
        import pygit2

        try:
            return _Reader(pygit2.Repository(str(self.git_dir)))
        except (pygit2.GitError, KeyError, ValueError, OSError):
            return None

    def index(self, *pathspecs: str) -> list[IndexEntry]:
        """The index entries that match, from the top of the work tree; all without pathspecs.

        Pathspecs may use magic such as `:(attr:filter=theta)` or `:(top,literal)NAME`.
        """
        answer = self.git("ls-files", "-s", "-z", "--full-name", "--", *pathspecs)
        entries = []
        for line in answer.split(b"\0"):
            if not line:
                continue
            fields, path = line.split(b"\t", 1)
            mode, oid, stage = fields.decode().split()
            entries.append(IndexEntry(mode, oid, int(stage), os.fsdecode(path)))
        return entries

    def indexed_files(self, paths: Iterable[str]) -> dict[str, IndexedFile]:
        """What the index knows of the files at some paths, from the top; conflicts are left out.

        Read from `git ls-files --debug`; lines that do not look as they do today are left out.
        """
        answer = self.git(
            "ls-files", "-s", "-z", "--full-name", "--debug", "--",
            *(f":(top,literal){path}" for path in paths),
        )  # fmt: skip
        found = {}
        for match in _DEBUG_ENTRY.finditer(answer):
            oid, path, *numbers = match.groups()
            ctime, ctime_ns, mtime, mtime_ns, inode, size = map(int, numbers)
            found[os.fsdecode(path)] = IndexedFile(
                oid.decode(), inode, size, mtime * 10**9 + mtime_ns, ctime * 10**9 + ctime_ns
            )
        return found

    def update_index(self, paths: Sequence[str]) -> None:
        """Make the index know the work tree's files at these paths, from the top, as they are.

        Raises:
            RepositoryError: the index is locked or cannot be written.
        """
        names = b"".join(os.fsencode(path) + b"\0" for path in paths)
        run_git(["update-index", "-z", "--stdin"], self.top, stdin=names)

    def tracked(self) -> list[IndexEntry]:
        """The index entries of all paths whose `filter` attribute is `theta`."""
        return self.index(":(top,attr:filter=theta)")

    def revisions_in_progress(self) -> list[str]:
        """HEAD, where there is one, and the other heads of a merge, rebase or pick under way."""
        names = ["HEAD", *(name for name in _MERGE_HEADS if (self.git_dir / name).exists())]
        return names if self.resolve("HEAD") else names[1:]

    def resolve(self, revision: str) -> str | None:
        """The full object id that a revision names, or None."""
        reader = self._libgit2 if self._quick else None
        found = reader.resolve(revision) if reader is not None else None
        if found is not None:
            return found
        answer = self.git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", revision, ok=(0, 1, 128)
        )
        return answer.decode().strip() or None

    def branch(self, revision: str) -> str | None:
        """The full name of the branch that a revision names, HEAD's for HEAD; else None."""
        if revision == "HEAD":
            answer = self.git("symbolic-ref", "--quiet", "HEAD", ok=(0, 1))
        else:
            answer = self.git("rev-parse", "--symbolic-full-name", revision, ok=(0, 128))
        name = answer.decode().strip()
        return name if name.startswith("refs/heads/") else None

    def blobs(self, oids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The contents of many blobs, through one process; ids that are not here are left out."""
        request = "".join(f"{oid}\n" for oid in oids).encode()
        if not request:
            return
        answer = memoryview(self.git("cat-file", "--batch", stdin=request))
        while answer:
            end = bytes(answer[:4096]).index(b"\n")
            fields = bytes(answer[:end]).decode().split()
            answer = answer[end + 1 :]
            if fields[-1] == "missing":
                continue
            size = int(fields[2])
            yield fields[0], bytes(answer[:size])
            answer = answer[size + 1 :]

    def small_blobs(
        self, oids: Sequence[str], first_bytes: bytes, limit: int
    ) -> Iterator[tuple[str, bytes]]:
        """Those of some blobs that begin with `first_bytes` and are no larger than `limit` bytes.

        Large blobs are never read.
        """
        if not oids:
            return
        request = "".join(f"{oid}\n" for oid in oids).encode()
        sizes = self.git("cat-file", "--batch-check", stdin=request).decode().splitlines()
        fitting = []
        for line in sizes:
            fields = line.split()
            if fields[1:2] == ["blob"] and len(first_bytes) <= int(fields[2]) <= limit:
                fitting.append(fields[0])
        for oid, data in self.blobs(fitting):
            if data.startswith(first_bytes):
                yield oid, data


_DEBUG_ENTRY = re.compile(
    rb"[0-7]+ ([0-9a-f]+) 0\t([^\0]+)\0"
    rb"  ctime: (\d+):(\d+)\n  mtime: (\d+):(\d+)\n"
    rb"  dev: \d+\tino: (\d+)\n  uid: \d+\tgid: \d+\n  size: (\d+)\tflags: [0-9a-f]+\n"
)
_LITERAL = {"GIT_LITERAL_PATHSPECS": "1"}


class _Reader:
    """Reads through libgit2."""

    def __init__(self, repository: pygit2.Repository) -> None:
        self._repository = repository

    def blob(self, oid: str) -> bytes | None:
        try:
            found: Any = self._repository[oid]
        except (KeyError, ValueError):
            return None
        return bytes(found.data) if found.type_str == "blob" else None

    def resolve(self, revision: str) -> str | None:
        """The id that a revision names; None where libgit2 does not know, which Git may."""
        import pygit2

        try:
            return str(self._repository.revparse_single(revision).id)
        except (pygit2.GitError, KeyError, ValueError, OSError):
            return None

    def setting(self, name: str) -> str | None:
        """A setting, or None."""
        try:
            return self._repository.config[name]
        except KeyError:
            return None

    def blob_at(self, revision: str, path: str) -> str | None:
        try:
            tree: Any = self._repository.revparse_single(revision)
            while tree.type_str in ("tag", "commit"):
                tree = tree.tree if tree.type_str == "commit" else tree.get_object()
            found = tree[os.fsencode(path).decode("utf-8", "surrogateescape")]
        except (KeyError, ValueError, AttributeError, UnicodeEncodeError):
            return None
        return str(found.id) if found.type_str == "blob" else None


_STEERING = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_CEILING_DIRECTORIES", "GIT_CONFIG",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_NAMESPACE", "GIT_REPLACE_REF_BASE",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_INDEX_FILE",
)  # fmt: skip
"""Beginnings of the names of variables that tell Git where to look; libgit2 knows few of them."""


def _common_dir(git_dir: Path) -> Path:
    """The folder that all work trees of a repository share."""
    try:
        return (git_dir / (git_dir / "commondir").read_text("utf-8").rstrip("\n")).resolve()
    except (OSError, UnicodeDecodeError):
        return git_dir


def _top(work_tree: str | None, git_dir: Path, folder: Path) -> Path | None:
    """The top of the work tree, if the folder is inside it."""
    here = folder.resolve()
    if work_tree is None or here == git_dir or git_dir in here.parents:
        return None
    top = Path(work_tree).resolve()
    return top if here == top or top in here.parents else None


def file_mode_at(repository: Repository, revision: str, path: str) -> str:
    """The mode that a file has in a revision; that of an ordinary file where there is none."""
    answer = repository.git("ls-tree", "-z", "--full-tree", revision, "--", path, env=_LITERAL)
    mode = answer.split(b" ", 1)[0].decode()
    return mode if mode in ("100644", "100755") else "100644"


def git_hash(read: Callable[[int, int], bytes], size: int, digits: int) -> str:
    """The object id that Git gives a blob, read slice by slice.

    Args:
        read: gives the bytes at (offset, length).
        size: length of the content in bytes.
        digits: 40 for a SHA-1 repository, 64 for a SHA-256 one.
    """
    digest = hashlib.new("sha1" if digits == 40 else "sha256", usedforsecurity=False)
    digest.update(b"blob %d\0" % size)
    for start in range(0, size, 1 << 20):
        digest.update(read(start, min(1 << 20, size - start)))
    return digest.hexdigest()


def _runner(cwd: Path) -> Any:
    """GitPython's runner of commands, in a folder.

    It would expand `$NAME` in a path that it is given, so it is told of the folder afterwards.
    """
    from git import Git  # 0.1 s to import, so only once a command is really run

    runner = Git()
    runner._working_dir = str(cwd)
    return runner


def run_git(
    arguments: Sequence[str],
    cwd: Path,
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
) -> bytes:
    """What `git ARGUMENTS` prints when it is run in `cwd`.

    Raises:
        RepositoryError: git cannot be started, or exits with a status that is not in `ok`.
    """
    from git.exc import GitCommandNotFound

    runner = _runner(cwd)
    try:
        process: Any = runner.execute(
            ["git", *arguments],
            as_process=True,
            istream=_PIPE,
            env={**_QUIET, **(env or {})},
        )
    except GitCommandNotFound as error:
        raise RepositoryError(
            "git was not found on PATH", hint="install Git 2.30 or newer"
        ) from error
    stdout, stderr = process.proc.communicate(stdin or b"")
    if process.proc.returncode not in ok:
        text = os.fsdecode(stderr).strip() or f"exit status {process.proc.returncode}"
        raise RepositoryError(f"git {arguments[0]} failed: {text}")
    return bytes(stdout)


_PIPE = -1
_QUIET = {"GIT_OPTIONAL_LOCKS": "0"}


def run_watched(
    arguments: Sequence[str],
    cwd: Path,
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    tick: Callable[[], None],
) -> tuple[int, str]:
    """Run a long `git ARGUMENTS`, calling `tick` five times a second; its status and stderr.

    An exception out of `tick` ends the process and is raised on.

    Raises:
        RepositoryError: git cannot be started.
    """
    from git.exc import GitCommandNotFound

    try:
        started: Any = _runner(cwd).execute(
            ["git", *arguments], as_process=True, istream=_PIPE, env={**_QUIET, **(env or {})}
        )
    except GitCommandNotFound as error:
        raise RepositoryError(
            "git was not found on PATH", hint="install Git 2.30 or newer"
        ) from error
    process = started.proc
    request: bytes | None = stdin
    try:
        while True:
            try:
                _, stderr = process.communicate(request, timeout=0.2)
                return int(process.returncode), os.fsdecode(stderr).strip()
            except subprocess.TimeoutExpired:
                request = None  # communicate goes on with what it was given at first
                tick()
    except BaseException:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def scratch_objects(repository: Repository, folder: Path) -> dict[str, str]:
    """The environment in which Git writes new objects into `folder` and still finds all others."""
    folder.mkdir(parents=True, exist_ok=True)
    real = os.environ.get("GIT_OBJECT_DIRECTORY") or str(repository.common_dir / "objects")
    others = os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES")
    chain = [_quoted_alternate(os.path.join(repository.cwd, real)), *([others] if others else [])]
    return {
        "GIT_OBJECT_DIRECTORY": str(folder),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(chain),
    }


def _quoted_alternate(path: str) -> str:
    """A path as Git reads it in a list of alternates, where the separator or a quote needs care."""
    if os.pathsep not in path and not path.startswith('"'):
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def any_commit_here(repository: Repository, oids: Iterable[str]) -> bool:
    """Whether one of the object ids is a commit (or its tag) here; fetches nothing to find out."""
    request = "".join(f"{oid}\n" for oid in oids).encode()
    if not request:
        return False
    answer = repository.git(
        "rev-list", "--no-walk=unsorted", "--max-count=1", "--ignore-missing",
        "--missing=allow-any", "--stdin", stdin=request,
    )  # fmt: skip
    return bool(answer.strip())


def run_program(command: Sequence[str], cwd: Path) -> tuple[int, bytes, bytes]:
    """The exit status, standard output and standard error of a program that is run in `cwd`.

    Raises:
        RepositoryError: it cannot be started.
    """
    from git.exc import GitCommandNotFound

    try:
        process: Any = _runner(cwd).execute(list(command), as_process=True, istream=_PIPE)
    except (GitCommandNotFound, OSError) as error:
        raise RepositoryError(f"cannot start {command[0]}") from error
    try:
        stdout, stderr = process.proc.communicate(b"")
    except BaseException:
        process.proc.kill()
        process.proc.wait()
        raise
    return int(process.proc.returncode), stdout, stderr


def preload() -> None:
    """Import what `discover_quickly` needs, so that it does not take its time later."""
    import pygit2

    pygit2.LIBGIT2_VERSION  # noqa: B018


def libgit2_version() -> str | None:
    """The version of the libgit2 that pygit2 uses, or None where it cannot be loaded."""
    try:
        import pygit2
    except ImportError:
        return None
    return pygit2.LIBGIT2_VERSION
