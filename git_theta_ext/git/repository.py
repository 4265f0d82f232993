"""One repository: its folders, settings, objects and index.

libgit2 serves fast reads inside the process; the git command does whatever must behave exactly as
Git does, and everything in repositories that libgit2 cannot open.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from git_theta_ext.core.errors import RepositoryError, UsageError
from git_theta_ext.git.process import Sink, run_git, run_git_into

if TYPE_CHECKING:
    from git_theta_ext.git.libgit2 import Reader


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file or folder of a revision; `path` is from the top."""

    mode: str
    kind: str
    oid: str
    path: str


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
        self.env: Mapping[str, str] = {}
        """Variables that each command of Git here gets."""
        self.offline = False
        """Whether no remote may be asked for anything."""
        self._quick = False

    @classmethod
    def discover(cls, cwd: Path | str | None = None) -> Repository:
        """The repository around `cwd` (default: the current folder).

        Raises:
            RepositoryError: there is none, or Git refuses it (safe.directory).
        """
        folder = Path(cwd) if cwd is not None else Path.cwd()
        asked = ("--is-inside-work-tree", "--absolute-git-dir", "--git-common-dir")
        try:
            answer = run_git(["rev-parse", *asked], folder)
        except RepositoryError as error:
            if "fatal: not a git repository (or any" not in error.message:
                raise
            raise RepositoryError(
                f"{folder} is not in a Git repository", hint="cd to one, or make one: git init"
            ) from error
        lines = os.fsdecode(answer)[:-1].split("\n")
        if len(lines) != 3:
            # A path with a newline in it: ask for one at a time.
            lines = [os.fsdecode(run_git(["rev-parse", one], folder)[:-1]) for one in asked]
        inside, git_dir, common = lines
        top = None
        if inside == "true":
            answer = run_git(["rev-parse", "--show-toplevel"], folder)
            top = Path(os.fsdecode(answer[:-1]))
        elif os.environ.get("GIT_WORK_TREE"):
            # Git works there from outside, too, and takes paths as from its top.
            answer = run_git(["rev-parse", "--show-toplevel"], folder, ok=(0, 128))
            top = Path(os.fsdecode(answer[:-1])) if answer else None
            if top is not None and not folder.resolve().is_relative_to(git_dir):
                return cls(top, Path(git_dir), (folder / common).resolve(), top)
            top = None
        return cls(folder, Path(git_dir), (folder / common).resolve(), top)

    @classmethod
    def discover_quickly(cls, cwd: Path | str | None = None) -> Repository:
        """As `discover`, within the process where that is sure to give the same answer.

        Reads then go through libgit2 as far as it can tell, and no process is started for them.

        Raises:
            RepositoryError: see `discover`.
        """
        from git_theta_ext.git import libgit2  # takes its time, as git does

        folder = Path(cwd) if cwd is not None else Path.cwd()
        found = libgit2.discover(folder)
        if found is None:
            return cls.discover(folder)
        reader, place = found
        made = cls(folder, *place)
        made.__dict__["_libgit2"] = reader
        made._quick = True
        return made

    @classmethod
    def bare(cls, git_dir: Path, *, offline: bool = False) -> Repository:
        """A bare repository of our own, wherever the command was started and whatever steers Git.

        Args:
            git_dir: its folder, an absolute path.
            offline: no remote is to be asked for anything.
        """
        made = cls(git_dir, git_dir, git_dir, None)
        made.env = {**own_environment(git_dir), **(_STAY_HOME if offline else {})}
        made.offline = offline
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

        Args:
            *arguments: what follows `git`.
            stdin: what it reads; None for nothing.
            env: variables in addition to ours, or in their place.
            ok: exit statuses that are no failure.

        Raises:
            RepositoryError: git exits with a status that is not in `ok`; carries what it printed.
        """
        return run_git(arguments, self.cwd, stdin=stdin, env={**self.env, **(env or {})}, ok=ok)

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

    def quick_setting(self, name: str, folder: Path) -> str | None:
        """A setting, from within the process where `folder` is there, else as `setting`.

        libgit2 may look for the system's settings elsewhere than Git, so its word counts only where
        what the setting could move stands in its usual place.
        """
        reader = self._libgit2 if self._quick and folder.is_dir() else None
        return reader.setting(name) if reader else self.setting(name)

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

    def names(self, oid: str, content: bytes) -> bool:
        """Whether an object id is that of a blob with this content."""
        return git_hash(lambda at, length: content[at : at + length], len(content), len(oid)) == oid

    def write_blob(self, oid: str, file: Sink) -> None:
        """Write the content of a blob, however large, to a file.

        Raises:
            RepositoryError: there is no such blob here.
        """
        run_git_into(file, ["cat-file", "blob", oid], self.cwd, env=self.env)

    def blob_size(self, oid: str) -> int:
        """The length of a blob in bytes, without reading it.

        Raises:
            RepositoryError: there is no such blob here.
        """
        reader = self._libgit2
        size = None if reader is None else reader.blob_size(oid)
        return int(self.git("cat-file", "-s", oid)) if size is None else size

    def blob_sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """The length in bytes of each blob that is here; ids of other things are left out."""
        reader = self._libgit2
        wanted = list(dict.fromkeys(oids))
        found = {oid: reader.blob_size(oid) if reader is not None else None for oid in wanted}
        rest = [oid for oid, size in found.items() if size is None]
        if rest:
            request = "".join(f"{oid}\n" for oid in rest).encode()
            answer = self.git("cat-file", "--batch-check", "--buffer", stdin=request)
            rows = (line.split() for line in answer.decode("ascii").splitlines())
            found |= {row[0]: int(row[2]) for row in rows if len(row) == 3 and row[1] == "blob"}
        return {oid: size for oid, size in found.items() if size is not None}

    def attribute(self, name: str, path: str) -> str:
        """The value of a Git attribute for a path from the top; `unspecified` if it has none."""
        return self.attributes(name, [path])[path]

    def attributes(
        self, name: str, paths: Iterable[str], index: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The values of a Git attribute for many paths, as `attribute`, from one process.

        In a bare repository those of `info/attributes` alone, as Git has it, without an `index`.

        Args:
            name: of the attribute.
            paths: from the top.
            index: the environment that names an index (`trees.index_of`), whose `.gitattributes`
                count, and not those of the work tree.
        """
        request = b"".join(os.fsencode(path) + b"\0" for path in paths)
        if not request:
            return {}
        place = self.work_tree or self.git_dir
        words = ["check-attr", *(["--cached"] if index is not None else []), "-z", "--stdin", name]
        answer = run_git(words, place, stdin=request, env={**self.env, **(index or {})})
        fields = answer.split(b"\0")[:-1]
        return {
            os.fsdecode(path): os.fsdecode(value)
            for path, value in zip(fields[::3], fields[2::3], strict=True)
        }

    def blob_at(self, revision: str, path: str) -> str | None:
        """The object id of the blob at `path` (from the top) in a revision, or None.

        `revision` is a full object id, a ref or a pseudo-ref such as HEAD.
        """
        reader = self._libgit2
        if reader is not None:
            return reader.blob_at(revision, path)
        found = self.tree(revision, path, ok=(0, 128))
        return found[0].oid if found and found[0].kind == "blob" else None

    def blobs_at(self, revision: str) -> dict[str, str]:
        """The object id of the blob at every path (from the top) of a revision; see `blob_at`."""
        found = self.tree(revision, recursive=True, ok=(0, 128))
        return {entry.path: entry.oid for entry in found if entry.kind == "blob"}

    def tree(
        self, revision: str, *paths: str, recursive: bool = False, ok: Sequence[int] = (0,)
    ) -> list[TreeEntry]:
        """What a revision has, in Git's order: at some paths, or in its top folder.

        Args:
            revision: a commit or tree, in any spelling.
            paths: from the top, as they are; one that ends with a slash stands for what is in it.
            recursive: the files in all folders below, too.
            ok: exit codes of `git ls-tree` that are no error; 128 is an unknown revision.

        Raises:
            RepositoryError: git exits with a status that is not in `ok`.
        """
        options = ["-r"] if recursive else []
        answer = self.git(
            "ls-tree", "-z", "--full-tree", *options, revision, "--", *paths, env=_LITERAL, ok=ok
        )
        found = []
        for line in answer.split(b"\0")[:-1]:
            fields, path = line.split(b"\t", 1)
            mode, kind, oid = fields.decode("ascii").split()
            found.append(TreeEntry(mode, kind, oid, os.fsdecode(path)))
        return found

    @property
    def reads_within_process(self) -> bool:
        """Whether blobs and trees are read without starting git for each."""
        return self._libgit2 is not None

    @cached_property
    def _libgit2(self) -> Reader | None:
        from git_theta_ext.git import libgit2

        return libgit2.open_reader(self.git_dir)

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
            *map(literal, paths),
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
        """The index entries of all regular files whose `filter` attribute is `theta`.

        A symbolic link has the attributes of its path too, but its content meets no filter.
        """
        found = self.index(":(top,attr:filter=theta)")
        return [entry for entry in found if entry.mode.startswith("100")]

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
            if revision.startswith("-"):  # rev-parse knows no end of options for this
                return None
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

        Large blobs are never read. Those that are here are read within the process, if that can be.
        """
        sizes = self.blob_sizes(oids)
        fitting = [oid for oid, size in sizes.items() if len(first_bytes) <= size <= limit]
        if self.reads_within_process:
            found = ((oid, self.blob(oid)) for oid in fitting)
        else:
            found = ((oid, data) for oid, data in self.blobs(fitting))
        yield from ((oid, data) for oid, data in found if data.startswith(first_bytes))


def skips_smudge(repository: Repository, environment: Mapping[str, str]) -> bool:
    """Whether manifests are wanted in the work tree: the variable overrules the setting."""
    value = environment.get("GIT_THETA_SKIP_SMUDGE")
    if value is not None:
        return value.lower() not in ("", "0", "false", "no", "off")
    return repository.flag("theta.skipSmudge")


_DEBUG_ENTRY = re.compile(
    rb"[0-7]+ ([0-9a-f]+) 0\t([^\0]+)\0"
    rb"  ctime: (\d+):(\d+)\n  mtime: (\d+):(\d+)\n"
    rb"  dev: \d+\tino: (\d+)\n  uid: \d+\tgid: \d+\n  size: (\d+)\tflags: [0-9a-f]+\n"
)
_LITERAL = {"GIT_LITERAL_PATHSPECS": "1"}
_STAY_HOME = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
"""No remote is asked for what a partial clone lacks (the second: from Git 2.44 on)."""


def own_environment(git_dir: Path) -> dict[str, str]:
    """The variables by which Git uses a bare repository, whichever one others of them name."""
    own = {"GIT_DIR": str(git_dir), "GIT_COMMON_DIR": str(git_dir)}
    overruled = {
        "GIT_OBJECT_DIRECTORY": str(git_dir / "objects"), "GIT_INDEX_FILE": str(git_dir / "index"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "", "GIT_NAMESPACE": "",
    }  # fmt: skip
    return own | {name: value for name, value in overruled.items() if name in os.environ}


def literal(path: str) -> str:
    """The pathspec of just one path, from the top, whatever characters it has."""
    return f":(top,literal){path}"


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
