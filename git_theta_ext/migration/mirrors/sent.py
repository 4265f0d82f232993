"""A mirror at a remote: the branch with its files of git-lfs, brought up to date there.

`theta.mirror` has `SOURCE:TARGET` for each branch that a push brings along. A mirror is for
others: what becomes of it never stops the push of the branch itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from git_theta_ext.core.errors import MissingObjectError, UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository, any_commit_here
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.migration.lfs_files import LfsFiles
from git_theta_ext.migration.mirrors.kept import Ends, Mirrored, bring_up, ends
from git_theta_ext.objects.store.store import Store
from git_theta_ext.objects.transfer import endpoints, folders, lfs
from git_theta_ext.objects.transfer.lfs import GUARD
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer

SETTING = "theta.mirror"
_BRANCHES = "refs/heads/"

Uploading = Callable[[int, int], AbstractContextManager[Callable[[int], object]]]
"""Given the number of files and their bytes: what is told of the bytes sent since the last call."""


@contextmanager
def _silently(_count: int, _size: int) -> Iterator[Callable[[int], object]]:
    yield lambda _: None


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it: the mirror here, the files sent, and a remark on where they are."""

    mirrored: Mirrored
    files: int
    pushed: bool
    """Whether the remote's branch moved."""
    remark: str | None = None


def configured(repository: Repository) -> list[tuple[str, str]]:
    """The branches that have a mirror, and their mirrors, by short names.

    Raises:
        UsageError: a value of `theta.mirror` is not of the form.
    """
    if repository.setting(SETTING) is None:
        return []
    found = []
    for value in lines_of(repository.git("config", "--get-all", SETTING, ok=(0, 1))):
        source, _, target = (part.removeprefix(_BRANCHES) for part in value.partition(":"))
        if not source or not target:
            raise UsageError(
                f"{SETTING} is {printable(value)!r}, not of the form SOURCE:TARGET",
                hint=f"git config {SETTING} main:main-lfs",
            )
        found.append((source, target))
    return found


def send(
    repository: Repository,
    remote: str,
    url: str,
    source: str,
    target: str,
    *,
    force: bool = False,
    progress: Uploading = _silently,
) -> Sent:
    """Bring a mirror up to date here and at a remote, whose own commits of it count.

    Args:
        repository: has the source.
        remote: the remote's name or URL.
        url: where Git pushes to.
        source: a revision.
        target: the mirror's name, here and there.
        force: drop commits of the target that are none of the source.
        progress: shows how far the files are.

    Raises:
        UsageError: as for `kept.bring_up`.
        TransferError: the files were not taken.
        RepositoryError: the remote does not answer, or refuses the branch.
    """
    found = ends(repository, source, target)
    there = _adopted(repository, url, found, force=force)
    try:
        mirrored = bring_up(repository, source, target, force=force)
    except UsageError:  # what the remote has is no mirror, and none of ours
        _put_back(repository, found)
        raise
    if mirrored.tip is None or mirrored.tip == there:
        return Sent(mirrored, 0, pushed=False)
    excluded = [] if there is None or not any_commit_here(repository, [there]) else [there]
    items = _files_of(repository, mirrored.tip, excluded)
    remark = _send_files(repository, remote, url, items, progress)
    lease = f"--force-with-lease={mirrored.ref}:{there or ''}"
    # Not the hooks: what they would see to is done.
    repository.git(
        "push", "--quiet", "--no-verify", "--no-follow-tags", "--recurse-submodules=no",
        *([lease] if force else []), "--", url, f"{mirrored.ref}:{mirrored.ref}",
        env={GUARD: "1"},
    )  # fmt: skip
    return Sent(mirrored, len(items), pushed=True, remark=remark)


def _put_back(repository: Repository, found: Ends) -> None:
    """Have the target name again what it named before a remote's commits were looked at."""
    now = repository.resolve(found.ref)
    if now is None or now == found.target:
        return
    what = ["-d", found.ref] if found.target is None else [found.ref, found.target]
    repository.git("update-ref", "-m", "git theta mirror: back", *what, now)


def _adopted(repository: Repository, url: str, found: Ends, *, force: bool) -> str | None:
    """The remote's tip of the mirror; the branch here follows it where it only lags behind.

    Raises:
        UsageError: both have commits that the other lacks.
    """
    ref, target = found.ref, found.ref.removeprefix(_BRANCHES)
    answer = repository.git("ls-remote", "--", url, ref).decode("utf-8", "surrogateescape")
    there = next((line.split("\t")[0] for line in answer.split("\n") if line), None)
    here = repository.resolve(f"{ref}^{{commit}}")
    if there is None or there == here:
        return there
    if not any_commit_here(repository, [there]):
        repository.git(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", url, there,
            env={GUARD: "1"},
        )  # fmt: skip
    if here is None or _has(repository, there, here):
        repository.git("update-ref", "-m", "git theta mirror: from the remote", ref, there)
    elif not force and not _has(repository, here, there):
        raise UsageError(
            f"{printable(target)} has other commits here than at the remote; neither was moved",
            hint="to keep those at the remote, type: "
            f"git branch -D {printable(target)}   (to drop them: --force)",
        )
    return there


def _has(repository: Repository, commit: str, older: str) -> bool:
    """Whether a commit has another one among those before it."""
    left = repository.git("rev-list", "--max-count=1", older, f"^{commit}")
    return not left.strip()


def _files_of(repository: Repository, tip: str, excluded: Sequence[str]) -> list[UpdateRef]:
    """The objects of git-lfs that commits name in pointers, each once."""
    answer = repository.git(
        "rev-list", "--objects", "--no-object-names", tip, *(f"^{one}" for one in excluded)
    )
    blobs = repository.small_blobs(answer.decode("ascii").split(), b"version ", POINTER_BYTES)
    found = (read_pointer(text) for _, text in blobs)
    return list({item.oid: item for item in found if item is not None}.values())


def _send_files(
    repository: Repository,
    remote: str,
    url: str,
    items: Sequence[UpdateRef],
    progress: Uploading,
) -> str | None:
    """Have the remote's server keep files of git-lfs; a remark on where a folder has them.

    Raises:
        MissingObjectError: a file is not here; nothing was sent.
        TransferError: the server did not take them.
    """
    if not items:
        return None
    kept = LfsFiles(repository)
    kept.fetch(items)
    _require_all(items, kept)
    endpoint = endpoints.for_push(repository, remote, url)
    with progress(len(items), sum(item.size for item in items)) as advance:
        if endpoint.folder is not None:
            return folders.fill(repository, endpoint, list(items), kept.find, advance)
        store = Store(kept.folder)
        for item in items:
            store.verify(item.oid, item.size)
        lfs.push(repository, endpoint, list(items), kept.find, advance)
    return None


def _require_all(items: Iterable[UpdateRef], kept: LfsFiles) -> None:
    lacking = [item for item in items if kept.find(item) is None]
    if lacking:
        raise MissingObjectError(
            f"{plural(len(lacking), 'file')} of git-lfs, such as sha256:{lacking[0].oid}"
            f" ({lacking[0].size} bytes), {'is' if len(lacking) == 1 else 'are'} not here",
            hint="where they are, type: git lfs push --all REMOTE   then here: git lfs fetch --all",
        )
