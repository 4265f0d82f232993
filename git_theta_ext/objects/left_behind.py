"""Pushes that went out without their objects, found afterwards.

A push can pass our hook by: `git push --no-verify`, a hooks folder of somebody else's, a client
that runs no hooks. Git (and libgit2) then notes in the reflog of the remote-tracking ref "update by
push". So what was pushed from here is known, and what was only fetched is not looked at: of the
commits that such entries added, the objects must be on record as confirmed by the endpoint, or lie
in the remote's folder. Looked for at the next `git add` or `git theta` command; tips that were
found in order are remembered, so that there is nothing to do next time.

What leaves no such trace is not found: a push of tags alone, or to a URL that is no remote's, and
repositories without reflogs, as bare ones usually are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from git_theta_ext.core.errors import RepositoryError, ThetaError
from git_theta_ext.git.launch import shell_word
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer import endpoints, transport
from git_theta_ext.objects.transfer.endpoints import Confirmed, Endpoint

_BY_OTHERS = ("fetch", "pull", "clone", "branch", "remote")
"""How an entry of the reflog begins that tells of what was pushed elsewhere, whatever a branch in
it is called. One that tells of a push from here says "update by push", with some clients "push"."""

_ENTRIES = 50
"""Entries of a reflog that are read, the newest first."""

_TIPS = 20
"""Refs that are looked at in one go; the others at the next command."""

_COMMITS = 1000
"""Pushed commits that are looked at in one go, the newest first."""


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Objects that a pushed ref needs and that were never seen at its remote."""

    ref: str
    remote: str
    objects: int
    certain: bool
    """Whether the remote was looked at; else only its confirmation is lacking."""

    def sentences(self) -> list[str]:
        """What is wrong, and the command that mends it."""
        count = "1 object" if self.objects == 1 else f"{self.objects:,} objects"
        what = f"are not at {self.remote}" if self.certain else f"may not be at {self.remote}"
        what = what.replace("are", "is", 1) if self.certain and self.objects == 1 else what
        words = [shell_word(w) if _needs_quotes(w) else w for w in (self.remote, self.ref)]
        return [
            f"{count} of checkpoints that {self.ref} needs {what}: it was pushed without"
            " git theta's pre-push hook, and others cannot check it out",
            f"git theta push {' '.join(words)}",
        ]


def find(repository: Repository) -> list[LeftBehind]:
    """The remote-tracking refs whose pushes left objects behind; empty where all is well.

    What cannot be found out (a remote that is not mounted, a reflog that names lost commits) is
    left for the next time.
    """
    if not (repository.common_dir / "theta").is_dir():
        return []
    found = []
    for remote, tips in _tips(repository).items():
        try:
            found += _look_at(repository, remote, tips)
        except ThetaError:
            continue
    return found


def remember(repository: Repository, remote: str, url: str, commits: Iterable[str]) -> None:
    """Put on record that our hook saw to a push of these commits, so that nothing is looked for.

    Not while an earlier push to that remote is known to have left objects behind: our hook does
    not look at what the remote's refs hold already, and the record would hide it.

    Args:
        repository: what is pushed from.
        remote: its name or URL, as Git gives it to hooks.
        url: where Git pushes to.
        commits: full ids of what was pushed.
    """
    if (repository.common_dir / "theta").is_dir() and not any(
        left.remote == remote for left in find(repository)
    ):
        _memory(repository, remote, url).add(commits)


def _tips(repository: Repository) -> dict[str, dict[str, str]]:
    """Remote -> its remote-tracking refs and their commits; the remotes are those of git config."""
    answer = repository.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/remotes/")
    lines = [line.partition(" ") for line in lines_of(answer)]
    if not lines:
        return {}
    names = lines_of(repository.git("remote"))
    tips: dict[str, dict[str, str]] = {}
    for oid, _, ref in lines:
        fits = [name for name in names if ref.startswith(f"refs/remotes/{name}/")]
        if fits and not ref.endswith("/HEAD"):
            tips.setdefault(max(fits, key=len), {})[ref] = oid
    return tips


def _look_at(repository: Repository, remote: str, tips: dict[str, str]) -> list[LeftBehind]:
    """The branches of a remote that lack objects there; others are remembered as good."""
    url = endpoints.remote_url(repository, remote, push=True)
    memory = _memory(repository, remote, url)
    known = memory.read()
    fresh = {ref: oid for ref, oid in tips.items() if oid not in known}
    if not fresh:
        return []
    pushed: dict[str, list[str]] = {}
    others = known | (set(tips.values()) - set(fresh.values()))
    for ref, oid in list(fresh.items())[:_TIPS]:
        entries = list(_reflog(repository, ref))
        pushed[ref] = [new for _, new, by_push in entries if by_push]
        others.update(new for _, new, by_push in entries if not by_push)
        others.update(old for old, _, _ in entries[-1:] if old)
        if not entries:
            others.add(oid)
    found = []
    in_order = [tips[ref] for ref, news in pushed.items() if not news]
    for ref, news in pushed.items():
        lacking = _lacking(repository, remote, url, news, others) if news else []
        if lacking:
            local = endpoints.for_push(repository, remote, url).is_local
            found.append(LeftBehind(_short(ref), remote, len(lacking), local))
        elif news:
            in_order.append(tips[ref])
    if in_order:
        memory.add(in_order)
    return found


def _memory(repository: Repository, remote: str, url: str) -> Confirmed:
    """The commits whose push to an endpoint was looked at and found in order."""
    endpoint = endpoints.for_push(repository, remote, url)
    return Confirmed(repository, Endpoint(remote, f"looked at {endpoint.url}", None))


def _reflog(repository: Repository, ref: str) -> Iterator[tuple[str | None, str, bool]]:
    """Entries of a ref's reflog, newest first: commits before and after, whether pushed here."""
    try:
        answer = repository.git(
            "log", "-g", "-n", str(_ENTRIES), "--format=%H %gs", "--end-of-options", ref, "--"
        )
    except RepositoryError:
        return  # an entry names a commit that is gone
    lines = [line.partition(" ") for line in lines_of(answer)]
    if not lines:
        return
    oldest = repository.resolve(f"{ref}@{{{len(lines)}}}")
    for (new, _, said), (old, _, _) in pairwise([*lines, (oldest or "", "", "")]):
        yield old or None, new, "push" in said and not said.startswith(_BY_OTHERS)


def _lacking(
    repository: Repository, remote: str, url: str, news: list[str], others: set[str]
) -> list[UpdateRef]:
    """The objects that pushed commits brought and that the endpoint is not known to have."""
    request = "".join(f"{oid}\n" for oid in news) + "".join(f"^{oid}\n" for oid in others)
    listed = repository.git(
        "log", "--format=%H", f"--max-count={_COMMITS + 1}", "--ignore-missing", "--stdin",
        stdin=request.encode(),
    )  # fmt: skip
    older = listed.decode().split()[_COMMITS:]  # what it and those before it brought is left out
    objects = reachable.objects_in(
        repository, news, [*others, *older], on_damage=lambda oid, error: None
    )
    return transport.unconfirmed(repository, remote, url, objects.values())


def _short(ref: str) -> str:
    return ref.removeprefix("refs/remotes/")


def _needs_quotes(word: str) -> bool:
    return not all(char.isalnum() or char in "/._-@+" for char in word)
