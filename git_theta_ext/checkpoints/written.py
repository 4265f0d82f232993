"""Manifests of checkpoints that a command wrote into the work tree, and that nothing names yet.

A settled conflict is written into the work tree, and Git asks for its manifest when it is added.
The one that it was made from says how it came about: a merge by a recipe, which the bytes do not
show. So it is kept until then, in Git's folder.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import ManifestError
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import MAX_BYTES, Manifest
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from git_theta_ext.objects.store.where import store_of

_KEPT = 50
"""Beyond this number the oldest are removed."""


def note(repository: Repository, path: str, manifest: Manifest) -> None:
    """Keep the manifest of a file that was just written; where that cannot be, nothing is lost.

    Args:
        repository: one with a work tree.
        path: of the checkpoint, from the top of the work tree.
        manifest: what it was made from.
    """
    place = _place(repository, path)
    with suppress(OSError, ManifestError):
        place.parent.mkdir(exist_ok=True)
        files.replace_file(place, manifest_bytes(manifest), mode=0o600)
        found = sorted(place.parent.iterdir(), key=lambda one: one.stat().st_mtime_ns)
        for old in found[:-_KEPT]:
            old.unlink()


def noted(repository: Repository, path: str) -> Manifest | None:
    """The manifest that was kept for a path, if all of its objects are in the store.

    They are made young then, for a new manifest is about to name them.
    """
    try:
        with files.own(_place(repository, path)) as file:
            manifest = parse_manifest(file.read(MAX_BYTES))
    except (OSError, ManifestError):
        return None
    store = store_of(repository)
    needed = {ref.oid: ref.size for ref in manifest.objects()}
    return manifest if all(store.keep(*one) for one in needed.items()) else None


def _place(repository: Repository, path: str) -> Path:
    name = hashlib.sha256(os.fsencode(path)).hexdigest()
    return repository.git_dir / "theta-written" / name
