"""What may leave the local store: objects that nothing names, and objects that a remote has.

An object is *kept* if the index or HEAD of any work tree, a stash, a merge under way or a commit of
the last days needs it. It is kept, too, if an *unpushed* commit needs it, whatever a server says:
one that no remote-tracking branch of the remote reaches. It is *needed* if anything else does: a
ref, a reflog. What is needed leaves only if a remote has it now. What nothing names is garbage, and
leaves once it is old enough that no command can be about to name it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Manifest, Place, UpdateRef
from git_theta_ext.objects.dead import dead_bytes
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.store.store import YOUNG_SECONDS
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import presence
from git_theta_ext.objects.transfer.endpoints import Confirmed, Endpoint

_DAY = 24 * 3600
_LOCK_SECONDS = 10.0
_ID = re.compile(r"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")
_STATES = (
    "*_HEAD", "AUTO_MERGE", "rebase-merge/*", "rebase-apply/*", "sequencer/*", "BISECT_*",
    "MERGE_RR", "rr-cache/*/*",
)  # fmt: skip
"""Files of an operation under way that may name commits, trees or blobs."""

_STATE_BYTES = 1 << 20


@dataclass(slots=True)
class Plan:
    """What a prune removes and what it leaves, by object id; sizes in bytes.

    `confirmed` are needed and at the remote; `garbage` nothing names; `lacking` are needed, and the
    remote does not have them; `unpushed` are needed by commits that were never pushed there; `kept`
    and `young` stay anyway. `dead` are bytes in packs that are kept, of which nothing kept is made.
    """

    confirmed: dict[str, int] = field(default_factory=dict)
    garbage: dict[str, int] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    unpushed: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    young: dict[str, int] = field(default_factory=dict)
    dead: int = 0

    @property
    def removable(self) -> dict[str, int]:
        """What may be removed."""
        return {**self.confirmed, **self.garbage}


@dataclass(frozen=True, slots=True)
class Rules:
    """How careful a prune is.

    `keep_days` counts for commits and for garbage alike. With `ask` the remote is asked, else the
    record of what it confirmed to pushes and fetches is read. `careful` wants even garbage to be at
    the remote.
    """

    keep_days: float
    ask: bool = True
    careful: bool = False


def plan(
    repository: Repository,
    endpoint: Endpoint | None,
    rules: Rules,
    advance: Callable[[int], object] | None = None,
) -> Plan:
    """Decide what may be removed; nothing is.

    Args:
        repository: any, bare ones too.
        endpoint: where removed objects could be had from; None where there is no remote.
        rules: how careful to be.
        advance: called with the bytes of objects looked at, at the remote, since the last call.

    Raises:
        UsageError: the store is shared with repositories that are not known here.
        ManifestError: a manifest that something names is damaged: what it needs is not known.
        TransferError: the remote does not answer.
    """
    refuse_shared(repository)
    files, needed = _kept(repository, rules), _needed(repository)
    kept = {ref.oid for ref in files}
    unpushed = _unpushed(repository, endpoint, needed)
    careful = rules.careful or _is_partial(repository)
    found, asked = Plan(dead=dead_bytes(store_of(repository), files)), {}
    for oid, size, age in _objects(repository):
        if oid in kept:
            found.kept[oid] = size
        elif oid in unpushed:
            found.unpushed[oid] = size
        elif oid in needed:
            asked[oid] = needed[oid]
        elif age < max(rules.keep_days * _DAY, YOUNG_SECONDS):
            found.young[oid] = size
        elif careful:
            asked[oid] = UpdateRef("dense", oid, size)
        else:
            found.garbage[oid] = size
    there: set[str] = set()
    if endpoint is not None and asked:
        if rules.ask or endpoint.folder is not None:
            there = presence.present(repository, endpoint, asked.values(), advance)
        else:
            there = Confirmed(repository, endpoint).read()
    for oid, ref in asked.items():
        target = found.lacking if oid not in there else found.confirmed
        target[oid] = ref.size
    return found


def carry_out(
    repository: Repository,
    endpoint: Endpoint | None,
    found: Plan,
    rules: Rules,
    advance: Callable[[int], object] | None = None,
) -> dict[str, int]:
    """Remove what a plan found removable, if that is still so; what was removed, with sizes.

    The store is locked and everything is looked at again, but for the remote: a command may have
    come to need an object while the remote was asked.

    Args:
        repository: any, bare ones too.
        endpoint: the remote that the plan was made for, or None.
        found: the plan.
        rules: those of the plan.
        advance: called with the bytes of each object that is removed.

    Raises:
        StoreError: another command goes on writing, or an object cannot be removed.
    """
    removed: dict[str, int] = {}
    store = store_of(repository)
    with store.alone(_LOCK_SECONDS):
        kept = {ref.oid for ref in _kept(repository, rules)}
        needed = _needed(repository)
        kept |= _unpushed(repository, endpoint, needed)
        for oid, size, age in _objects(repository):
            fine = oid in found.confirmed or (
                oid in found.garbage and oid not in needed and age >= YOUNG_SECONDS
            )
            if fine and oid not in kept:
                store.remove(oid)
                removed[oid] = size
                if advance is not None:
                    advance(size)
        store.remove_stale()
    return removed


def refuse_shared(repository: Repository) -> None:
    """Raise UsageError where other repositories may use this store: what they need is not known."""
    if repository.setting("theta.storage"):
        root = store_of(repository).root
        raise UsageError(
            f"theta.storage is set: {root} may be shared by clones that are not"
            " known here, so nothing is removed from it",
            hint="if it is not shared: git -c theta.storage= theta prune   after moving the store"
            " to .git/theta",
        )


def _objects(repository: Repository) -> Iterator[tuple[str, int, float]]:
    """Id, size in bytes and age in seconds of every object here; negative if the clock went back.

    A time in the future counts as new: such an object is left alone.
    """
    now = time.time()
    for oid, found in list(store_of(repository).entries()):
        yield oid, found.st_size, now - found.st_mtime


def _needed(repository: Repository) -> dict[str, UpdateRef]:
    """The objects of every manifest that anything names."""
    found = _objects_of(reachable.reachable_manifests(repository))
    in_progress = [oid for name in _folders(repository) for oid in _states(name)]
    known = _existing(repository, [*in_progress, *_undone(repository)])
    if known:
        found.update(_objects_of(reachable.reachable_manifests(repository, known)))
    return found


def _kept(repository: Repository, rules: Rules) -> list[UpdateRef]:
    """The parameter files whose objects stay whatever a remote has."""
    roots = [oid for name in _folders(repository) for oid in _states(name)]
    roots += repository.git("rev-list", "--walk-reflogs", "--parents", "refs/stash", "--",
                            ok=(0, 128)).decode().split()  # fmt: skip
    roots += [line for line in _heads(repository) if line]
    if rules.keep_days > 0:
        since = int(time.time() - rules.keep_days * _DAY)
        roots += repository.git("rev-list", "--all", f"--since={since}").decode().split()
    trees = _trees(repository, roots)
    indexed = repository.git("rev-list", "--objects", "--no-object-names", "--indexed-objects",
                             "--ignore-missing", "--missing=print").decode().split()  # fmt: skip
    named = [*trees, *(oid for oid in indexed if not oid.startswith("?")), *_undone(repository)]
    if not named:
        return []
    return _files_of(reachable.reachable_manifests(repository, dict.fromkeys(named)))


def _unpushed(
    repository: Repository, endpoint: Endpoint | None, needed: dict[str, UpdateRef]
) -> set[str]:
    """Those of the needed objects that something needs which was never pushed.

    Needed by a commit, in any version of any file that it holds, which no remote-tracking branch of
    the remote reaches; or by what is in no commit that one reaches. Only Git moves these branches:
    when it pushed, or when it fetched a commit that the remote has. What a server says of its
    objects plays no part.
    """
    pushed = tracking_tips(repository, endpoint.remote) if endpoint is not None else []
    if not pushed:
        return set(needed)
    known = _objects_of(reachable.reachable_manifests(repository, pushed))
    roots = [oid for name in _folders(repository) for oid in _states(name)]
    roots += _heads(repository)
    mine = [oid for oid, kind in _described(repository, roots) if kind in ("commit", "tag")]
    request = [*mine, *(f"^{oid}" for oid in pushed)]
    commits = repository.git(
        "rev-list", "--all", "--reflog", "--ignore-missing", "--missing=allow-any", "--stdin",
        stdin="".join(f"{line}\n" for line in request).encode(), env=_STAY_HOME,
    ).decode().split()  # fmt: skip
    found = set(needed).difference(known)
    trees = _trees(repository, commits)
    if trees:
        manifests = reachable.reachable_manifests(repository, dict.fromkeys(trees))
        found.update(_objects_of(manifests))
    return found


def tracking_tips(repository: Repository, remote: str) -> list[str]:
    """The tips of a remote's branches as Git last saw them: of the refs that a fetch writes to.

    In a bare repository these may be the branches themselves; elsewhere those are the user's.
    """
    answer = repository.git("config", "--get-all", "-z", f"remote.{remote}.fetch", ok=(0, 1))
    targets = [spec.partition(":")[2] for spec in os.fsdecode(answer).split("\0")]
    if repository.work_tree is not None or not repository.flag("core.bare"):
        targets = [target for target in targets if target.startswith("refs/remotes/")]
    listed = repository.git("for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    found: dict[str, None] = {}
    for oid, _, name in (os.fsdecode(line).partition(" ") for line in listed):
        if any(_covers(target, name) for target in targets):
            found[oid] = None
    return list(found)


def _covers(target: str, name: str) -> bool:
    """Whether a fetch with this right side of a refspec writes to a ref."""
    start, star, end = target.partition("*")
    if not star:
        return name == target
    return name.startswith(start) and name.endswith(end) and len(name) > len(start) + len(end)


def _objects_of(manifests: Iterable[tuple[str, Manifest | ManifestError]]) -> dict[str, UpdateRef]:
    return {ref.oid: ref for ref in _files_of(manifests)}


def _files_of(manifests: Iterable[tuple[str, Manifest | ManifestError]]) -> list[UpdateRef]:
    """Every parameter file that manifests name, each once."""
    found: dict[Place, UpdateRef] = {}
    for blob, manifest in manifests:
        if isinstance(manifest, ManifestError):
            raise ManifestError(
                f"blob {blob}: {manifest.message}; "
                "nothing is removed, because it is not known what it needs",
                hint="git theta fsck   tells more",
            )
        found.update((ref.place, ref) for ref in manifest.objects())
    return list(found.values())


def _folders(repository: Repository) -> list[Path]:
    """Git's folder of every work tree of the repository, and the one that they share."""
    return [repository.common_dir, *sorted((repository.common_dir / "worktrees").glob("*"))]


def _states(folder: Path) -> Iterator[str]:
    """Every object id in the files of operations under way."""
    for pattern in _STATES:
        for path in sorted(folder.glob(pattern)):
            with suppress(OSError):
                if path.is_file() and path.stat().st_size <= _STATE_BYTES:
                    yield from _ID.findall(path.read_text("utf-8", "replace"))


def _heads(repository: Repository) -> Iterator[str]:
    """HEAD of every work tree."""
    for line in lines_of(repository.git("worktree", "list", "--porcelain")):
        if line.startswith("HEAD ") and set(line[5:]) != {"0"}:
            yield line[5:]


def _undone(repository: Repository) -> list[str]:
    """The blobs from which Git can make a conflict again that was settled (`checkout -m`)."""
    if repository.work_tree is None:
        return []
    answer = repository.git("ls-files", "--resolve-undo", "-z")
    return [line.split()[1].decode() for line in answer.split(b"\0") if line]


def _existing(repository: Repository, oids: Iterable[str]) -> list[str]:
    """Those of some ids that are objects here."""
    return [oid for oid, _ in _described(repository, oids)]


def _trees(repository: Repository, oids: Iterable[str]) -> list[str]:
    """Commits as their trees, without their history; trees and blobs as they are."""
    found = list(_described(repository, oids))
    commits = [f"{oid}^{{tree}}" for oid, kind in found if kind in ("commit", "tag")]
    others = [oid for oid, kind in found if kind not in ("commit", "tag")]
    return [*others, *(oid for oid, _ in _described(repository, commits))]


def _described(repository: Repository, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Id and kind of those objects that are here."""
    request = "".join(f"{name}\n" for name in dict.fromkeys(names)).encode()
    if not request:
        return
    answer = repository.git("cat-file", "--batch-check", stdin=request, env=_STAY_HOME)
    for line in answer.decode().splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in ("commit", "tag", "tree", "blob"):
            yield fields[0], fields[1]


_STAY_HOME = {"GIT_NO_LAZY_FETCH": "1"}
"""A partial clone must not fetch an object to find out that it is not here."""


def _is_partial(repository: Repository) -> bool:
    """Whether history, or manifests in it, may be missing here."""
    if (repository.common_dir / "shallow").exists():
        return True
    names = r"^(remote\..*\.promisor|extensions\.partialclone)$"
    answer = repository.git("config", "--get-regexp", names, ok=(0, 1))
    return bool(answer.strip())
