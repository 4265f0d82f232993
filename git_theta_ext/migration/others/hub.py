"""The folder of one model in the cache of the Hugging Face Hub: its snapshots become commits.

`blobs/ETAG` holds bytes, `snapshots/COMMIT/PATH` links to them, `refs/NAME` names a commit. An etag
is the SHA-256 of a file of git-lfs, or the id of a blob of Git, so that files are verified. Source:
huggingface_hub, "Understand caching" (manage-cache) and file_download.py.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext import formats
from git_theta_ext.core import files
from git_theta_ext.core.errors import CorruptObjectError, FormatError, StoreError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.layout import opaque
from git_theta_ext.formats.layout.source import FileSource
from git_theta_ext.git.object_pipes import Item, folder_of, tree_bytes
from git_theta_ext.git.process import lines_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.work_tree import parts_of
from git_theta_ext.migration.headers import Commit
from git_theta_ext.migration.importing import ATTRIBUTES, Importing
from git_theta_ext.migration.refs import Update
from git_theta_ext.migration.rewrite import Contents
from git_theta_ext.migration.selection import Selection

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SUBJECT = re.compile(r"Snapshot ([0-9a-f]{40}) of (.*)")
_LEVELS = 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A commit of the Hub as far as it was downloaded, and when (seconds since 1970)."""

    commit: str
    folder: Path
    time: int


def _models_near(folder: Path) -> str | None:
    """What may have been meant by the folder of a whole cache, or by the name of a model."""
    hub = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser() / "hub"
    places = [*folder.glob("models--*"), *folder.glob("hub/models--*")]
    places = sorted(places) or [hub / f"models--{'--'.join(folder.parts)}"]
    shown = [printable(str(one)) for one in places[:10] if (one / "snapshots").is_dir()]
    return f"one of: {', '.join(shown)}" if shown else None


class Model:
    """A folder such as `models--org--name`."""

    def __init__(self, folder: Path) -> None:
        """Look at it.

        Raises:
            UsageError: it is no such folder.
        """
        self.folder = folder
        if not (folder / "snapshots").is_dir():
            raise UsageError(
                f"{printable(str(folder))} has no snapshots: it is no model of a cache",
                hint=_models_near(folder) or "such as ~/.cache/huggingface/hub/models--gpt2",
            )
        parts = folder.resolve().name.split("--")
        self.name = "/".join(parts[1:]) or folder.resolve().name

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, the oldest download first."""
        found = [
            Snapshot(one.name, one, int(one.stat().st_mtime))
            for one in (self.folder / "snapshots").iterdir()
            if _COMMIT.fullmatch(one.name) and one.is_dir()
        ]
        return sorted(found, key=lambda one: (one.time, one.commit))

    def refs(self) -> dict[str, str]:
        """The names that refs have, and the commits that they name.

        Raises:
            FormatError: one cannot be read, or is no regular file.
        """
        top = self.folder / "refs"
        found = {}
        for inside, path in _below(top) if top.exists() else ():
            try:
                text = files.read_part(path, 0, 100).decode("ascii", "replace").strip()
            except OSError as error:
                raise _unreadable(path, error) from error
            if _COMMIT.fullmatch(text):
                found[inside] = text
        return found

    def files_of(self, snapshot: Snapshot) -> dict[str, Path]:
        """The files of a snapshot by their paths, each as it lies in the cache.

        Raises:
            FormatError: a link leads out of the cache, or to no file, or a name is none that Git
                takes.
        """
        real = Path(os.path.realpath(self.folder))
        found = {}
        for inside, path in _below(snapshot.folder):
            target = Path(os.path.realpath(path))
            if not target.is_relative_to(real) or inside.count("/") > _LEVELS:
                raise FormatError(f"{printable(str(path))} leads out of {real}")
            try:
                parts_of(inside)
            except StoreError as error:
                raise FormatError(error.message) from error
            if not target.is_file():
                raise FormatError(f"{printable(str(path))} leads to no file")
            found[inside] = target
        return found


def _below(top: Path) -> Iterator[tuple[str, Path]]:
    """What is in a folder and those below it, and no folder: links to folders, too.

    Raises:
        FormatError: a folder cannot be read.
    """

    def stop(error: OSError) -> None:
        raise _unreadable(top, error) from error

    for folder, folders, names in os.walk(top, onerror=stop):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted([*names, *links]):
            path = Path(folder, name)
            yield path.relative_to(top).as_posix(), path


def _unreadable(path: Path, error: OSError) -> FormatError:
    return FormatError(f"{error.filename or path} cannot be read: {error.strerror or error}")


@contextmanager
def verified(path: Path) -> Iterator[Path]:
    """A file of the cache whose name, if it is a hash, is that of its bytes.

    Raises:
        CorruptObjectError: it is not.
    """
    length = path.stat().st_size
    digest = None
    if re.fullmatch("[0-9a-f]{64}", path.name):
        digest = hashlib.sha256()
    elif _COMMIT.fullmatch(path.name):
        digest = hashlib.sha1(b"blob %d\0" % length, usedforsecurity=False)
    if digest is not None:
        for piece in files.pieces_of(path):
            digest.update(piece)
        if digest.hexdigest() != path.name:
            raise CorruptObjectError(f"{path} is damaged: its hash is {digest.hexdigest()}")
    yield path


def known(repository: Repository, prefix: str, model: Model) -> dict[str, str]:
    """The snapshots that branches of a prefix have already: commit of the Hub -> commit here.

    The last one is the newest.

    Raises:
        UsageError: they have those of another model, on top of which this one would come.
    """
    answer = repository.git(
        "log", "--topo-order", "--reverse", "--format=%H %s", f"--branches={prefix}*"
    )
    found = {}
    for line in lines_of(answer):
        oid, _, subject = line.partition(" ")
        match = _SUBJECT.fullmatch(subject)
        if match and match[2] != model.name:
            raise UsageError(
                f"the branches {printable(prefix)}* are of {printable(match[2])}",
                hint="name other branches: --prefix NAME/",
            )
        if match:
            found[match[1]] = oid
    return found


def lacks(repository: Repository, commit: str, model: Model, snapshot: Snapshot) -> bool:
    """Whether a snapshot has files now that its commit has not: they were downloaded since.

    Args:
        repository: has the commit.
        commit: what was made of the snapshot.
        model: whose it is.
        snapshot: as it is now.

    Raises:
        FormatError: as for `Model.files_of`.
    """
    return not model.files_of(snapshot).keys() <= repository.blobs_at(commit).keys()


class Committing:
    """Makes commits of snapshots, each on top of the one before it."""

    def __init__(self, repository: Repository, importing: Importing, model: Model) -> None:
        """`importing` stores checkpoints, and tracks them."""
        self._repository, self._importing, self._model = repository, importing, model
        self._selection: Selection = importing.found.selection

    def commit(self, snapshot: Snapshot, parent: str | None) -> str:
        """The id of a new commit of a snapshot; errors as for `Model.files_of`, `verified`."""
        pipes = self._importing.pipes
        before = []
        if parent is not None:
            tree = self._repository.git("rev-parse", f"{parent}^{{tree}}").decode().strip()
            before = [tree]
        self._importing.begin(Commit("", (), b""), before)
        blobs, moved = {}, []
        for path, place in self._model.files_of(snapshot).items():
            if self._is_meant(path, place):
                key = f"hub {place.name} {place.stat().st_size} {path}"
                blobs[path] = self._importing.stored(key, path, verified(place))
                moved.append(path)
            else:
                with verified(place) as file:
                    blobs[path] = pipes.write_file("blob", file)
        self._track_below(blobs, moved)
        contents = Contents("", {one.name: one for one in folder_of(pipes, blobs)}, moved)
        self._importing.top(contents, frozenset())
        tree = pipes.write("tree", tree_bytes(list(contents.items.values())))
        words = f"Snapshot {snapshot.commit} of {self._model.name}\n"
        date = {f"GIT_{who}_DATE": f"@{snapshot.time} +0000" for who in ("AUTHOR", "COMMITTER")}
        parents = [] if parent is None else ["-p", parent]
        made = self._repository.git(
            "commit-tree", tree, *parents, "-F", "-", stdin=words.encode(), env=date
        )
        return made.decode().strip()

    def _track_below(self, blobs: dict[str, str], moved: Sequence[str]) -> None:
        """Add lines to the `.gitattributes` of folders that would overrule those at the top."""
        name = os.fsdecode(ATTRIBUTES)
        for path in [one for one in blobs if one.endswith(f"/{name}")]:
            folder = path.removesuffix(f"/{name}")
            items = {ATTRIBUTES: Item(b"100644", ATTRIBUTES, blobs[path])}
            below = [one for one in moved if one.startswith(f"{folder}/")]
            contents = Contents(folder, items, below)
            self._importing.track_below(contents)
            blobs[path] = contents.items[ATTRIBUTES].oid

    def _is_meant(self, path: str, place: Path) -> bool:
        if not self._selection.names(path) or not place.stat().st_size:
            return False
        if not self._selection.by_content(path):
            return True
        with FileSource(place) as source:
            return formats.sniff(source) != opaque.NAME


def updates(
    repository: Repository,
    prefix: str,
    wanted: Mapping[str, str],
    made: Mapping[str, str],
    ours: Collection[str],
) -> list[Update]:
    """How branches move to the commits that refs of the cache name.

    Args:
        repository: has the branches.
        prefix: of their names.
        wanted: the refs of the cache and the commits of the Hub that they name.
        made: commits of the Hub and what they are here.
        ours: all commits that were made of them, which branches may leave.

    Raises:
        UsageError: a branch has commits of its own, is checked out, or cannot have its name.
    """
    found = []
    for name, commit in sorted(wanted.items()):
        ref = f"refs/heads/{prefix}{name}"
        if not repository.git("check-ref-format", "--branch", ref[11:], ok=(0, 1, 128)).strip():
            raise UsageError(f"{printable(prefix + name)} is no name for a branch")
        new = made.get(commit)
        if new is None:
            continue
        old = repository.resolve(ref)
        if old == new:
            continue
        if old is not None and (old not in ours or repository.branch("HEAD") == ref):
            raise UsageError(
                f"{printable(ref)} has commits of its own, or is checked out; it stays",
                hint="name other branches: --prefix NAME/",
            )
        found.append(Update(ref, old or "0" * len(new), new))
    return found
