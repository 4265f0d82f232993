"""Which objects of the local store may go: those that nothing needs, or that the remote has.

An object is *kept* if something at hand names it: the index or HEAD of any work tree, a merge
under way, a stash, or a commit of the last days. Any other object that a ref or a reflog needs may
go once the remote has said, now, that it has it. An object that nothing names goes when it is old.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext import checkpoints, endpoints, integrity, transport
from git_theta_ext.errors import ManifestError, UsageError
from git_theta_ext.manifest import Manifest, UpdateRef
from git_theta_ext.repository import Repository

_DAY_SECONDS = 24 * 3600
_GRACE_SECONDS = 3600
"""What nothing names may be about to be named: Git writes its index after the filter has ended."""
_PER_WORK_TREE = ("HEAD", "ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD",
                  "REBASE_HEAD", "MERGE_AUTOSTASH")  # fmt: skip
_UNDER_WAY = ("rebase-merge", "rebase-apply")
"""Folders of a rebase under way, whose `autostash` no ref names."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What pruning would do.

    Attributes:
        at_remote: needed by some history, and the remote has them: they may go.
        unneeded: named by nothing, and old enough to go; ids only.
        kept: needed by what is at hand.
        not_at_remote: needed by some history, and not at the remote: they stay.
        young: named by nothing, and too young to go.
    """

    at_remote: list[UpdateRef]
    unneeded: list[str]
    kept: int
    not_at_remote: list[UpdateRef]
    young: int


def plan(repository: Repository, remote: str | None, keep_days: float) -> Plan:
    """Look at every local object, and ask the remote about those that only history needs.

    Args:
        repository: any, bare ones too, with a store that is its own.
        remote: the name of the remote; None if there is none, and then history keeps its objects.
        keep_days: commits younger than this keep their objects, and so does what nothing names.

    Raises:
        UsageError: other repositories may use this store too.
        ManifestError: a manifest that something names cannot be read.
        TransferError: the remote cannot be asked.
    """
    _refuse_shared(repository)
    store = repository.store
    local = set(store.oids())
    kept = _objects(repository, _at_hand(repository, keep_days))
    # Strictly: what a damaged manifest needs is not known, so nothing can be said to be unneeded.
    needed = _strictly(integrity.reachable_manifests(repository))
    history = [ref for oid, ref in needed.items() if oid in local and oid not in kept]
    lacking = history
    if remote is not None and history:
        url = endpoints.remote_url(repository, remote, push=True)
        lacking = transport.absent(repository, remote, url, history)
    gone = {ref.oid for ref in lacking}
    loose = sorted(local - kept.keys() - needed.keys())
    age = max(keep_days * _DAY_SECONDS, _GRACE_SECONDS)
    old = [oid for oid in loose if _age(store.path(oid)) > age]
    return Plan(
        at_remote=[ref for ref in history if ref.oid not in gone],
        unneeded=old,
        kept=len(local & kept.keys()),
        not_at_remote=lacking,
        young=len(loose) - len(old),
    )


def carry_out(repository: Repository, found: Plan) -> tuple[int, int]:
    """Remove what a plan names; number and bytes. The caller holds the store's lock since before.

    Raises:
        StoreError: the store cannot be written.
    """
    removed = size = 0
    for oid in [*(ref.oid for ref in found.at_remote), *found.unneeded]:
        length = repository.store.remove(oid)
        removed += length > 0
        size += length
    return removed, size


def _refuse_shared(repository: Repository) -> None:
    if repository.setting("theta.storage"):
        raise UsageError(
            "theta.storage is set: other repositories may need what this one does not",
            hint="nothing was removed; delete that folder by hand once no repository uses it",
        )


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


# -- what is named ---------------------------------------------------------------------------------


def _at_hand(repository: Repository, keep_days: float) -> list[str]:
    """Trees and commits whose objects stay, whatever the remote has."""
    names = _heads(repository)
    if keep_days > 0:
        since = f"--since={int(time.time() - keep_days * _DAY_SECONDS)}"
        names += repository.git("rev-list", "--all", "--reflog", since).decode().split()
    if repository.resolve("refs/stash"):
        stashes = repository.git("log", "-g", "--format=%H %P", "refs/stash").decode().split()
        names += stashes
    return [f"{name}^{{tree}}" for name in dict.fromkeys(names)]


def _heads(repository: Repository) -> list[str]:
    """HEAD, and the other heads of what is under way, of every work tree."""
    folders = [repository.common_dir, *(repository.common_dir / "worktrees").glob("*")]
    found = []
    for folder in folders:
        prefix = "main-worktree" if folder == repository.common_dir else f"worktrees/{folder.name}"
        for name in _PER_WORK_TREE:
            if (folder / name).exists() and (oid := repository.resolve(f"{prefix}/{name}")):
                found.append(oid)
        for name in _UNDER_WAY:
            stash = folder / name / "autostash"
            if stash.exists() and (oid := repository.resolve(stash.read_text("ascii").strip())):
                parents = repository.git("rev-parse", f"{oid}^@").decode().split()
                found += [oid, *parents]
    return found


def _objects(repository: Repository, trees: list[str]) -> dict[str, UpdateRef]:
    """The objects that trees, and the indexes of all work trees, name."""
    answer = repository.git(
        "rev-list", "--objects", "--no-object-names", "--ignore-missing", "--missing=print",
        "--indexed-objects", "--stdin", stdin="".join(f"{tree}\n" for tree in trees).encode(),
    )  # fmt: skip
    oids = [line for line in answer.decode().split() if not line.startswith("?")]
    return _strictly(checkpoints.manifests(repository, oids))


def _strictly(found: Iterable[tuple[str, Manifest | ManifestError]]) -> dict[str, UpdateRef]:
    objects: dict[str, UpdateRef] = {}
    for blob, manifest in found:
        if isinstance(manifest, ManifestError):
            raise ManifestError(
                f"manifest {blob} is damaged, so nothing can be pruned: {manifest.message}",
                hint="git theta fsck",
            )
        objects.update((ref.oid, ref) for ref in manifest.objects())
    return objects
