"""Other manifests of the same checkpoints: those of the index, and what is staged in their place.

The checkpoints of the work tree stay as they are, and Git finds them to be what the index says.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from git_theta_ext.checkpoints.memo import note, noted
from git_theta_ext.checkpoints.placed import manifests_in_work_tree
from git_theta_ext.core.errors import ManifestError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.paths import advise
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.trees import Row, restage, store_blob
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import manifest_bytes
from git_theta_ext.objects.store import reachable


@dataclass(frozen=True, slots=True)
class Staged:
    """A checkpoint in the index: its path from the top, its mode, and its manifest."""

    path: str
    mode: str
    manifest: Manifest


def staged(repository: Repository, pathspecs: Sequence[str] = ()) -> list[Staged]:
    """The tracked checkpoints of the index that are stored tensor by tensor.

    Args:
        repository: one with a work tree.
        pathspecs: as the user typed them; all checkpoints where there are none.

    Raises:
        UsageError: nothing tracked matches, or one is in conflict.
        ManifestError: a manifest is damaged.
    """
    entries = repository.tracked()
    if pathspecs:
        chosen = {entry.path for entry in repository.index(*pathspecs)}
        entries = [entry for entry in entries if entry.path in chosen]
        if not entries:
            shown = " ".join(printable(word) for word in pathspecs)
            raise UsageError(f"no tracked checkpoint matches {shown}", hint="git theta ls-files")
    for entry in entries:
        if entry.stage:
            raise UsageError(
                f"{printable(entry.path)} is in conflict: settle that first",
                hint="git theta status",
            )
    manifests = dict(reachable.manifests(repository, [entry.oid for entry in entries]))
    found = []
    for entry in entries:
        manifest = manifests.get(entry.oid)
        if isinstance(manifest, ManifestError):
            raise ManifestError(f"{entry.path}: {manifest.message}", hint=manifest.hint)
        if manifest is not None:
            found.append(Staged(entry.path, entry.mode, manifest))
    return found


def require_committed(repository: Repository, paths: Collection[str]) -> None:
    """Refuse paths of which the index has another version than HEAD.

    Raises:
        UsageError: there is one, or no commit yet.
    """
    if repository.resolve("HEAD") is None:
        raise UsageError("there is no commit here yet")
    answer = repository.git("diff-index", "--cached", "--name-only", "--no-renames", "-z", "HEAD")
    changed = sorted({os.fsdecode(name) for name in answer.split(b"\0")}.intersection(paths))
    if changed:
        name = changed[0]
        raise UsageError(
            f"{printable(name)} has staged changes that are not committed",
            hint=advise(repository, "git restore --staged FILE   (or commit it), then again", name),
        )


def replace_staged(
    repository: Repository, old: Sequence[Staged], new: Mapping[str, Manifest]
) -> None:
    """Stage other manifests of checkpoints that stay as they are.

    A file of the work tree that is the manifest itself, as after a checkout without smudge, becomes
    the new one. No other file is touched, and none is added that was modified.

    Args:
        repository: one with a work tree, in which the filter is set up.
        old: what `staged` gave.
        new: the manifests by path; every object that they name is in the store.

    Raises:
        RepositoryError: the index is locked or cannot be written.
        StoreError: a manifest in the work tree cannot be replaced.
    """
    before = {one.path: one for one in old if one.path in new}
    unwritten = manifests_in_work_tree(repository, before)
    texts = {path: manifest_bytes(manifest) for path, manifest in new.items()}
    restage(
        repository,
        [Row(before[path].mode, store_blob(repository, text), path)
         for path, text in texts.items()],
    )  # fmt: skip
    for path, manifest in new.items():
        if noted(repository, path) == before[path].manifest:
            note(repository, path, manifest)  # or Git would be told what the file was made from
    tree = WorkTree(repository.top)
    for path, text in unwritten.items():
        if text == manifest_bytes(before[path].manifest):
            tree.replace(path, texts[path])
    # Compares the files with the index, and remembers their times; it never stages any.
    repository.git("update-index", "-q", "--refresh", ok=(0, 1))
