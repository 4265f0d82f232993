"""A version of a model into a folder, or a part of it into a file: what `git theta get` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.objects.store.store import sha256_of
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import Package, Progress, fetch
from git_theta_ext.packages.files import PackageFile, files_of
from git_theta_ext.packages.parts import (
    BYTE_FOR_BYTE,
    Model,
    Part,
    Wanted,
    models_of,
    planned,
    refuse_whole,
)
from git_theta_ext.packages.placing import Written, amount, place_part, placing
from git_theta_ext.packages.sources import Source
from git_theta_ext.packages.standing import Placed, Record, is_file, state_of

Watch = Callable[[str, int], AbstractContextManager[Progress]]
"""Given what is done and how many bytes it takes, gives what is called with those that are done."""

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class How:
    """How a version is got.

    `wanted` says which tensors, and as what. `force` replaces files that somebody changed;
    `offline` asks no remote; `refresh` asks it for a tag, too, that is here.
    """

    wanted: Wanted = BYTE_FOR_BYTE
    force: bool = False
    offline: bool = False
    refresh: bool = False


AS_IT_IS = How()


@dataclass(frozen=True, slots=True)
class Got:
    """What was got: `place` is the folder, or the file where one was asked for.

    `files` are all that belong to it, `written` those that were not there as they are. `removed`
    are those of an earlier version, `left` the ones among these that somebody changed.
    """

    package: Package
    place: Path
    files: tuple[Written, ...]
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Target:
    """Where it goes: a folder, and, if one file is meant, its name there."""

    folder: Path
    name: str | None = None

    @property
    def path(self) -> Path:
        return self.folder if self.name is None else self.folder / self.name


def get(
    cache: Cache,
    source: Source,
    output: Path | None = None,
    how: How = AS_IT_IS,
    watch: Watch | None = None,
) -> Got:
    """Have a version in a folder, or one file of it as a file.

    Args:
        cache: where it is fetched to.
        source: what is wanted.
        output: the folder; or the file, where the source's path is that of one file. By default the
            folder of the repository's name, in the current one.
        how: see there.
        watch: shows how far it is.

    Raises:
        UsageError: there is no such version or path, or files there are others; see `How.force`.
        TransferError, MissingObjectError, StoreError.
    """
    folder = output if output is not None else Path(source.name)
    if os.path.realpath(folder) == os.path.realpath(source.url):
        raise UsageError(
            f"{printable(str(folder))} is the repository itself, which is not written into",
            hint="name another folder: -o FOLDER",
        )
    with cache.using():
        package = fetch(cache, source.url, source.version, offline=how.offline, refresh=how.refresh)
        what = repr((source.url, source.path, how.wanted))
        known = _quickly(cache, package, source, output, what)
        if known is not None:
            return known
        files = files_of(package, source.path)
        models, rest = models_of(files) if how.wanted else ([], files)
        refuse_whole(package, rest if how.wanted else [])
        target = _target(source, files, models, output)
        if target.name is not None:
            models = [Model(one.path, target.name, given=True) for one in models]
            rest = [] if how.wanted else [replace(files[0], place=target.name)]
        parts = planned(package, models, how.wanted) if how.wanted else []
        record = Record.read(cache.root, target.folder, f"{what}{target.name or ''}")
        return _Getting(package, target, record).run(rest, parts, how, watch)


def _quickly(
    cache: Cache, package: Package, source: Source, output: Path | None, what: str
) -> Got | None:
    """What stands there whole and as it was written, without a look at the package's files."""
    folder = output if output is not None else Path(source.name)
    both = [_Target(folder)]
    if output is not None and not _is_folder(output):
        both.insert(0, _Target(output.parent, output.name))
    for target in both:
        record = Record.read(cache.root, target.folder, f"{what}{target.name or ''}")
        right = record.commit == package.commit and record.files
        if right and all(record.unchanged(target.folder, name) for name in record.files):
            return Got(package, target.path, _listed(record))
    return None


def _is_folder(output: Path) -> bool:
    return output.is_dir()


def _target(
    source: Source, files: Sequence[PackageFile], models: Sequence[Model], output: Path | None
) -> _Target:
    """Where the files go."""
    if output is None:
        return _Target(Path(source.name))
    one = source.path is not None and [file.path for file in files] == [source.path]
    one = one or (source.path is not None and len(models) == 1)
    if one and not _is_folder(output):
        return _Target(output.parent, output.name)
    return _Target(output)


class _Getting:
    """Files of a package on their way into a folder, where some may be already."""

    def __init__(self, package: Package, target: _Target, record: Record) -> None:
        self._package = package
        self._target = target
        self._folder = target.folder
        self._record = record

    def run(
        self, files: Sequence[PackageFile], parts: Sequence[Part], how: How, watch: Watch | None
    ) -> Got:
        """Write what does not stand there as it is; what is of an earlier version goes.

        Args:
            files: what is written byte for byte.
            parts: what is written of checkpoints.
            how: whether files of others are replaced.
            watch: shows how far it is.
        """
        identities = {one.place: f"{one.blob} {one.mode}" for one in files}
        identities |= {one.place: one.identity for one in parts}
        if len(identities) < len(files) + len(parts):
            raise UsageError("two of the files that are wanted would have the same name")
        files = [one for one in files if not self._stands(one.place, identities)]
        parts = [one for one in parts if not self._stands(one.place, identities)]
        places = [one.place for one in files] + [one.place for one in parts]
        strange = {one for one in places if self._is_strange(one)}
        same = [one for one in files if one.place in strange and self._is(one)]
        strange -= {one.place for one in same}
        if strange and not how.force:
            raise self._in_the_way(sorted(strange))
        for one in same:
            path = self._folder / one.place
            self._note(Written(one.place, path.stat().st_size, sha256_of(path)), identities)
        files = [one for one in files if one not in same]
        total = amount(self._package, files) if files else 0
        self._record.commit = ""  # until all of it is there
        written: list[Written] = []
        try:
            with (watch or _silent)("Getting", total + sum(one.size for one in parts)) as progress:
                for done in placing(self._package, files, self._folder, progress=progress):
                    written.append(done)
                    self._note(done, identities)
                for part in parts:
                    written.append(place_part(self._package, part, self._folder))
                    self._note(written[-1], identities)
                    progress(part.size)
        except BaseException:
            self._record.keep()
            raise
        return self._finished([one.path for one in written], set(identities))

    def _stands(self, name: str, identities: Mapping[str, str]) -> bool:
        """Whether a file of this very content was written there, and is as it was."""
        known = self._record.files.get(name)
        right = known is not None and known.identity == identities[name]
        return right and self._record.unchanged(self._folder, name)

    def _is_strange(self, name: str) -> bool:
        """Whether something is there that was not written here, or was changed since."""
        there = os.path.lexists(self._folder / name)
        return there and not self._record.unchanged(self._folder, name)

    def _is(self, file: PackageFile) -> bool:
        return is_file(self._package.repository, self._folder / file.place, file)

    def _in_the_way(self, names: Sequence[str]) -> UsageError:
        shown = "\n".join(f"  {printable(name)}" for name in names[:_SHOWN])
        more = f"\n  and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        return UsageError(
            f"{plural(len(names), 'file')} in {printable(str(self._folder))} would be replaced"
            f" that {'is' if len(names) == 1 else 'are'} not as {self._package} has"
            f" {'it' if len(names) == 1 else 'them'}:\n{shown}{more}",
            hint="move them away, get it elsewhere (-o FOLDER), or replace them: --force",
        )

    def _note(self, written: Written, identities: Mapping[str, str]) -> None:
        state = state_of(self._folder, written.path)
        if state is not None:
            placed = Placed(identities[written.path], written.size, written.sha256, state)
            self._record.files[written.path] = placed

    def _finished(self, written: Sequence[str], names: set[str]) -> Got:
        """Remove what an earlier version had more, and keep the record."""
        removed, left = [], []
        tree = WorkTree(self._folder)
        for name in sorted(set(self._record.files) - names):
            if self._record.unchanged(self._folder, name):
                tree.remove(name)
                self._remove_empty(name)
                removed.append(name)
            elif os.path.lexists(self._folder / name):
                left.append(name)
            del self._record.files[name]
        self._record.commit = self._package.commit
        self._record.keep()
        return Got(
            self._package, self._target.path, _listed(self._record), tuple(written),
            tuple(removed), tuple(left),
        )  # fmt: skip

    def _remove_empty(self, name: str) -> None:
        """Remove the folders of a file that was the last one in them."""
        with suppress(OSError):
            for folder in list(Path(name).parents)[:-1]:
                (self._folder / folder).rmdir()


def _listed(record: Record) -> tuple[Written, ...]:
    rows = sorted(record.files.items())
    return tuple(Written(name, one.size, one.sha256) for name, one in rows)


def _silent(label: str, total: int) -> AbstractContextManager[Progress]:
    return nullcontext(lambda count: None)
