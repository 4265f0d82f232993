"""Make a folder as its `theta.lock` says: choose, check, write, verify, and remove what is left."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from git_theta_ext.core.errors import CorruptObjectError, ThetaError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import Package, fetch, marker_of
from git_theta_ext.packages.files import PackageFile, files_of
from git_theta_ext.packages.getting import Watch
from git_theta_ext.packages.locking.bases import check_bases
from git_theta_ext.packages.locking.choose import Choice, VersionError
from git_theta_ext.packages.locking.contents import identities, models_of
from git_theta_ext.packages.locking.lock_file import ANOTHER_LOCK, LockedFile, LockedModel
from git_theta_ext.packages.locking.placed import Placed, Report, unwatched
from git_theta_ext.packages.locking.project import Project, Say, alone
from git_theta_ext.packages.locking.requirements import FILE, LOCK, Requirement
from git_theta_ext.packages.locking.resolve import MovedTag, Remotes, moved_tag, resolve
from git_theta_ext.packages.locking.signatures import check_signatures, trust_of
from git_theta_ext.packages.trimming import trim_to_limit

_TAKE = "git theta update {}   takes what it names now"


class KeptError(ThetaError):
    """Files are not as they are locked, because somebody changed them."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a folder is made as locked.

    Attributes:
        locked: change no lock, and take no tag that was moved.
        offline: ask no remote.
        force: replace and remove what was changed by hand, too.
    """

    locked: bool = False
    offline: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Synced:
    """What a folder is now.

    Attributes:
        models: what is locked, in the order of `models.toml`.
        before: what was locked, by name.
        report: what became of the files.
        moved: tags that were moved since they were locked.
    """

    models: tuple[LockedModel, ...]
    before: dict[str, LockedModel]
    report: Report
    moved: tuple[MovedTag, ...]

    @property
    def as_locked(self) -> bool:
        """Whether the folder is as `theta.lock` says."""
        return not self.report.kept

    def require_as_locked(self) -> None:
        """Refuse a folder that is not as it should be.

        Raises:
            KeptError: files were kept; names them.
        """
        if self.report.kept:
            lines = [f"{printable(one.path)} {one.why}" for one in self.report.kept]
            raise KeptError("\n".join(["files were kept:", *lines]))


def to_stderr(text: str) -> None:
    """Say something for people where it disturbs no output."""
    print(f"git theta: {text}", file=sys.stderr)


def sync(
    folder: Path,
    options: Options = Options(),
    *,
    cache: Cache | None = None,
    say: Say = to_stderr,
    watch: Watch = unwatched,
) -> Synced:
    """Make a folder as its `theta.lock` says, and lock what `models.toml` asks for besides.

    Args:
        folder: of the `models.toml`.
        options: what may be done.
        cache: where packages are kept; the user's by default.
        say: gets remarks and warnings.
        watch: shows how far it is.

    Raises:
        VersionError: no version is what is asked for; or `locked`, and the lock would change.
        SignatureError: a model does not bear the signature that it is to bear.
        BaseError: an adapter was made on another base.
        TransferError, MissingObjectError, CorruptObjectError, StoreError: a file cannot be had.
    """
    with alone(folder, say):
        run = Run(Project.read(folder), options, cache or Cache.open(), say, watch)
        with run.cache.using():
            if options.locked:
                run.refuse_changes()
            done = run.carry_out(run.rows(free=()))
    trim_to_limit(run.cache)
    return done


class Run:
    """One sync or update of a project; packages are opened once."""

    def __init__(
        self,
        project: Project,
        options: Options,
        cache: Cache,
        say: Say,
        watch: Watch = unwatched,
    ) -> None:
        """Nothing is asked for yet.

        Raises:
            UsageError: an entry asks for a signature of nobody.
        """
        for one in project.wanted:
            trust_of(one, project.folder)
        self.project, self.cache = project, cache
        self._options, self._say, self._watch = options, say, watch
        self.remotes = Remotes(cache, offline=options.offline)
        self._opened: dict[tuple[str, str], tuple[Package, Sequence[PackageFile]]] = {}
        self._moved: dict[str, MovedTag] = {}

    # -- what is to be ----------------------------------------------------------------------------

    def rows(self, free: Collection[str]) -> dict[str, LockedModel]:
        """What is to be locked, by name; those without files have not been written yet.

        Args:
            free: names of entries whose version may move.

        Raises:
            VersionError, TransferError: see `resolve`.
        """
        choices = resolve(self.project, self.remotes, free)
        return {one.name: self._row(one, choices.get(one.name)) for one in self.project.wanted}

    def _row(self, one: Requirement, choice: Choice | None) -> LockedModel:
        """What is to be locked of an entry: what is, as far as that stays."""
        row = self.project.locked.get(one.name)
        found = self.project.row(one) if choice is None else choice
        if found is None:  # `resolve` gives one to each entry that has none
            raise VersionError(f"{one.name} is not locked")
        if row is not None and found.commit == row.commit:
            same = replace(row, version=one.version, ref=found.ref)
            if same.is_of(one):
                return same
        return LockedModel(
            one.name, one.url, one.version, one.path, one.tensors, one.into, found.ref, found.commit
        )

    def refuse_changes(self) -> None:
        """Refuse a lock that is not that of `models.toml`, and tags that were moved.

        Raises:
            VersionError: says which.
        """
        locked, lines = self.project.locked, []
        for one in self.project.wanted:
            row = locked.get(one.name)
            if row is None:
                lines.append(f"{one.name} is not locked")
            elif not row.is_of(one):
                lines.append(f"{one.name} is not as {FILE} has it")
        for name in locked.keys() - {one.name for one in self.project.wanted}:
            lines.append(f"{name} is not in {FILE}")
        if lines:
            what = f"{LOCK} is not that of {FILE}, and --locked lets it be:"
            raise VersionError("\n".join([what, *lines]), hint="git theta sync   locks the rest")
        if not self._options.offline:
            self._look_for_moved_tags(self.project.locked.values())
        if self._moved:
            raise VersionError(
                "\n".join(["tags were moved:", *map(str, self._moved.values())]),
                hint=_TAKE.format(" ".join(self._moved)),
            )

    def _look_for_moved_tags(self, rows: Iterable[LockedModel]) -> None:
        for row in rows:
            moved = moved_tag(row, self.remotes.refs(self.project.url(row)))
            if moved is not None:
                self._moved[row.name] = moved

    # -- what is done -----------------------------------------------------------------------------

    def carry_out(self, rows: dict[str, LockedModel]) -> Synced:
        """Write what lacks, lock it, and remove what is not locked any more.

        Raises:
            ThetaError: see `sync`.
        """
        before = dict(self.project.locked)
        self.check(rows)
        placed = Placed(self.project, force=self._options.force, watch=self._watch)
        for name, row in rows.items():
            expected = placed.lacking(row) if row.files else None
            if expected == []:
                continue
            package, files = self.open(row)
            if not files:
                raise VersionError(f"{name}: {package} has no files")
            _refuse_names(name, files)
            content = identities(models_of(package, files))
            if expected is not None and content != row.content:
                raise CorruptObjectError(
                    f"theta.lock has other identities of the checkpoints of {name} than commit "
                    f"{row.commit[:10]}",
                    hint=ANOTHER_LOCK,
                )
            if expected is not None:
                placed.bring(package, files, row, expected)
                continue
            same = _same(row, before.get(name), files)
            if lacking := placed.lacking(replace(row, files=same)):
                placed.bring(package, files, row, lacking)
            known = {file.path for file in same}
            rest = [file for file in files if file.place not in known]
            made = placed.bring(package, rest, row, None)
            rows[name] = replace(row, files=(*same, *made), content=content)
        self.project.write_lock(rows)
        placed.remove_others(rows)
        self.project.state.flush()
        for moved in self._moved.values():
            self._say(f"warning: {moved}: theta.lock stays as it is")
        return Synced(tuple(rows.values()), before, placed.report, tuple(self._moved.values()))

    def check(self, rows: dict[str, LockedModel]) -> None:
        """Check signatures, and that each adapter was made on the base that is locked.

        Raises:
            SignatureError: a model does not bear the signature that it is to bear.
            BaseError: an adapter was made on another base.
        """
        check_signatures(self.project, rows, lambda name: self.open(rows[name]))
        check_bases(self.project, rows, lambda name: self.open(rows[name]), self._elsewhere)

    def open(self, row: LockedModel) -> tuple[Package, Sequence[PackageFile]]:
        """The package of a model, and its files.

        Raises:
            TransferError: it cannot be had.
        """
        key = (row.name, row.commit)
        if key not in self._opened:
            package = self._fetch(row)
            self._opened[key] = package, files_of(package, row.path)
        return self._opened[key]

    def _fetch(self, row: LockedModel) -> Package:
        """The package of a model; on the way, whether its tag was moved."""
        url, offline = self.project.url(row), self._options.offline
        known = self.cache.find(url)
        here = known is not None and marker_of(known, row.commit).is_file()
        if not here and not offline:
            self._look_for_moved_tags([row])
        named = None if row.ref == "HEAD" else row.ref
        if not here and row.ref is not None and row.name not in self._moved:
            package = fetch(self.cache, url, named, offline=offline)
            if package.commit == row.commit:
                return package
        try:
            return fetch(self.cache, url, named, commit=row.commit, offline=offline)
        except UsageError as error:
            moved = self._moved.get(row.name)
            if moved is None:
                raise
            raise VersionError(
                f"{moved}: the commit that is locked is not there any more",
                hint=_TAKE.format(row.name),
            ) from error

    def _elsewhere(self, url: str, commit: str) -> Package:
        return fetch(self.cache, url, None, commit=commit, offline=self._options.offline)


def _same(
    row: LockedModel, before: LockedModel | None, files: Sequence[PackageFile]
) -> tuple[LockedFile, ...]:
    """The files of a new version that the one before has, too: what they are is known."""
    if before is None or before.tensors or row.tensors:
        return ()
    known = {(file.path, file.blob): file for file in before.files}
    pairs = ((file.place, file.blob) for file in files)
    return tuple(known[pair] for pair in pairs if pair in known)


def _refuse_names(name: str, files: Iterable[PackageFile]) -> None:
    """Refuse files that theta.lock cannot name, before they are written."""
    for file in files:
        try:
            file.place.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{name}: {printable(file.place)} has a name that is not UTF-8, which {LOCK} "
                "cannot hold",
                hint='name the part that you need: path = "…"',
            ) from error
