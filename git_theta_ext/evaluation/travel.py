"""Results on their way: the ref that keeps them is pushed and fetched with everything else.

Two people who measured have two histories of the ref. Its trees are sets, so the union of both is
always right, and who pushes second makes it. What a server has is not believed: its trees are
compared folder by folder, by ids, and only three levels of them are ever read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.evaluation.ref_names import REF, REMOTES
from git_theta_ext.git.repository import Repository
from git_theta_ext.objects.transfer.lfs import GUARD

SETTING = "theta.evaluationRef"
_ATTEMPTS = 5
_RACES = (
    "fetch first", "non-fast-forward", "stale info", "cannot lock ref", "failed to update ref",
    "reference already exists",
)  # fmt: skip
_LEVELS = 3
"""Two digits, a content, a result."""
_ENTRIES = 2_000_000
"""Entries of folders that are compared; an honest ref with a million results has as many."""


@dataclass(frozen=True, slots=True)
class _Entry:
    mode: str
    oid: str


def is_on(repository: Repository) -> bool:
    """Whether results travel: `git config theta.evaluationRef false` keeps them here."""
    return repository.flag(SETTING, True)


def publish(repository: Repository, remote: str, url: str, moved: Collection[str] = ()) -> bool:
    """See to it that a remote has the results of this clone, besides its own.

    Args:
        repository: where the results are.
        remote: the remote's name or URL.
        url: where Git pushes to.
        moved: refs that a push under way changes by itself; a hook may not move them.

    Returns:
        Whether something was sent.

    Raises:
        RepositoryError: the remote refused the ref, or others push all the time.
    """
    tip = repository.resolve(REF)
    if tip is None or REF in moved or not is_on(repository):
        return False
    known = tracking_ref(repository, remote)
    if _contains(repository, repository.resolve(known), tip):
        return False
    problem: RepositoryError | None = None
    for _ in range(_ATTEMPTS):
        try:
            return _publish_once(repository, url, known)
        except RepositoryError as error:
            problem = error
            if not any(race in error.message for race in _RACES):
                break
    message = problem.message if problem else f"others push to {REF} all the time"
    raise RepositoryError(message, hint=f"to keep results here: git config {SETTING} false")


def _publish_once(repository: Repository, url: str, known: str) -> bool:
    """Unite both and push the union; RepositoryError where it is refused, or others were faster."""
    tip = repository.resolve(REF)
    theirs = _remote_tip(repository, url)
    if theirs is not None and repository.resolve(f"{theirs}^{{commit}}") is None:
        _fetch(repository, url, f"+{REF}:{known}")
    new = tip if theirs is None else _united(repository, tip, theirs)
    if new is None:
        return False
    if new != theirs:
        # Not the hooks, which would call this again.
        repository.git(
            "push", "--quiet", "--no-verify", "--no-follow-tags", "--recurse-submodules=no",
            "--", url, f"{new}:{REF}", env={GUARD: "1"},
        )  # fmt: skip
    repository.git("update-ref", known, new)
    if new != tip:
        repository.git("update-ref", REF, new, tip or "")
    return new != theirs


def fetch(repository: Repository, remote: str) -> bool:
    """Bring the results that a remote has; whether there were new ones.

    What was fetched before stays, whatever the remote has made of its ref.

    Raises:
        RepositoryError: the remote cannot be reached.
    """
    if not is_on(repository):
        return False
    known = tracking_ref(repository, remote)
    before = repository.resolve(known)
    # Nobody is asked for a password because there might be results.
    theirs = _remote_tip(repository, remote, {"GIT_TERMINAL_PROMPT": "0"})
    if theirs is None or theirs == before:
        return False
    _fetch(repository, remote, f"+{REF}:{known}")
    if before is not None and not _contains(repository, theirs, before):
        tip = repository.resolve(REF)
        repository.git("update-ref", REF, _united(repository, tip, before) or before, tip or "")
    return True


def follow(repository: Repository, remote: str) -> bool:
    """Have plain `git fetch` bring the results of a named remote; whether that is new.

    With a pattern, since Git fails on a ref by name that the remote has not.
    """
    if not is_on(repository) or not _is_named(repository, remote):
        return False
    wanted = f"+{REF}*:{REMOTES}{remote}/evaluations*"
    there = os.fsdecode(repository.git("config", "--get-all", f"remote.{remote}.fetch", ok=(0, 1)))
    if wanted in there.splitlines():
        return False
    repository.git("config", "--add", f"remote.{remote}.fetch", wanted)
    return True


def tracking_ref(repository: Repository, remote: str) -> str:
    """The ref here that says what results a remote has."""
    if _is_named(repository, remote):
        return f"{REMOTES}{remote}/evaluations"
    digest = hashlib.sha256(remote.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{REMOTES}url-{digest}/evaluations"


def _is_named(repository: Repository, remote: str) -> bool:
    return repository.setting(f"remote.{remote}.url") is not None


def _fetch(repository: Repository, place: str, refspec: str) -> None:
    repository.git(
        "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no",
        "--", place, refspec, env={GUARD: "1"},
    )  # fmt: skip


def _remote_tip(
    repository: Repository, place: str, env: Mapping[str, str] | None = None
) -> str | None:
    answer = repository.git("ls-remote", "--", place, REF, env=env).splitlines()
    tips = [line.split()[0].decode() for line in answer if line.split()[1:] == [REF.encode()]]
    return tips[0] if tips else None


def _contains(repository: Repository, commit: str | None, other: str | None) -> bool:
    """Whether a commit has another one in its history; both are here, where they are not None."""
    if commit is None or other is None:
        return False
    if commit == other:
        return True
    return repository.git("rev-list", "--max-count=1", other, f"^{commit}", "--") == b""


def _united(repository: Repository, ours: str | None, theirs: str) -> str | None:
    """A commit with the files of both; one of the two, where it has those of the other."""
    if ours is None or _contains(repository, theirs, ours):
        return theirs
    if _contains(repository, ours, theirs):
        return ours
    lacking = _lacking(repository, ours, theirs)
    scratch = f"refs/theta/scratch-{secrets.token_hex(8)}"
    lines = [
        f"commit {scratch}\ncommitter theta <theta@localhost> 0 +0000\n"
        f"data 14\nUnite results\n\nfrom {ours}\nmerge {theirs}\n",
        *(f"M {entry.mode} {entry.oid} {path}\n" for path, entry in sorted(lacking.items())),
    ]
    try:
        repository.git("fast-import", "--quiet", "--date-format=raw", stdin="".join(lines).encode())
        return repository.resolve(scratch)
    finally:
        with suppress(RepositoryError):
            repository.git("update-ref", "-d", scratch)


def _lacking(repository: Repository, ours: str, theirs: str) -> dict[str, _Entry]:
    """What their tree has and ours has not: files, or whole folders.

    Raises:
        RepositoryError: there is more than honest results can be.
    """
    found: dict[str, _Entry] = {}
    pairs = {"": (f"{ours}^{{tree}}", f"{theirs}^{{tree}}")}
    room = _ENTRIES
    for level in range(1, _LEVELS + 1):
        trees = _trees(repository, [oid for pair in pairs.values() for oid in pair])
        deeper: dict[str, tuple[str, str]] = {}
        for folder, (one, other) in pairs.items():
            mine = dict(_entries(trees[one]))
            for name, entry in islice(_entries(trees[other]), room):
                room -= 1
                path = f"{folder}{name}"
                known = mine.get(name)
                if known is None:
                    if _is_ours(name, level, entry.mode):
                        found[path] = entry
                elif known != entry and known.mode == entry.mode == "40000" and level < _LEVELS:
                    deeper[f"{path}/"] = (known.oid, entry.oid)
        if room <= 0:
            raise RepositoryError(f"{REF} at the remote holds more than results of evaluations")
        pairs = deeper
        if not pairs:
            break
    return found


def _is_ours(name: str, level: int, mode: str) -> bool:
    """Whether a name is one that we would have given at this level."""
    stem, dot, ending = name.partition(".")
    if set(stem) - set("0123456789abcdef") or (mode == "40000") != (level < _LEVELS):
        return False
    lengths = {1: 2, 2: 64, 3: 32}
    return len(stem) == lengths[level] and (
        not dot if level < _LEVELS else ending in ("json", "bin")
    )


def _trees(repository: Repository, names: list[str]) -> Mapping[str, bytes]:
    """Trees as Git stores them, by what they were asked for, from one process."""
    answer = repository.git("cat-file", "--batch", stdin="".join(f"{n}\n" for n in names).encode())
    found: dict[str, bytes] = {}
    at = 0
    for name in names:
        start = answer.index(b"\n", at) + 1
        fields = answer[at:start].split()
        if len(fields) != 3 or fields[1] != b"tree":
            raise RepositoryError(f"{REF} has no tree {name}")
        end = start + int(fields[2])
        found[name] = answer[start:end]
        at = end + 1
        digits = len(fields[0])
        found[name] = digits.to_bytes(1, "little") + found[name]
    return found


def _entries(tree: bytes) -> Iterator[tuple[str, _Entry]]:
    """The entries of a tree: mode, blank, name, NUL, id; the length of ids stands before all."""
    size, at = tree[0] // 2, 1
    while (end := tree.find(b"\0", at)) >= 0:
        mode, _, name = tree[at:end].partition(b" ")
        oid = tree[end + 1 : end + 1 + size].hex()
        yield os.fsdecode(name), _Entry(mode.decode("ascii", "replace"), oid)
        at = end + 1 + size
