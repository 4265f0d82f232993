"""Which checkpoints differ between revisions, the index and the work tree, and both their sides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from git_theta_ext.checkpoints import shards as sharded
from git_theta_ext.checkpoints.contents import LFS_FETCH, Content, Contents, not_plain, objects_in
from git_theta_ext.checkpoints.coupled.beside import in_file, in_revision
from git_theta_ext.checkpoints.coupled.read import Settings
from git_theta_ext.checkpoints.versions import Side, open_side
from git_theta_ext.comparison.compare import Comparison, Lacking, compare
from git_theta_ext.comparison.quantised import requantised
from git_theta_ext.comparison.renames import renamed
from git_theta_ext.core.errors import ManifestError, RepositoryError, UsageError
from git_theta_ext.core.names import natural_key
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import unknown
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.objects.blocks import Blocks

TWO_VERSIONS = "to compare two versions of a model: git theta diff REV REV -- PATH"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of one checkpoint; None where it was not there, or is not on this machine.

    `renamed_from` is the path of the old version, where that was another one. `remarks` say how
    the versions are stored, where one is not stored by tensor. `known` are objects that other
    checkpoints of the old revision name. Without `compared`, a side is there and cannot be read.
    `configs` read the `config.json` beside each.
    """

    path: str
    old: Side | None
    new: Side | None
    renamed_from: str | None = None
    remarks: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()
    compared: bool = True
    configs: tuple[Settings, Settings] = (dict, dict)

    def compare(self, measured: bool = True, lacking: Lacking | None = None) -> Comparison:
        """What differs.

        Args:
            measured: also read the values of changed tensors.
            lacking: see `compare.compare`.
        """
        if not self.compared:
            found = replace(compare(None, None), compared=False)
        else:
            found = compare(self.old, self.new, measured, known=self.known, lacking=lacking)
        if measured and found.changes and self.old is not None and self.new is not None:
            before, after = self.configs
            told = requantised((self.old, before), (self.new, after), lacking)
            found = replace(found, quantised=told)
        return replace(found, renamed_from=self.renamed_from, remarks=self.remarks)

    def close(self) -> None:
        """Let go of the files that were opened."""
        for side in (self.old, self.new):
            if side is not None:
                side.close()


OnDamage = Callable[[str, ManifestError], object]


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of `git diff --raw`: blobs of all zeros where there is none, or not yet."""

    path: str
    old: str
    new: str
    status: str


_Versions = dict[str, Content]
"""The files that a unit consists of on one side, by path."""


def changed_checkpoints(
    repository: Repository,
    revisions: Sequence[str],
    paths: Sequence[str],
    *,
    cached: bool = False,
    blocks: Blocks | None = None,
    on_damage: OnDamage | None = None,
) -> Iterator[Pair]:
    """The checkpoints that `git diff -M REVISIONS -- PATHS` lists, in its order.

    Files that are checkpoints on neither side are left out. Sides are opened one after the other.
    The shards of a model are one pair, unless one of them is asked for by its path.

    Args:
        repository: with a work tree, unless two revisions are given.
        revisions: none (index and work tree), one (it and the work tree), two, or `A..B`.
        paths: pathspecs, or indexes of shards; all files if there are none.
        cached: the index in place of the work tree.
        blocks: where values are read from; by default the repository's, which fetches them.
        on_damage: called with the path of a file that begins like a manifest and is none, which
            is then left out.

    Raises:
        UsageError: Git does not understand the revisions.
        ThetaError: a side cannot be read.
    """
    contents = Contents(repository, blocks)
    changes = _Changes(contents, revisions, paths, cached=cached, on_damage=on_damage)
    gone = set(changes.renames.values())
    for unit in changes.units:
        if unit not in gone and (pair := changes.pair(unit)) is not None:
            yield pair


def _from_top(repository: Repository, path: str) -> str:
    """A path as Git's listings have it."""
    top = repository.work_tree or repository.cwd
    return os.path.relpath(repository.cwd / path, top).replace(os.sep, "/")


class _Changes:
    """What differs between two trees, the index and the work tree, by *unit*.

    A unit is a file, or all shards of a model under their pattern.
    """

    def __init__(
        self,
        contents: Contents,
        revisions: Sequence[str],
        paths: Sequence[str],
        *,
        cached: bool,
        on_damage: OnDamage | None,
    ) -> None:
        """Find what changed, file by file, and put the shards of a model together."""
        self._repository = contents.repository
        self._contents = contents
        self._on_damage = on_damage
        self._revisions = revisions
        self._cached = cached
        self._named = {_from_top(self._repository, path) for path in paths}
        self._same: dict[str, _Versions] = {}
        self.units: dict[str, list[_Row]] = {}
        for row in self._rows([sharded.pattern_of(path) for path in paths]):
            self._add(row)

    def _rows(self, paths: Sequence[str]) -> Iterator[_Row]:
        """The files that differ; a link or a submodule is none."""
        flags = ["--cached"] if self._cached else []
        if not self._cached and len(self._revisions) < 2 and ".." not in "".join(self._revisions):
            self._repository.top  # noqa: B018 - an error where there is no work tree
        try:
            answer = self._repository.git(
                "diff", "--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", *flags,
                "--end-of-options", *self._revisions, "--", *paths,
            )  # fmt: skip
        except RepositoryError as error:
            for end in (
                end for one in self._revisions for end in one.replace("...", "..").split("..")
            ):
                if end and self._repository.resolve(end) is None:
                    raise unknown(self._repository, end) from error
            raise UsageError(error.message) from error
        fields = iter(answer.split(b"\0"))
        for header in fields:
            if header:
                path = os.fsdecode(next(fields))
                old_mode, new_mode, old, new, status = header.decode().lstrip(":").split()
                if old_mode.startswith("100") or new_mode.startswith("100"):
                    yield _Row(path, old, new, status)

    def _add(self, row: _Row) -> None:
        model = None if row.path in self._named else sharded.model_of(row.path)
        if model is None or (model not in self.units and not self._add_model(model)):
            self.units[row.path] = [row]

    def _add_model(self, pattern: str) -> bool:
        """Take the shards of a model as one; not where a side has those of several."""
        rows = [
            row
            for row in self._rows([sharded.pathspec_of(pattern)])
            if sharded.model_of(row.path) == pattern
        ]
        changed = {row.path for row in rows}
        try:
            # Shards that are the same on both sides: without them it would not be the whole model.
            found = sharded.find(self._repository, self._same_in(), pattern)
            same = () if found is None else found.shards
            kept = {path: manifest for path, manifest in same if path not in changed}
            sharded.check_one([*kept, *(row.path for row in rows if row.status != "A")])
            sharded.check_one([*kept, *(row.path for row in rows if row.status != "D")])
        except UsageError:
            return False
        self.units[pattern] = rows
        self._same[pattern] = {
            path: Content("tensors", "", path, None, manifest) for path, manifest in kept.items()
        }
        return True

    def _same_in(self) -> str:
        """A revision (empty: the index) that has all files which do not differ."""
        if not self._revisions:
            return "HEAD" if self._cached else ""
        return self._revisions[-1].rpartition("..")[2] or "HEAD"

    # -- both versions of a unit -------------------------------------------------------------------

    def pair(self, unit: str) -> Pair | None:
        """Both versions; None where neither is a checkpoint."""
        if not self._may_concern(unit):
            return None
        old_unit = self.renames.get(unit)
        old, new = self._old(old_unit or unit), self._new(unit)
        if not self._concern(unit, [*old.values(), *new.values()]):
            return None
        lacking = any(not one.is_here for one in (*old.values(), *new.values()))
        remarks = tuple(_remarks(list(old.values()), list(new.values())))
        known = frozenset() if old or lacking else self._known
        if lacking:
            return Pair(unit, None, None, old_unit, remarks, compared=False)
        before, after = self._ends
        configs = (
            partial(in_revision, self._repository, before, old_unit or unit),
            partial(in_revision, self._repository, after, unit),
        )
        pair = Pair(unit, None, None, old_unit, remarks, known, configs=configs)
        return _opened(pair, old, new, self._contents)

    def _old(self, unit: str) -> _Versions:
        found = {row.path: self._contents.get(row.old, row.path) for row in self.units[unit]}
        return self._there(found) | self._same.get(unit, {})

    def _new(self, unit: str) -> _Versions:
        found = {row.path: self._after(row) for row in self.units[unit]}
        return self._there(found) | self._same.get(unit, {})

    def _there(self, found: Mapping[str, Content | None]) -> _Versions:
        """Those that there are; damaged ones are told and left out, where that is wanted."""
        versions: _Versions = {}
        for path, content in found.items():
            if content is None:
                continue
            if content.storage == "damaged" and self._on_damage is not None:
                try:
                    self._contents.open(content)
                except ManifestError as error:
                    self._on_damage(path, error)
                    continue
            versions[path] = content
        return versions

    def _after(self, row: _Row) -> Content | None:
        if row.status == "D" or set(row.new) - {"0"}:
            return self._contents.get(row.new, row.path)
        return self._contents.in_work_tree(row.path)

    def _may_concern(self, unit: str) -> bool:
        """Whether `_concern` has to look: asked of all units at once, in few processes."""
        return unit in self._same or any(
            row.path in self._named or row.path in self._tracked
            or row.old in self._not_plain or row.new in self._not_plain
            or (row.status != "D" and not set(row.new) - {"0"})
            for row in self.units[unit]
        )  # fmt: skip

    @cached_property
    def _not_plain(self) -> set[str]:
        rows = [row for rows in self.units.values() for row in rows]
        oids = {oid for row in rows for oid in (row.old, row.new) if set(oid) - {"0"}}
        return not_plain(self._repository, oids)

    def _concern(self, unit: str, versions: Sequence[Content]) -> bool:
        """Whether some versions are those of a checkpoint.

        Of one that is stored by tensor, in any case. Else where the attributes or the user say so,
        and where git-lfs has a file of a known container.
        """
        if any(one.storage in ("tensors", "damaged") for one in versions):
            return True
        if any(one.storage == "git-lfs" and one.recognised for one in versions):
            return True
        paths = [row.path for row in self.units[unit]]
        return bool(versions) and any(
            path in self._named or path in self._tracked for path in paths
        )

    @cached_property
    def _tracked(self) -> frozenset[str]:
        """Those of all paths whose `filter` attribute is `theta`: in one process.

        A pull request may have a hundred thousand files that are no checkpoints.
        """
        paths = [row.path for rows in self.units.values() for row in rows]
        found = self._repository.attributes("filter", paths)
        return frozenset(path for path, value in found.items() if value == "theta")

    @cached_property
    def renames(self) -> dict[str, str]:
        """New units and the old ones that they were, among those that came and went."""
        units = [(unit, rows) for unit, rows in self.units.items() if self._may_concern(unit)]
        gone = [unit for unit, rows in units if {r.status for r in rows} == {"D"}]
        came = [unit for unit, rows in units if {r.status for r in rows} == {"A"}]
        if not gone or not came:
            return {}
        before = {unit: _manifest(self._old(unit)) for unit in gone}
        after = {unit: _manifest(self._new(unit)) for unit in came}
        return renamed(
            {unit: found for unit, found in before.items() if found is not None},
            {unit: found for unit, found in after.items() if found is not None},
        )

    @cached_property
    def _ends(self) -> tuple[str | None, str | None]:
        """The revisions of both sides; empty for the index, None for the work tree."""
        if not self._revisions:
            return ("HEAD", "") if self._cached else ("", None)
        first, dots, last = self._revisions[0].partition("..")
        old = first or "HEAD"
        if dots and last.startswith("."):
            answer = self._repository.git("merge-base", old, last[1:] or "HEAD", ok=(0, 1))
            old = answer.decode().split("\n")[0] or old
        if dots or len(self._revisions) > 1:
            return old, (last.lstrip(".") if dots else self._revisions[1]) or "HEAD"
        return old, "" if self._cached else None

    @cached_property
    def _known(self) -> frozenset[str]:
        """The objects that the manifests of the old side name, whichever checkpoints they are."""
        old = self._ends[0]
        if not old or self._repository.resolve(f"{old}^{{tree}}") is None:
            return frozenset()
        return frozenset(objects_in(self._repository, old))


def _manifest(versions: _Versions) -> Manifest | None:
    parts = [
        (path, one.manifest)
        for path, one in versions.items()
        if one.manifest is not None and one.recognised
    ]
    if not parts:
        return None
    return parts[0][1] if len(parts) == 1 else sharded.join(parts)


def _opened(pair: Pair, old: _Versions, new: _Versions, contents: Contents) -> Pair:
    """The pair with both its sides; none stays open if one cannot be."""
    sides: list[dict[str, Side]] = [{}, {}]
    try:
        for opened, versions in zip(sides, (old, new), strict=True):
            for path, content in versions.items():
                if (side := contents.open(content)) is not None:
                    opened[path] = side
    except BaseException as error:
        for side in (side for opened in sides for side in opened.values()):
            side.close()
        if isinstance(error, OSError):
            raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error
        raise
    whole = sharded.names_model(pair.path)
    return replace(pair, old=_joined(sides[0], whole), new=_joined(sides[1], whole))


def _joined(sides: Mapping[str, Side], whole: bool) -> Side | None:
    shards = sorted(sides.items(), key=lambda item: natural_key(item[0]))
    if not whole or not shards:
        return next(iter(sides.values()), None)
    return sharded.JoinedSide(shards)


def _remarks(old: Sequence[Content], new: Sequence[Content]) -> Iterator[str]:
    """How the versions are stored, where one of them is not stored by tensor."""
    for name, versions in (("old", old), ("new", new)):
        for one in versions:
            if not one.is_here:
                yield f"not compared: the {name} version is {one.words} ({LFS_FETCH})"
                return
    before = next((one for one in old if one.storage in ("git-lfs", "whole")), None)
    after = next((one for one in new if one.storage in ("git-lfs", "whole")), None)
    if after is not None:
        now = "now " if old and (before is None or before.storage != after.storage) else ""
        yield f"{now}{after.words}"
    if before is not None and new and (after is None or before.storage != after.storage):
        yield f"was {before.words}"


def two_blobs(repository: Repository, old: str, new: str) -> Pair:
    """Two versions given as `REV:PATH`, each, of one checkpoint or of two.

    Raises:
        UsageError: one is no file.
    """
    contents = Contents(repository)
    found: list[Content] = []
    for name in (old, new):
        path = name.partition(":")[2]
        if sharded.names_model(path):
            raise UsageError(
                f"{name!r} stands for several files",
                hint=TWO_VERSIONS,
            )
        content = contents.get(repository.resolve(name), path)
        if content is None:
            raise UsageError(f"{name!r} is not a file, or an empty one")
        found.append(content)
    before, after = found
    was = before.name if before.name != after.name else None
    configs = (
        partial(in_revision, repository, old.partition(":")[0], before.name),
        partial(in_revision, repository, new.partition(":")[0], after.name),
    )
    pair = Pair(after.name, None, None, was, tuple(_remarks([before], [after])), configs=configs)
    if not (before.is_here and after.is_here):
        return replace(pair, compared=False)
    return _opened(pair, {before.name: before}, {after.name: after}, contents)


def two_files(old: Path, new: Path, blocks: Blocks | None) -> Pair:
    """Two files anywhere; checkpoints of any container, or manifests where `blocks` are known.

    Raises:
        UsageError: one cannot be read.
    """
    sides: list[Side | None] = []
    try:
        for path in (old, new):
            try:
                sides.append(open_side(path, blocks))
            except OSError as error:
                raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except BaseException:
        for side in sides:
            if side is not None:
                side.close()
        raise
    configs = partial(in_file, old), partial(in_file, new)
    return Pair(str(new), sides[0], sides[1], configs=configs)
