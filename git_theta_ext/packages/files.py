"""Which files a package has, how each is stored, and where it is written."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from git_theta_ext.checkpoints import shards
from git_theta_ext.core import advice
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import nearest, printable
from git_theta_ext.git.repository import Repository, TreeEntry
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer.pointer_files import lfs_sizes
from git_theta_ext.packages.fetched import Package, fetch_blobs, missing_blobs

Kind = Literal["checkpoint", "lfs", "raw"]

_LINK, _EXECUTABLE = "120000", "100755"
_MOST_LINKS = 40
_LINK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file of a package: its path from the top of the repository, mode, kind and Git's blob.

    A `checkpoint` is stored as a manifest, `lfs` as a pointer of Git LFS, `raw` as it is. `place`
    is where it is written, from the folder of the package.
    """

    path: str
    mode: str
    kind: Kind
    blob: str
    place: str = ""

    @property
    def executable(self) -> bool:
        """Whether it may be run."""
        return self.mode == _EXECUTABLE


def files_of(package: Package, path: str | None) -> list[PackageFile]:
    """The files of a package, in Git's order.

    Without a path all but those that tell Git and this program what to do (`.gitattributes`,
    `.lfsconfig` and so on). A file is written under its last name, and what is in a folder as it
    lies there. An index or a pattern of a sharded model stands for its shards too. A link is the
    file that it leads to.

    Raises:
        UsageError: there is no such path, or a link leads to no file of this version.
        TransferError: the remote does not give what is needed to tell.
    """
    entries = package.repository.tree(package.commit, recursive=True)
    chosen = _chosen(package, entries, path)
    links = [one.oid for one, _ in chosen if one.mode == _LINK]
    fetch_blobs(package.repository, package.url, links, [package.commit])
    tree = {one.path: one for one in entries}
    found = []
    for entry, place in chosen:
        target = _target(package, tree, entry) if entry.mode == _LINK else entry
        found.append(PackageFile(entry.path, target.mode, "raw", target.oid, place))
    kinds = _kinds(package.repository, package.commit, {one.blob for one in found})
    return [replace(one, kind=kinds.get(one.blob, "raw")) for one in found]


def is_control(path: str) -> bool:
    """Whether a file tells Git, its hosts or this program what to do, and is none of the model."""
    parts = path.split("/")
    return any(part.startswith(".git") for part in parts) or parts[-1] in _CONTROL


_CONTROL = {".lfsconfig", ".theta.toml", ".mailmap"}


def _chosen(
    package: Package, entries: Iterable[TreeEntry], path: str | None
) -> list[tuple[TreeEntry, str]]:
    """The files that a path stands for, each with its place."""
    blobs = [one for one in entries if one.kind == "blob"]
    if path is None:
        return [(one, one.path) for one in blobs if not is_control(one.path)]
    if shards.names_model(path):
        folder = posixpath.dirname(path)
        names = {one for one in (path,) if "*" not in one and "?" not in one}
        names |= set(shards.paths_of(path, [one.path for one in blobs]))
        found = [one for one in blobs if one.path in names]
        if found:
            return [(one, posixpath.relpath(one.path, folder or ".")) for one in found]
    found = [one for one in blobs if one.path == path]
    if found:
        return [(found[0], posixpath.basename(path))]
    inside = [one for one in blobs if one.path.startswith(f"{path}/")]
    if inside:
        return [(one, one.path.removeprefix(f"{path}/")) for one in inside]
    raise UsageError(f"{package} has no {printable(path)!r}", hint=_near(blobs, path))


def _near(entries: list[TreeEntry], path: str) -> str | None:
    """What may have been meant by a path that is not there."""
    names = [one.path for one in entries if not is_control(one.path)]
    near = nearest(path, names) if names else None
    if near is not None:
        return advice.with_name("did you mean: FILE", near)
    return f"it has: {', '.join(map(printable, names[:10]))}" if names else None


def _target(package: Package, tree: Mapping[str, TreeEntry], entry: TreeEntry) -> TreeEntry:
    """The file that a link leads to, through others, inside the repository."""
    here = entry
    for _ in range(_MOST_LINKS):
        text = package.repository.blob(here.oid)
        path = text[:_LINK_BYTES].decode("utf-8", "surrogateescape")
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(here.path), path))
        found = None if path.startswith("/") else tree.get(joined)
        if found is None or found.kind != "blob":
            break
        if found.mode != _LINK:
            return found
        here = found
    raise UsageError(
        f"{printable(entry.path)!r} of {package} is a symbolic link that leads to no file of it",
        hint="name the file or the folder that you want: git theta get URL@VERSION:PATH",
    )


def _kinds(repository: Repository, commit: str, blobs: set[str]) -> dict[str, Kind]:
    """How those blobs are stored that are here; pointers and manifests are, once fetched."""
    here = sorted(blobs - missing_blobs(repository, [commit]))
    found: dict[str, Kind] = dict.fromkeys(lfs_sizes(repository, here), "lfs")
    found.update((oid, "checkpoint") for oid, _ in reachable.manifest_texts(repository, here))
    return found
