"""Move what is locked to the newest version that `models.toml` allows, and say what is outdated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.core.errors import ThetaError
from git_theta_ext.core.text import printable
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.getting import Watch
from git_theta_ext.packages.locking.changes import Change, bring_scores, changes
from git_theta_ext.packages.locking.choose import TAGS, Choice, Refs, group, latest
from git_theta_ext.packages.locking.lock_file import LockedModel
from git_theta_ext.packages.locking.placed import unwatched
from git_theta_ext.packages.locking.project import Project, Say, alone
from git_theta_ext.packages.locking.resolve import resolve
from git_theta_ext.packages.locking.sync import Options, Run, Synced, to_stderr
from git_theta_ext.packages.trimming import trim_to_limit


@dataclass(frozen=True, slots=True)
class Move:
    """A model that gets another version.

    Attributes:
        before: what was locked; None where nothing was.
        after: what is locked then.
        changes: what differs; None where the version before cannot be had any more.
    """

    before: LockedModel | None
    after: LockedModel
    changes: tuple[Change, ...] | None


def update(
    folder: Path,
    names: Iterable[str],
    options: Options,
    *,
    dry_run: bool = False,
    tell: Callable[[Move], object] = lambda move: None,
    cache: Cache | None = None,
    say: Say = to_stderr,
    watch: Watch = unwatched,
) -> tuple[list[Move], Synced | None]:
    """Move models to the newest version that is allowed, and make the folder so.

    All entries of a repository move together, unless they are alone.

    Args:
        folder: of the `models.toml`.
        names: of the models; none: all.
        options: what may be done.
        dry_run: only say what would move.
        tell: called with each move, before anything is written.
        cache: where packages are kept; the user's by default.
        say: gets remarks and warnings.
        watch: shows how far it is.

    Returns:
        What moves, and what the folder is now; None for a dry run.

    Raises:
        UsageError: `models.toml` has no model of a name.
        ThetaError: see `sync`.
    """
    with alone(folder, say):
        project = Project.read(folder)
        run = Run(project, options, cache or Cache.open(), say, watch)
        chosen = {one.name for one in project.named(names)}
        groups = [{one.name for one in each} for each in group(project.wanted)]
        free = {name for each in groups if each & chosen for name in each}
        with run.cache.using():
            rows = run.rows(free)
            run.check(rows)
            moves = []
            for row in rows.values():
                before = project.locked.get(row.name)
                if before is None or before.commit != row.commit:
                    moves.append(Move(before, row, _changes(run, before, row, say)))
                    tell(moves[-1])
            done = None if dry_run else run.carry_out(rows)
    trim_to_limit(run.cache)
    return moves, done


def _changes(
    run: Run, before: LockedModel | None, row: LockedModel, say: Say
) -> tuple[Change, ...] | None:
    """What differs; None where there was nothing before, or it cannot be had any more."""
    if before is None:
        return None
    new = run.open(row)
    try:
        bring_scores(new[0])
    except ThetaError as error:
        say(f"warning: {row.name}: scores were not fetched: {printable(error.message)}")
    with suppress(ThetaError):
        return tuple(changes(run.open(before), new))
    return None


# -- outdated --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a model stands.

    Attributes:
        name: of the model.
        locked: what is locked; None where nothing is.
        allowed: the newest that `models.toml` allows.
        newest: the newest release of all; where there are none, the same as `allowed`.
    """

    name: str
    locked: LockedModel | None
    allowed: Choice
    newest: Choice

    @property
    def outdated(self) -> bool:
        """Whether `git theta update` would move it."""
        return self.locked is None or self.locked.commit != self.allowed.commit


def standings(folder: Path, *, cache: Cache | None = None, offline: bool = False) -> list[Standing]:
    """Where each model of a folder stands; nothing is written.

    Args:
        folder: of the `models.toml`.
        cache: where packages are kept; the user's by default.
        offline: ask no remote: of what was fetched before.

    Raises:
        VersionError: no version is what is asked for.
        TransferError: a remote does not answer.
    """
    project = Project.read(folder)
    run = Run(project, Options(offline=offline), cache or Cache.open(), to_stderr)
    choices = resolve(project, run.remotes, [one.name for one in project.wanted])
    found = []
    for one in project.wanted:
        refs: Refs = run.remotes.refs(project.url(one))
        allowed = choices[one.name]
        branch = allowed.ref is not None and not allowed.ref.startswith(TAGS)
        newest = allowed if branch else latest(one, refs) or allowed
        found.append(Standing(one.name, project.locked.get(one.name), allowed, newest))
    return found
