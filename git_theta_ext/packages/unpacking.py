"""Files of a package on their way into a folder, where some may be already."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from git_theta_ext.checkpoints.write import container_of
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import plural, printable
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.objects.store.store import sha256_of
from git_theta_ext.packages.cache import Cache
from git_theta_ext.packages.fetched import Package, Progress
from git_theta_ext.packages.files import PackageFile, files_of
from git_theta_ext.packages.parts import (
    Model,
    Part,
    models_of,
    open_model,
    own_container,
    planned,
    refuse_whole,
)
from git_theta_ext.packages.placing import amount, place_part, placing
from git_theta_ext.packages.sameness import is_file
from git_theta_ext.packages.sources import Source
from git_theta_ext.packages.standing import Placed, Record, state_of
from git_theta_ext.packages.values import (
    BYTE_FOR_BYTE,
    Got,
    How,
    Target,
    Wanted,
    Watch,
    Written,
)

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: see `getting.get`. `what` names it in records, whatever the version."""

    source: Source
    output: Path | None
    how: How
    what: str


def unpack(cache: Cache, package: Package, request: Request, watch: Watch | None) -> Got:
    """Write what was asked for, as far as it does not stand there as it is.

    Args:
        cache: where the record of the folder is.
        package: what was fetched.
        request: what of it, and where to.
        watch: shows how far it is.

    Raises:
        UsageError: there is no such path, or files there are others.
        SignatureError: something was not signed, or by somebody else.
        TransferError, MissingObjectError, StoreError.
    """
    files = files_of(package, request.source.path)
    how = request.how
    if how.trust is not None:
        from git_theta_ext.packages.release.versions import verify_package

        patterns = how.wanted.tensors
        verify_package(package, files, how.trust, tensors=patterns, signature=how.signature)
    wanted = request.how.wanted or _by_name(package, files, request)
    models, rest = models_of(files) if wanted else ([], files)
    refuse_whole(package, rest if wanted else [])
    alone = models if wanted and not rest else []
    target = _target(request, files, alone)
    if target.name is not None:
        models = [Model(one.path, target.name, given=True) for one in models]
        rest = [] if wanted else [replace(files[0], place=target.name)]
    parts = planned(package, models, wanted) if wanted else []
    record = Record.read(cache.root, target.folder, f"{request.what}{target.name or ''}")
    return _Getting(package, target, record).run(rest, parts, request.how, watch)


def _by_name(package: Package, files: Sequence[PackageFile], request: Request) -> Wanted:
    """What a name such as `model.npz` asks for, where the one checkpoint is of another kind."""
    output = request.output
    one = [file.path for file in files] == [request.source.path]
    if output is None or not one or files[0].kind != "checkpoint" or output.is_dir():
        return BYTE_FOR_BYTE
    named = container_of(output.name)
    own = own_container(open_model(package, Model(files[0].path, output.name)))
    return BYTE_FOR_BYTE if named in (None, own) else Wanted(container=named)


def _target(request: Request, files: Sequence[PackageFile], models: Sequence[Model]) -> Target:
    """Where the files go; `models` are those besides which there is no file."""
    path, output = request.source.path, request.output
    if output is None:
        return Target(Path(request.source.folder))
    one = path is not None and [file.path for file in files] == [path]
    one = one or (path is not None and len(models) == 1)
    if one and not output.is_dir():
        return Target(output.parent, output.name)
    return Target(output)


class _Getting:
    """Files of a package on their way into a folder, where some may be already."""

    def __init__(self, package: Package, target: Target, record: Record) -> None:
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
        return self._finished(written, set(identities))

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

    def _finished(self, written: Sequence[Written], names: set[str]) -> Got:
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
            self._package, self._target.path, self._record.listed(),
            tuple(one.path for one in written), tuple(removed), tuple(left),
            tuple(dict.fromkeys(one.remark for one in written if one.remark is not None)),
        )  # fmt: skip

    def _remove_empty(self, name: str) -> None:
        """Remove the folders of a file that was the last one in them."""
        with suppress(OSError):
            for folder in list(Path(name).parents)[:-1]:
                (self._folder / folder).rmdir()


def _silent(label: str, total: int) -> AbstractContextManager[Progress]:
    return nullcontext(lambda count: None)
