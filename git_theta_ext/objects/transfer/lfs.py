"""git-lfs as a carrier: objects to and from every endpoint that is not a folder.

git-lfs works in a folder of its own below the store (`lfs.storage` is overridden), so that
`git lfs prune` and other runs of git-lfs do not meet its files, and an interrupted download can
go on where it stopped. It is asked for one batch, and believed in nothing: callers check every
object after a fetch and before a push.

It never sees a `.lfsconfig` of a branch: it runs with a work tree of ours, whose `.lfsconfig` names
the endpoint that was decided on, if that is not in git config. A server that the user has not
chosen is asked from a repository that knows no credentials.
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

from git_theta_ext.core import files
from git_theta_ext.core.errors import TransferError, UsageError
from git_theta_ext.git.process import run_watched
from git_theta_ext.git.repository import Repository, scratch_objects
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store.verified import only_ours
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import lfsconfig
from git_theta_ext.objects.transfer.endpoints import Endpoint
from git_theta_ext.objects.transfer.lfs_watch import Watch
from git_theta_ext.objects.transfer.pointer_files import object_format, scratch_commit

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
    endpoint: Endpoint,
    objects: list[UpdateRef],
    advance: Callable[[int], object],
) -> Path:
    """Let git-lfs download objects; the folder below which it put `objects/aa/bb/<oid>`.

    Some may be absent or damaged there even if nothing is raised, so check each of them.

    Args:
        repository: where git-lfs is run.
        endpoint: the server; its remote's name is what git-lfs gets.
        objects: what to download, with sizes in bytes.
        advance: called with the bytes that came since the last call.

    Raises:
        LfsNotInstalledError: there is no git-lfs.
        TransferError: it failed and brought nothing; carries what it said.
    """
    folder = store_of(repository).root / "lfs"
    with _scratch(repository) as scratch:
        environment = scratch_objects(repository, scratch / "git")
        commit = scratch_commit(repository, scratch / "pointers", objects, environment)
        remote = endpoint.remote
        if endpoint.anonymous:
            remote = _ASKED
            environment |= _nobody(repository, scratch, endpoint, sha256=len(commit) == 64)
        else:
            environment |= _own_work_tree(repository, scratch, endpoint)
        try:
            status, said, _ = _run(
                repository,
                # Settings that would have git-lfs fetch less or more than the commit names and
                # still report success.
                ["-c", "lfs.fetchinclude=", "-c", "lfs.fetchexclude=",
                 "-c", "lfs.fetchrecentalways=false", "-c", f"lfs.storage={folder}",
                 "lfs", "fetch", "--", remote, commit],
                stdin=b"", env={**environment, GUARD: "1"}, advance=advance, objects=objects,
            )  # fmt: skip
        finally:
            _drop_overlong(folder, objects)
    found = any((folder / "objects" / o.oid[:2] / o.oid[2:4] / o.oid).exists() for o in objects)
    if status != 0 and not found:
        raise TransferError(f"git lfs fetch failed: {said}")
    return folder


def _drop_overlong(folder: Path, objects: Iterable[UpdateRef]) -> None:
    """Remove what git-lfs keeps of downloads in order to go on with them, if it is too much."""
    sizes = {item.oid: item.size for item in objects}
    with suppress(OSError):
        for partial in (folder / "incomplete").iterdir():
            size = sizes.get(partial.name[:64])
            if size is not None and partial.stat().st_size > size:
                partial.unlink()


def _own_work_tree(
    repository: Repository, scratch: Path, endpoint: Endpoint | None
) -> dict[str, str]:
    """The environment in which git-lfs reads our `.lfsconfig` instead of a branch's.

    git-lfs takes the file from the work tree before it looks into the index or HEAD, so there has
    to be one. It names the endpoint that was decided on where git config does not.
    """
    tree = scratch / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    settings = [("lfs.allowincompletepush", "false")]
    if endpoint is not None and endpoint.named is not None:
        settings += [("lfs.url", endpoint.url), ("lfs.pushurl", endpoint.url)]
    for name, value in settings:
        repository.git("config", "--file", str(tree / lfsconfig.NAME), "--", name, value)
    return {"GIT_DIR": str(repository.git_dir), "GIT_WORK_TREE": str(tree)}


_HARMLESS = (
    "http.proxy", "http.sslCAInfo", "http.sslCAPath", "http.sslVerify", "lfs.transfer.maxretries",
    "lfs.dialtimeout", "lfs.tlstimeout", "lfs.activitytimeout", "lfs.concurrenttransfers",
)  # fmt: skip
"""Settings that a server must be reached with and that tell it nothing."""


def _nobody(
    repository: Repository, scratch: Path, endpoint: Endpoint, *, sha256: bool
) -> dict[str, str]:
    """The environment of a repository of nobody's: no helper, header, key, cookie or terminal.

    Of the user's settings only those count that a server cannot be reached without.
    """
    git_dir = scratch / "nobody"
    (git_dir / "refs").mkdir(parents=True)
    (git_dir / "objects").mkdir()
    files.replace_file(git_dir / "HEAD", b"ref: refs/heads/none\n")
    settings = [
        *object_format(sha256=sha256),
        *((name, value) for name in _HARMLESS if (value := repository.setting(name)) is not None),
        ("lfs.url", endpoint.url),
        (f"remote.{_ASKED}.url", endpoint.url),
    ]
    for name, value in settings:
        repository.git("config", "--file", str(git_dir / "config"), "--", name, value)
    nowhere = str(scratch / "nobody")
    return {
        **_own_work_tree(repository, scratch, None),
        "GIT_DIR": str(git_dir), "GIT_COMMON_DIR": str(git_dir),
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_PARAMETERS": "", "GIT_CONFIG_COUNT": "0",
        # Where git-lfs looks for .netrc and cookies, and an older Git for its settings.
        "HOME": nowhere, "USERPROFILE": nowhere, "XDG_CONFIG_HOME": nowhere,
        "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "",
    }  # fmt: skip


def ask(repository: Repository, endpoint: Endpoint, objects: list[UpdateRef]) -> set[str]:
    """The ids of those objects that a server offers for download; none is downloaded.

    Of all of git-lfs's commands only `prune --verify-remote` asks without transferring. So it is
    run, dry, in a scratch repository with this one's settings, whose store holds files of these
    names and sizes (with holes for bytes) and whose one remote branch needs them. Among them are
    objects of names made up by chance and of sizes as the others have, which nobody can tell from
    these: a server that says that it has one of them is not believed in anything.

    Raises:
        LfsNotInstalledError: there is no git-lfs.
        TransferError: the server did not answer, or says of everything that it has it.
    """
    decoys = _decoys(objects)
    with _scratch(repository) as scratch:
        git_dir = scratch / "git"
        environment = _scratch_repository(
            repository, git_dir, endpoint.url, scratch, [*objects, *decoys]
        )
        environment |= _own_work_tree(repository, scratch, None)
        setting = "lfs.url" if endpoint.setting else f"remote.{_ASKED}.url"
        status, said, _ = _run(
            repository,
            ["-c", f"lfs.storage={scratch}", "-c", f"{setting}={endpoint.url}",
             "-c", f"lfs.pruneremotetocheck={_ASKED}",
             "lfs", "prune", "--dry-run", "--verify-remote", "--verbose"],
            stdin=b"", advance=lambda _: None,
            env={**environment, GUARD: "1", "GIT_DIR": str(git_dir),
                 "GIT_COMMON_DIR": str(git_dir)},
        )  # fmt: skip
    lacking = set(re.findall(r"\b[0-9a-f]{64}\b", said))
    made_up = {item.oid for item in decoys}
    if status == 0 or not made_up & lacking:
        raise TransferError(
            f"{endpoint.remote} ({endpoint}) could not be asked what it has, or says that it has"
            f" objects that do not exist: {said}"
        )
    if not made_up <= lacking:
        raise TransferError(
            f"{endpoint.remote} ({endpoint}) says that it has objects that do not exist:"
            " its answers are not trusted"
        )
    found = {item.oid for item in objects} - lacking
    if not found:
        _expect_answer(repository, endpoint, decoys[0])
    return found


_ASKED = "theta-asked"
"""The name of the remote in the scratch repository."""

_PER_DECOY = 50
"""git-lfs asks for a hundred objects at a time."""


def _decoys(objects: list[UpdateRef]) -> list[UpdateRef]:
    """Objects that nobody has: made-up names, with the sizes of some of these."""
    count = 2 + len(objects) // _PER_DECOY
    return [
        UpdateRef("dense", secrets.token_hex(32), secrets.choice(objects).size)
        for _ in range(count)
    ]


def _expect_answer(repository: Repository, endpoint: Endpoint, nowhere: UpdateRef) -> None:
    """Raise TransferError unless the server says that it does not have an object.

    `prune` does not tell a server that has nothing from one that cannot be reached.
    """
    try:
        fetch(repository, endpoint, [nowhere], lambda _: None)
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
        commit = scratch_commit(repository, scratch / "pointers", objects, environment)
        tree = repository.git("mktree", env=environment, stdin=b"").decode().strip()
        empty = repository.git("commit-tree", tree, "-m", "none", env={**environment, **_IDENTITY})
        files.replace_file(git_dir / "HEAD", empty.strip() + b"\n")
        asked = git_dir / "refs" / "remotes" / _ASKED / "objects"
        files.replace_file(asked, f"{commit}\n".encode("ascii"))
        config = str(git_dir / "config")
        for name, value in (
            *object_format(sha256=len(commit) == 64),
            ("include.path", str(repository.common_dir / "config")),
            (f"remote.{_ASKED}.url", url),
        ):
            repository.git("config", "--file", config, "--", name, value)
        for item in objects:
            path = scratch / "objects" / item.oid[:2] / item.oid[2:4] / item.oid
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.new_file(path) as file:
                file.truncate(item.size)
    except OSError as error:
        raise TransferError(f"cannot write to {scratch}: {error.strerror or error}") from error
    return environment


def push(
    repository: Repository,
    endpoint: Endpoint,
    objects: list[UpdateRef],
    find: Callable[[UpdateRef], Path | None],
    advance: Callable[[int], object],
) -> list[UpdateRef]:
    """Let git-lfs upload objects that are here; it leaves out those that the server has.

    The server's word for that is believed only where it does not say the same of objects that
    nobody has, and offers for download what it says that it has.

    Args:
        repository: where git-lfs is run.
        endpoint: the server; its remote's name is what git-lfs gets.
        objects: what to upload, with sizes in bytes.
        find: where an object is here, if it is.
        advance: called with the bytes that went since the last call.

    Returns:
        The objects that were not sent, for the server says that it has them.

    Raises:
        LfsNotInstalledError: there is no git-lfs.
        TransferError: it failed; carries what it said.
    """
    with _scratch(repository) as scratch:
        for item in objects:
            source = find(item)
            if source is not None:
                _link(source, scratch / "objects" / item.oid[:2] / item.oid[2:4] / item.oid)
        status, said, moved = _run(
            repository,
            ["-c", f"lfs.storage={scratch}", "lfs", "push", "--object-id", "--stdin", "--",
             endpoint.remote],
            stdin="".join(f"{item.oid}\n" for item in objects).encode(),
            env={**_own_work_tree(repository, scratch, endpoint), GUARD: "1"}, advance=advance,
            objects=objects,
        )  # fmt: skip
    if status == 0 and _UNPROCESSABLE in said:
        status, said = 1, (
            "the server answered 422 (unprocessable) for at least one object: it refused it, or it"
            " acknowledged the upload and does not have it"
        )  # fmt: skip
    if status != 0:
        raise TransferError(
            f"git lfs push to {endpoint.remote} failed: {said}",
            hint="nothing is lost: correct what it reports, then push again",
        )
    claimed = [item for item in objects if item.size and item.oid not in moved]
    # (An agent of the user's own need not tell of its progress, and asks nobody.)
    if claimed and not repository.setting("lfs.standalonetransferagent"):
        _doubt(repository, endpoint, claimed)
    return claimed


def _doubt(repository: Repository, endpoint: Endpoint, claimed: list[UpdateRef]) -> None:
    """Raise TransferError where a server that took no bytes of some objects lacks them."""
    there = ask(repository, endpoint, claimed)
    lacking = [item for item in claimed if item.oid not in there]
    if lacking:
        raise TransferError(
            f"{endpoint.remote} ({endpoint}) says that it has object {lacking[0].oid}, but does"
            f" not offer it for download ({len(lacking):,} such objects)",
            hint="nothing is lost here: tell the people who run the server",
        )


@contextmanager
def _scratch(repository: Repository) -> Iterator[Path]:
    """A private folder for one run; those that killed processes left a day ago are removed.

    It lies in the store, so that objects can be linked, but never in one that others write to:
    whoever put another folder in its place could have git-lfs run commands, by its settings.
    """
    folder = store_of(repository).root / "lfs"
    if not all(only_ours(one.lstat()) for one in (folder.parent, folder) if os.path.lexists(one)):
        folder = repository.common_dir / "theta" / "lfs"
    scratch = folder / f"run-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        for old in folder.glob("run-*"):
            with suppress(OSError):
                if old.stat().st_mtime < time.time() - _STALE_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(mode=0o700)
    except OSError as error:
        raise TransferError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Show an object to git-lfs, which only reads it: a hard link where possible, else a copy."""
    try:
        os.makedirs(target.parent, exist_ok=True)
        files.link_or_copy(source, target)
    except OSError as error:
        raise TransferError(f"cannot write {target}: {error.strerror or error}") from error


def _run(
    repository: Repository,
    arguments: list[str],
    *,
    stdin: bytes,
    env: dict[str, str],
    advance: Callable[[int], object],
    objects: Iterable[UpdateRef] = (),
) -> tuple[int, str, set[str]]:
    """Run git-lfs, reporting its progress, until it ends, has made none for too long, or too much.

    Returns:
        Its status, what it said, and the ids of the objects that something moved of.
    """
    sizes = {item.oid: item.size for item in objects}
    with tempfile.TemporaryDirectory(prefix="git-theta-", dir=_memory_folder()) as folder:
        watch = Watch(Path(folder) / "progress", _timeout(repository), advance, sizes)
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
    return status, "\n".join(dict.fromkeys(lines)) or f"exit status {status}", watch.moved


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
