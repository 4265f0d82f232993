"""Entries of `models.toml` into commits: what their repositories have now, and what is locked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from git_theta_ext.core.errors import TransferError
from git_theta_ext.core.text import printable
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import remote_refs
from git_theta_ext.packages.locking.choose import (
    TAGS,
    Choice,
    Refs,
    VersionError,
    allowed_by,
    choose,
    group,
)
from git_theta_ext.packages.locking.lock_file import LockedModel
from git_theta_ext.packages.locking.project import Project
from git_theta_ext.packages.locking.requirements import Requirement
from git_theta_ext.packages.remote import without_secret


class Remotes:
    """What refs repositories have; each is asked once."""

    def __init__(self, cache: Cache, *, offline: bool) -> None:
        """Offline what was fetched before is what there is."""
        self._cache, self._offline = cache, offline
        self._known: dict[str, Refs] = {}

    def refs(self, url: str) -> Refs:
        """The refs of a repository.

        Raises:
            TransferError: it does not answer; or nothing of it is here, and no remote is asked.
        """
        if url not in self._known:
            found = remote_refs(self._cache, url, offline=self._offline)
            if self._offline and not found:
                raise TransferError(
                    f"nothing of {printable(without_secret(url))} is in the cache, and no remote "
                    "is asked (offline)"
                )
            self._known[url] = found
        return self._known[url]


def resolve(project: Project, remotes: Remotes, free: Collection[str]) -> dict[str, Choice]:
    """The version of each entry that has none yet, or whose version may move.

    Entries of one repository get one version. Where one of them is locked and may not move, the
    others get its version. A locked version stays as long as it is allowed, whatever is asked for
    now, unless it may move.

    Args:
        project: what is asked for, and what is locked.
        remotes: what there is.
        free: names of locked entries that may move.

    Returns:
        By name; locked entries that may not move are left out.

    Raises:
        VersionError: no version is what is asked for.
        TransferError: a remote does not answer.
    """
    found: dict[str, Choice] = {}
    wrong: list[VersionError] = []
    for members in group(project.wanted):
        held = {
            one.name: row
            for one in members
            if one.name not in free and (row := project.row(one)) is not None
        }
        moving = [one for one in members if one.name not in held]
        if not moving:
            continue
        rows = [project.locked.get(one.name) for one in moving if one.name not in free]
        kept = {row.commit for row in rows if row is not None and row.url == members[0].url}
        refs = remotes.refs(project.url(members[0]))
        try:
            chosen = _beside(moving, held, members, refs) if held else choose(moving, refs, kept)
        except VersionError as error:
            wrong.append(error)
        else:
            found.update(zip((one.name for one in moving), chosen, strict=True))
    if len(wrong) > 1:
        raise VersionError("\n".join(error.message for error in wrong), hint=wrong[0].hint)
    if wrong:
        raise wrong[0]
    return found


def _beside(
    moving: Sequence[Requirement],
    held: Mapping[str, LockedModel],
    members: Sequence[Requirement],
    refs: Refs,
) -> list[Choice]:
    """The locked version for others of its repository, if they allow it."""
    row = next(iter(held.values()))
    chosen = []
    for one in moving:
        choice = next((c for c in allowed_by(one, refs) if c.commit == row.commit), None)
        if choice is None:
            choose(members, refs)  # says so, where the lock is not what keeps them apart
            other = next(each for each in members if each.name == row.name)
            version = "the default branch" if one.version is None else printable(one.version)
            raise VersionError(
                f"{one.name} and {row.name} need different versions of "
                f"{printable(without_secret(one.url))}. The "
                f"conflict is caused by:\n{one.name} ({one.where}) asks for {version}\n"
                f"{row.name} ({other.where}) is locked at {printable(row.label)}",
                hint=f"git theta update {row.name}   moves both; or say alone = true in one, to "
                "have two versions side by side",
            )
        chosen.append(choice)
    return chosen


@dataclass(frozen=True, slots=True)
class MovedTag:
    """A tag that names another commit than when it was locked; `now` is None where it is gone."""

    name: str
    tag: str
    was: str
    now: str | None

    def __str__(self) -> str:
        now = "is gone" if self.now is None else f"names {self.now[:10]} now"
        return (
            f"{self.name}: the tag {printable(self.tag)} was {self.was[:10]} when it was locked, "
            f"and {now}"
        )


def moved_tag(row: LockedModel, refs: Refs) -> MovedTag | None:
    """Whether the tag that a model was locked by was moved, or removed, since."""
    if row.ref is None or not row.ref.startswith(TAGS):
        return None
    now = refs.get(row.ref)
    if now == row.commit:
        return None
    return MovedTag(row.name, row.ref.removeprefix(TAGS), row.commit, now)
