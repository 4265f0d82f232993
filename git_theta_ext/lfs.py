"""git-lfs as a carrier: objects to and from every endpoint that is not a folder.

git-lfs works in a folder of its own below the store (`lfs.storage` is overridden), so that
`git lfs prune` and other runs of git-lfs do not meet its files, and an interrupted download can
go on where it stopped. It is asked for one batch, and believed in nothing: callers check every
object after a fetch and before a push.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from git_theta_ext.errors import TransferError, UsageError
from git_theta_ext.git_process import run_watched
from git_theta_ext.manifest import UpdateRef
from git_theta_ext.repository import Repository, scratch_objects

GUARD = "GIT_THETA_NO_PRE_PUSH"
"""Set in the environment of what a transfer starts; the pre-push hook then does nothing."""

_TIMEOUT_SECONDS = 600
"""Silence longer than this ends a transfer: git-lfs may wait for ever on a password helper."""

_STALE_SECONDS = 24 * 3600

_UNPROCESSABLE = "lfs.contenttype"
"""git-lfs takes every 422 for a complaint about the type of the content, names this setting, leaves
the object out and exits with 0 (tq/transfer_queue.go, 2.8 to 3.7). Servers say 422 for a wrong hash
too, and when they verify an upload that they do not have."""

_SIGNED = re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']+")
"""A link with a query, which often is a signature that lets whoever reads it in."""

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]+\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n"
)

_BUSY = ": the server limits the rate of requests (429); wait a while, then try again"
"""All that git-lfs says after a 429 is "Error" (errors/errors.go, retriableLaterError)."""

_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "theta"), ("EMAIL", "theta@localhost"), ("DATE", "@0 +0000"))
}


class LfsNotInstalledError(TransferError):
    """git-lfs is needed to reach this remote, and it is not installed."""

    def __init__(self) -> None:
        """The message is always the same."""
        super().__init__(
            "git-lfs is needed to reach this remote and is not installed",
            hint="install git-lfs 3.0 or newer (https://git-lfs.com), then try again",
        )


def fetch(
    repository: Repository,
    remote: str,
    objects: list[UpdateRef],
    advance: Callable[[int], object],
) -> Path:
    """Let git-lfs download objects; the folder below which it put `objects/aa/bb/<oid>`.

    Some may be absent or damaged there even if nothing is raised, so check each of them.

    Raises:
        LfsNotInstalledError: there is no git-lfs.
        TransferError: it failed and brought nothing; carries what it said.
    """
    folder = repository.store.root / "lfs"
    with _scratch(folder) as scratch:
        environment = scratch_objects(repository, scratch / "git")
        commit = _pointer_commit(repository, scratch, objects, environment)
        status, said = _run(
            repository,
            # Settings, of users or committed in .lfsconfig, that would have git-lfs fetch less or
            # more than the commit names and still report success.
            ["-c", "lfs.fetchinclude=", "-c", "lfs.fetchexclude=",
             "-c", "lfs.fetchrecentalways=false", "-c", f"lfs.storage={folder}",
             "lfs", "fetch", remote, commit],
            stdin=b"", env={**environment, GUARD: "1"}, advance=advance,
        )  # fmt: skip
    found = any((folder / "objects" / o.oid[:2] / o.oid[2:4] / o.oid).exists() for o in objects)
    if status != 0 and not found:
        raise TransferError(f"git lfs fetch failed: {said}")
    return folder


def ask(repository: Repository, remote: str, url: str, objects: list[UpdateRef]) -> set[str]:
    """The ids of those objects that a server offers for download; none is downloaded.

    Of all of git-lfs's commands only `prune --verify-remote` asks without transferring. So it is
    run, dry, in a scratch repository with this one's settings, whose store holds files of these
    names and sizes (with holes for bytes) and whose one remote branch needs them. One more object,
    of a name made up by chance, has to be among those that it calls missing: else it did not ask.

    Args:
        repository: whose settings and credentials count.
        remote: the remote's name, or a URL.
        url: where its objects are.
        objects: what is asked about.

    Raises:
        LfsNotInstalledError: there is no git-lfs.
        TransferError: the server did not answer.
    """
    nowhere = UpdateRef("dense", secrets.token_hex(32), 1)
    with _scratch(repository.store.root / "lfs") as scratch:
        git_dir = scratch / "git"
        environment = _scratch_repository(repository, git_dir, url, scratch, [*objects, nowhere])
        status, said = _run(
            repository,
            ["--git-dir", str(git_dir), "-c", f"lfs.storage={scratch}", "-c", f"lfs.url={url}"
             if _is_lfs_url(repository, remote, url) else f"remote.{_ASKED}.url={url}",
             "-c", f"lfs.pruneremotetocheck={_ASKED}",
             "lfs", "prune", "--dry-run", "--verify-remote", "--verbose"],
            stdin=b"", env={**environment, GUARD: "1", "GIT_COMMON_DIR": str(git_dir)},
            advance=lambda _: None,
        )  # fmt: skip
    lacking = set(re.findall(r"\b[0-9a-f]{64}\b", said))
    if status == 0 or nowhere.oid not in lacking:
        raise TransferError(f"git-lfs could not ask {remote} what it has: {said}")
    found = {item.oid for item in objects} - lacking
    if not found:
        _expect_answer(repository, remote, nowhere)
    return found


_ASKED = "theta-asked"
"""The name of the remote in the scratch repository."""


def _is_lfs_url(repository: Repository, remote: str, url: str) -> bool:
    """Whether a URL is that of the objects, not that of the repository that they belong to."""
    answer = repository.git("remote", "get-url", "--", remote, ok=(0, 2, 128))
    return os.fsdecode(answer).rstrip("\n") not in ("", url)


def _expect_answer(repository: Repository, remote: str, nowhere: UpdateRef) -> None:
    """Raise TransferError unless the server says that it does not have an object.

    `prune` does not tell a server that has nothing from one that cannot be reached.
    """
    try:
        fetch(repository, remote, [nowhere], lambda _: None)
    except LfsNotInstalledError:
        raise
    except TransferError as error:
        if nowhere.oid not in error.message:
            raise


def _scratch_repository(
    repository: Repository, git_dir: Path, url: str, scratch: Path, objects: list[UpdateRef]
) -> dict[str, str]:
    """A repository with another's settings and one remote branch, which needs the objects.

    Returns:
        The environment in which Git finds what it does not hold itself.
    """
    try:
        (git_dir / "refs" / "remotes" / _ASKED).mkdir(parents=True)
        (git_dir / "objects").mkdir()
        environment = scratch_objects(repository, git_dir / "objects")
        commit = _pointer_commit(repository, scratch, objects, environment)
        tree = repository.git("mktree", env=environment, stdin=b"").decode().strip()
        empty = repository.git("commit-tree", tree, "-m", "none", env={**environment, **_IDENTITY})
        (git_dir / "HEAD").write_bytes(empty.strip() + b"\n")
        (git_dir / "refs" / "remotes" / _ASKED / "objects").write_text(f"{commit}\n", "ascii")
        config = str(git_dir / "config")
        sha256 = len(commit) == 64
        for name, value in (
            ("core.repositoryformatversion", "1" if sha256 else "0"),
            *([("extensions.objectformat", "sha256")] if sha256 else []),
            ("include.path", str(repository.common_dir / "config")),
            (f"remote.{_ASKED}.url", url),
        ):
            repository.git("config", "--file", config, name, value)
        for item in objects:
            path = scratch / "objects" / item.oid[:2] / item.oid[2:4] / item.oid
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(item.size)
    except OSError as error:
        raise TransferError(f"cannot write to {scratch}: {error.strerror or error}") from error
    return environment


def push(
    repository: Repository,
    remote: str,
    objects: list[UpdateRef],
    advance: Callable[[int], object],
) -> None:
    """Let git-lfs upload objects that are here; it leaves out those that the server has.

    Raises:
        LfsNotInstalledError: there is no git-lfs.
        TransferError: it failed; carries what it said.
    """
    with _scratch(repository.store.root / "lfs") as scratch:
        for item in objects:
            source = repository.store.find(item.oid, item.size)
            if source is not None:
                _link(source, scratch / "objects" / item.oid[:2] / item.oid[2:4] / item.oid)
        status, said = _run(
            repository,
            ["-c", f"lfs.storage={scratch}", "lfs", "push", "--object-id", "--stdin", remote],
            stdin="".join(f"{item.oid}\n" for item in objects).encode(),
            env={GUARD: "1"}, advance=advance,
        )  # fmt: skip
    if status == 0 and _UNPROCESSABLE in said:
        status, said = 1, (
            "the server answered 422 (unprocessable) for at least one object: it refused it, or it"
            " acknowledged the upload and does not have it"
        )  # fmt: skip
    if status != 0:
        raise TransferError(
            f"git lfs push to {remote} failed: {said}",
            hint="nothing is lost: put right what it says, then push again",
        )


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A private folder for one run; those that killed processes left a day ago are removed."""
    scratch = folder / f"run-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        for old in folder.glob("run-*"):
            with suppress(OSError):
                if old.stat().st_mtime < time.time() - _STALE_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
        scratch.mkdir(parents=True)
    except OSError as error:
        raise TransferError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _pointer_commit(
    repository: Repository, scratch: Path, objects: Iterable[UpdateRef], env: dict[str, str]
) -> str:
    """A commit, in the scratch object folder, whose tree holds a pointer file per object."""
    folder = scratch / "pointers"
    folder.mkdir()
    oids = []
    for item in objects:
        (folder / item.oid).write_text(pointer_text(item), "ascii", newline="\n")
        oids.append(item.oid)
    paths = "".join(f"{_quoted(str(folder / oid))}\n" for oid in oids)
    blobs = repository.git(
        "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=os.fsencode(paths), env=env
    )
    lines = "".join(
        f"100644 blob {blob}\t{oid}\n"
        for blob, oid in zip(blobs.decode().split(), oids, strict=True)
    )
    tree = repository.git("mktree", stdin=lines.encode(), env=env).decode().strip()
    commit = repository.git("commit-tree", tree, "-m", "pointers", env={**env, **_IDENTITY})
    return commit.decode().strip()


def pointer_text(item: UpdateRef) -> str:
    """The canonical LFS pointer file of an object (git-lfs, `docs/spec.md`)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{item.oid}\nsize {item.size}\n"


def read_pointer(text: bytes) -> UpdateRef | None:
    """The object that a pointer file names; None for any other file (git-lfs, `docs/spec.md`)."""
    match = _POINTER.fullmatch(text)
    return None if match is None else UpdateRef("lfs", match[1].decode(), int(match[2]))


def _quoted(path: str) -> str:
    """A path as `--stdin-paths` reads it: quoted if it starts with a quote or breaks a line."""
    if not path.startswith('"') and "\n" not in path:
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _link(source: Path, target: Path) -> None:
    """Show an object to git-lfs, which only reads it: a hard link where possible, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise TransferError(f"cannot write {target}: {error.strerror or error}") from error


def _run(
    repository: Repository,
    arguments: list[str],
    *,
    stdin: bytes,
    env: dict[str, str],
    advance: Callable[[int], object],
) -> tuple[int, str]:
    """Run git-lfs, reporting its progress, until it ends or has made none for too long."""
    with tempfile.TemporaryDirectory(prefix="git-theta-", dir=_memory_folder()) as folder:
        watch = _Watch(Path(folder) / "progress", _timeout(repository), advance)
        status, said = run_watched(
            arguments, repository.cwd, stdin=stdin, tick=watch.tick,
            env={**env, "GIT_LFS_PROGRESS": str(watch.path)},
        )  # fmt: skip
        if "is not a git command" in said:
            raise LfsNotInstalledError
        watch.report()
    # git-lfs says the same for each object; and its log goes with the folder that it worked in.
    lines = [
        _SIGNED.sub(r"\1?...", line) + (_BUSY if line.endswith("LFS: Error") else "")
        for line in said.splitlines()
        if line.strip() and not _is_of_log(line)
    ]
    return status, "\n".join(dict.fromkeys(lines)) or f"exit status {status}"


def _is_of_log(line: str) -> bool:
    return line.startswith("Errors logged to ") or "git lfs logs last" in line


def _memory_folder() -> str | None:
    """A folder that is no disk, where there is one; None for the usual one.

    git-lfs flushes its progress file to disk after every line: of 0.5 s for 300 objects that made
    1.4 s.
    """
    folder = "/dev/shm"
    return folder if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK) else None


def _timeout(repository: Repository) -> float:
    value = repository.setting("theta.transferTimeout", str(_TIMEOUT_SECONDS))
    try:
        return float(value or 0)
    except ValueError as error:
        raise UsageError(
            f"git config theta.transferTimeout is {value!r}, not a number of seconds"
        ) from error


class _Watch:
    """Reads the progress file of git-lfs: lines of `direction n/total bytes/total name`."""

    def __init__(self, path: Path, timeout: float, advance: Callable[[int], object]) -> None:
        self.path = path
        self._timeout = timeout
        self._advance = advance
        self._offset = 0
        self._done: dict[bytes, int] = {}
        self._last = time.monotonic()

    def tick(self) -> None:
        """Report progress.

        Raises:
            TransferError: there was none for as long as `theta.transferTimeout` allows.
        """
        now = time.monotonic()
        if self.report():
            self._last = now
        elif self._timeout and now - self._last > self._timeout:
            raise TransferError(
                f"git-lfs made no progress for {self._timeout:g} seconds and was stopped",
                hint="does it wait for a password? try: git lfs fetch   (to wait longer: git config"
                " theta.transferTimeout SECONDS, 0 for ever)",
            )

    def report(self) -> bool:
        """Pass on what was done since the last call; whether there was anything new."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return False
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            fields = line.split(b" ", 3)
            done = fields[2].partition(b"/")[0] if len(fields) == 4 else b""
            if done.isdigit():
                self._advance(int(done) - self._done.get(fields[3], 0))
                self._done[fields[3]] = int(done)
        return bool(whole)
