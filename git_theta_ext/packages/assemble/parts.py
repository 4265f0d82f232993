"""The parts of a recipe, found and opened: at the locked commits, or at what their versions are."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.read import Checkpoint, open_checkpoint
from git_theta_ext.core import advice
from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import Entry
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.packages import sources
from git_theta_ext.packages.assemble.locked import LockedPart
from git_theta_ext.packages.assemble.recipe_file import Part
from git_theta_ext.packages.cache import Cache, url_of
from git_theta_ext.packages.fetched import Package, fetch, marker_of, remote_refs
from git_theta_ext.packages.files import files_of
from git_theta_ext.packages.parts import models_of
from git_theta_ext.packages.remote import TAGS
from git_theta_ext.packages.sources import Source
from git_theta_ext.packages.trimming import trim_to_limit


@dataclass(frozen=True)
class Opened:
    """A part whose version is known: where its objects are, and its checkpoint."""

    part: Part
    locked: LockedPart
    repository: Repository
    checkpoint: Checkpoint

    @cached_property
    def blocks(self) -> Blocks:
        """Where its tensors are rebuilt from; what is missing is fetched."""
        return Blocks.open(self.repository)

    @cached_property
    def tensors(self) -> Mapping[str, Entry]:
        """Its tensors by name."""
        return {name: self.checkpoint.entry(name) for name in self.checkpoint}


class Opener:
    """Finds the parts of a recipe: versions of other repositories in the cache, or of this one.

    Until its end what it opened stays in the cache; then the cache is cut to its limit.
    """

    def __init__(
        self,
        repository: Repository,
        folder: Path,
        *,
        offline: bool = False,
        refresh: bool = False,
        fixed: bool = False,
    ) -> None:
        """Nothing is fetched before it is asked for.

        Args:
            repository: this one.
            folder: of the recipe, from which relative paths count.
            offline: no remote is asked.
            refresh: remotes are asked what a tag is, though it is in the cache.
            fixed: a tag that is not what it was locked as is an error.
        """
        self._repository = repository
        self._folder = folder
        self._offline, self._refresh, self._fixed = offline, refresh, fixed
        self._cache = Cache.open()
        self._using = ExitStack()
        self._uses = False

    def __enter__(self) -> Opener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the cache."""
        self._using.close()
        if self._uses and kind is None:
            trim_to_limit(self._cache)

    def version_of(self, part: Part) -> tuple[str, str | None]:
        """Which version of which repository a part names: parts of the same one go together.

        Raises:
            UsageError: it names none.
        """
        source = self._source(part)
        if source is None:
            return "", part.source.partition(":")[0]
        return source.url, source.version

    def _source(self, part: Part) -> Source | None:
        """What a part names of another repository; None where it is a version of this one."""
        text = part.source
        if _PATH.match(text):
            return sources.parse(os.path.join(self._folder, os.path.expanduser(text)))
        return sources.parse(text) if sources.is_source(text) else None

    def open(self, part: Part, before: LockedPart | None, beside: LockedPart | None) -> Opened:
        """A part at the commit that it is locked to, or at what its version is now.

        Args:
            part: what is wanted.
            before: what it is locked to; None where it is not.
            beside: another part of the same version and repository, whose commit it then is.

        Raises:
            UsageError: there is no such version or checkpoint, it is not stored by tensor, or its
                tag moved.
            ThetaError: it is not to be had.
        """
        source = self._source(part)
        if source is None:
            opened = _open_here(self._repository, part, before or beside)
        else:
            opened = self._open_there(part, source, before, beside)
        if before is not None:
            _require_as_locked(opened.locked, before)
            if self._fixed:
                self._require_unmoved(opened)
        return opened

    def _open_there(
        self, part: Part, source: Source, before: LockedPart | None, beside: LockedPart | None
    ) -> Opened:
        """As `open`, of another repository; it stays in the cache until the end."""
        if not self._uses:
            self._using.enter_context(self._cache.using())
            self._uses = True
        known = before or beside
        package = self._fetched(part, source, known)
        asked = source.path
        if before is not None and (asked is None or f"{before.path}/".startswith(f"{asked}/")):
            path = before.path
        else:
            path = _path_in(part, package, asked)
        url = source.url if _PATH.match(part.source) is None else _url_of(part.source, source)
        ref = package.ref if known is None else known.ref
        locked = LockedPart(
            part.name, part.source, url, source.version, ref, package.commit, path,
            _manifest_at(package.repository, package.commit, path),
        )  # fmt: skip
        return _opened(package.repository, part, locked)

    def _fetched(self, part: Part, source: Source, known: LockedPart | None) -> Package:
        """The package of a part; if its remote had to be asked, whether its tag was moved."""
        if known is None:
            return fetch(
                self._cache, source.url, source.version,
                offline=self._offline, refresh=self._refresh,
            )  # fmt: skip
        there = self._cache.find(source.url)
        here = there is not None and marker_of(there, known.commit).is_file()
        moved = None if here or self._fixed else self._moved(source.url, known)
        try:
            package = fetch(
                self._cache, source.url, source.version, commit=known.commit, offline=self._offline
            )
        except UsageError as error:
            raise UsageError(
                f"part {part.name}: {moved or error.message}: the commit that is locked is not "
                "there any more",
                hint=_TAKE.format(part.name),
            ) from error
        if moved is not None:
            print(
                f"git theta: warning: part {part.name}: {moved}: the lock stays as it is",
                file=sys.stderr,
            )
        return package

    def _moved(self, url: str | None, locked: LockedPart) -> str | None:
        """What became of a tag that is another commit than the one that is locked.

        `url` is that of its repository; None: this one.
        """
        if locked.ref is None or not locked.ref.startswith(TAGS) or self._offline:
            return None
        if url is None:
            now = self._repository.resolve(f"{locked.ref}^{{commit}}")
        else:
            now = remote_refs(self._cache, url).get(locked.ref)
        if now == locked.commit:
            return None
        return (
            f"the tag {printable(locked.ref.removeprefix(TAGS))} was {locked.commit[:12]} when it "
            f"was locked, and is {'gone' if now is None else f'{now[:12]} now'}"
        )

    def _require_unmoved(self, opened: Opened) -> None:
        """Refuse a part whose tag is another commit now than the one that is locked."""
        is_here = opened.repository is self._repository
        moved = self._moved(None if is_here else url_of(opened.repository), opened.locked)
        if moved is not None:
            name = opened.locked.name
            raise UsageError(f"part {name}: {moved} (--locked)", hint=_TAKE.format(name))


def _require_as_locked(found: LockedPart, before: LockedPart) -> None:
    """Refuse a lock that was edited by hand, or merged so that it names what no commit has."""
    if found.path == before.path and found.manifest != before.manifest:
        raise UsageError(
            f"part {found.name}: {printable(found.path)} of commit {found.commit[:12]} is "
            f"{(found.manifest or 'nothing')[:12]}, and the lock says "
            f"{(before.manifest or 'nothing')[:12]}",
            hint=_TAKE.format(found.name),
        )


_TAKE = "to take what it is now: git theta assemble RECIPE --update {}"

_PATH = re.compile(r"/|~/|\.{1,2}(?:[/\\@:]|$)|[A-Za-z]:[\\/]")
"""How a part begins that is a path on this machine."""


def _url_of(text: str, source: Source) -> str:
    """A path as the recipe has it, without version and path: others have it elsewhere."""
    version = "" if source.version is None else f"@{source.version}"
    return text.removesuffix("" if source.path is None else f":{source.path}").removesuffix(version)


def _path_in(part: Part, package: Package, path: str | None) -> str:
    """The one checkpoint that a package has at a path, or at all.

    Raises:
        UsageError: there is none, or several.
    """
    if path is not None and shards.names_model(path):
        return path
    models, others = models_of(files_of(package, path))
    if len(models) == 1:
        return models[0].path
    if models:
        names = ", ".join(printable(one.path) for one in models[:5])
        raise UsageError(
            f"part {part.name}: {package} has several checkpoints: {names}",
            hint=f"name one at the end of from: :{printable(models[0].path)}",
        )
    stored = next((one for one in others if one.kind == "lfs"), None)
    why = f": {printable(stored.path)} is stored by git-lfs" if stored is not None else ""
    raise UsageError(f"part {part.name}: {package} has no checkpoint stored by tensor{why}")


def _open_here(repository: Repository, part: Part, known: LockedPart | None) -> Opened:
    """Open a part that is another version of this repository: `REV:PATH`.

    Args:
        repository: this one.
        part: its `source` is the revision and the path, from the top.
        known: what has the commit that it is to be; None for what the revision is now.

    Raises:
        UsageError: there is no such version, or it is not stored by tensor.
        ManifestError: its manifest is damaged.
    """
    revision, colon, path = part.source.partition(":")
    if not revision or not colon or not path:
        raise UsageError(
            f"part {part.name}: from is {part.source!r}: neither a URL, as "
            "https://host/org/model@v1.0:model.safetensors, nor a version here, as "
            "v1.0:model.safetensors"
        )
    commit, ref = (None, None) if known is None else (known.commit, known.ref)
    if commit is None:
        commit = repository.resolve(f"{revision}^{{commit}}")
        name = repository.git("rev-parse", "--symbolic-full-name", _word(revision), ok=(0, 128))
        ref = name.decode().strip() or None
    if commit is None:
        raise UsageError(
            f"part {part.name}: there is no revision {revision!r} here", hint="git tag"
        )
    oid = _manifest_at(repository, commit, path)
    locked = LockedPart(part.name, part.source, "", revision, ref, commit, path, oid)
    return _opened(repository, part, locked)


def _word(revision: str) -> str:
    """A revision as `rev-parse` is asked for the ref that it names: never an option."""
    return f"./{revision}" if revision.startswith("-") else revision


def _manifest_at(repository: Repository, commit: str, path: str) -> str | None:
    """The id of the blob at a path of a commit; None for a model in shards."""
    return None if shards.names_model(path) else repository.blob_at(commit, path)


def _opened(repository: Repository, part: Part, locked: LockedPart) -> Opened:
    """A part at a commit that is at hand.

    Raises:
        UsageError: there is no such file, or it is not stored by tensor.
        ManifestError: its manifest is damaged.
    """
    name = f"{locked.commit}:{locked.path}"
    try:
        return Opened(part, locked, repository, open_checkpoint(repository, name))
    except (UsageError, ManifestError) as error:
        message = error.message.replace(name, f"{locked.where}:{locked.path}")
        raise type(error)(
            f"part {part.name}: {message}",
            hint=error.hint if error.hint != advice.TRACK_FIRST else None,
        ) from error
