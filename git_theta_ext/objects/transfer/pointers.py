"""A ref of LFS pointer files, so that hosts and tools which look for those keep our objects.

`git lfs prune`, `git lfs fetch --all`, mirrors, and the housekeeping of Gitea and GitLab know an
object by a *pointer file* in some commit, and a manifest is none. Each push therefore adds, for
every object that it sends, the canonical pointer file to the tree of `refs/theta/pointers` at the
remote. Concurrent pushes are united as git-annex unites its branch: the tree is a set of files
whose names say their content, so the union is always right.

The ref is a courtesy to hosts: a server that refuses it does not stop a push, and nothing of ours
ever reads objects by way of it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.transfer.lfs import GUARD
from git_theta_ext.objects.transfer.pointer_files import commands, pointer_path, pointer_text

REF = "refs/theta/pointers"
REFS = (REF, f"{REF}-mirrored", f"{REF}-mirrored-again")
"""What a push does to a ref is settled before its hook runs, and fails if the hook moves that ref.
So a push that moves or deletes the first by itself, as `git push --mirror` does, has the pointers
published under the next one. With three of them, one is always free."""
SETTING = "theta.pointerRef"
_ATTEMPTS = 5
_TREE_BYTES = 64 << 20
"""Of the folders of pointers that are read: half a million files."""
_REFUSED_SECONDS = 24 * 3600
"""For how long a server that refused the ref is not asked again."""

_RACES = (
    "fetch first",
    "non-fast-forward",
    "stale info",
    "cannot lock ref",
    "failed to update ref",
)
_MESSAGE = b"Name the objects of checkpoints\n"
_README = b"""Kept by git-theta, so that hosts do not take the objects of checkpoints for garbage.

Each file is the Git LFS pointer of one object. To do without: git config theta.pointerRef false
"""


def publish(
    repository: Repository,
    url: str,
    objects: Iterable[UpdateRef],
    all_sent: Callable[[], Iterable[UpdateRef]],
    moved: Collection[str] = (),
) -> str | None:
    """Add the pointer files of these objects to the remote's ref.

    Args:
        repository: where the objects are.
        url: the repository that the refs are pushed to.
        objects: what the remote's LFS server has been sent now.
        all_sent: everything that it was ever sent; asked for where the remote has no such ref, as
            after a `git push --mirror` from a clone that has none.
        moved: names of refs that the push under way changes at the remote itself.

    Returns:
        A warning if the server refused the ref for the first time, else None.
    """
    refusal = _refusal_file(repository, url)
    if not repository.flag(SETTING, True) or _is_recent(refusal):
        return None
    wanted = {pointer_path(item): item for item in objects}
    ref = next((name for name in REFS if name not in moved), None)
    if ref is None:
        return None
    if any(name in moved for name in REFS):
        wanted = {pointer_path(item): item for item in all_sent()} | wanted
    problem = ""
    for _ in range(_ATTEMPTS):
        try:
            _publish_once(repository, url, ref, wanted, all_sent)
        except RepositoryError as error:
            problem = error.message
            if not any(race in problem for race in _RACES):
                break
        else:
            refusal.unlink(missing_ok=True)
            return None
    first_time = not refusal.exists()
    with suppress(OSError):
        refusal.parent.mkdir(parents=True, exist_ok=True)
        files.replace_file(refusal, b"")
    if not first_time:
        return None
    return (
        f"{url} did not take {REF}: {problem}\nEverything was uploaded. But if the host deletes "
        "LFS objects that no pointer file names, it may delete these.\nTo silence this: git config "
        f"{SETTING} false"
    )


def _publish_once(
    repository: Repository,
    url: str,
    ref: str,
    wanted: dict[str, UpdateRef],
    all_sent: Callable[[], Iterable[UpdateRef]],
) -> None:
    """Have the remote's ref name all of them.

    Raises:
        RepositoryError: it was refused, or somebody else pushed at the same time.
    """
    tip = _remote_tip(repository, url, ref)
    known = f"refs/theta/known/{_digest(url)[:16]}"
    if tip is None:
        wanted = {pointer_path(item): item for item in all_sent()} | wanted
    elif repository.resolve(f"{tip}^{{commit}}") is None:
        repository.git(
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--",
            url,
            f"+{ref}:{known}",
        )
    there = _paths(repository, tip, wanted)
    lacking = [item for path, item in wanted.items() if path not in there]
    if lacking:
        tip = _commit(repository, tip, lacking)
        # Not the hooks, which would call this again.
        repository.git(
            "push", "--quiet", "--no-verify", "--no-follow-tags", "--recurse-submodules=no",
            "--", url, f"{tip}:{ref}", env={GUARD: "1"},
        )  # fmt: skip
    if tip is not None:
        # So that the next fetch need not bring all of it again.
        repository.git("update-ref", known, tip)


def _remote_tip(repository: Repository, url: str, ref: str) -> str | None:
    answer = repository.git("ls-remote", "--", url, ref).splitlines()
    tips = [line.split()[0].decode() for line in answer if line.split()[1:] == [ref.encode()]]
    return tips[0] if tips else None


def _paths(repository: Repository, commit: str | None, wanted: Iterable[str]) -> set[str]:
    """The files of those folders that the wanted paths lie in.

    The tree is a server's. Listed as a whole, one that holds itself over and over in a few hundred
    bytes would have no end; so only these folders are read, and only so far as they are ours.

    Raises:
        RepositoryError: they are longer than this clone's share of pointers can make them.
    """
    if commit is None:
        return set()
    folders = sorted({path.partition("/")[0] for path in wanted})
    request = "".join(f"{commit}:{folder}\n" for folder in folders).encode()
    described = repository.git("cat-file", "--batch-check", stdin=request).split(b"\n")
    trees: dict[str, str] = {}
    room = _TREE_BYTES
    for folder, line in zip(folders, described, strict=False):
        fields = line.split()
        if len(fields) == 3 and fields[1] == b"tree":
            trees[folder] = fields[0].decode()
            room -= int(fields[2])
    if room < 0:
        raise RepositoryError("it holds more than pointers of objects: its folders are too long")
    if not trees:
        return set()
    # All of them from one process: there may be 256.
    request = "".join(f"{tree}\n" for tree in trees.values()).encode()
    answer = repository.git("cat-file", "--batch", stdin=request)
    found: set[str] = set()
    at = 0
    for folder in trees:
        start = answer.index(b"\n", at) + 1
        end = start + int(answer[at:start].rpartition(b" ")[2])
        names = _names(answer[start:end], len(commit) // 2)
        found.update(f"{folder}/{name}" for name in names)
        at = end + 1
    return found


def _names(tree: bytes, id_bytes: int) -> Iterator[str]:
    """The names in a tree as Git stores it: mode, blank, name, NUL, id, and so on."""
    at = 0
    while (end := tree.find(b"\0", at)) >= 0:
        yield tree[at:end].partition(b" ")[2].decode("utf-8", "replace")
        at = end + 1 + id_bytes


def _commit(repository: Repository, parent: str | None, items: Iterable[UpdateRef]) -> str:
    """A commit whose tree holds its parent's files and the pointer files of `items`."""
    scratch = f"refs/theta/scratch-{secrets.token_hex(8)}"
    contents = {"README": _README}
    contents |= {pointer_path(item): pointer_text(item).encode("ascii") for item in items}
    stream = commands(scratch, _MESSAGE, contents, parent)
    try:
        repository.git("fast-import", "--quiet", "--date-format=raw", stdin=stream)
        commit = repository.resolve(scratch)
    finally:
        with suppress(RepositoryError):
            repository.git("update-ref", "-d", scratch)
    if commit is None:
        raise RepositoryError("git fast-import made no commit")
    return commit


def _refusal_file(repository: Repository, url: str) -> Path:
    return repository.common_dir / "theta" / "confirmed" / f"{_digest(url)}.no-pointers"


def _digest(url: str) -> str:
    return sha256(url.encode("utf-8", "surrogateescape")).hexdigest()


def _is_recent(path: Path) -> bool:
    try:
        return path.stat().st_mtime > time.time() - _REFUSED_SECONDS
    except OSError:
        return False
