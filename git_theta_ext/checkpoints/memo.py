"""A memory of answers, so that Git may ask the same thing often: a cache, safe to delete.

Git runs the clean filter five times for a `git stash` and again for every `git status` on a
modified checkpoint. Answers are kept in small files under `theta/memo`, each named by a hash of
everything that the answer depends on, so that a stale one is simply never asked for. Each begins
with a SHA-256 of its name and answer: what a disk damaged is no answer, for it would be committed.
Nor is what another user put there, who may write to the store (`theta.storage`).
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from git_theta_ext.core import files
from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.version import VERSION
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.chains import chain_lines, read_chain
from git_theta_ext.manifest.model import LATEST, MAX_BYTES, Block, Chain, Manifest
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from git_theta_ext.objects.store.where import store_of

_KEEP = 8192
"""Answers kept; the oldest beyond that are removed."""
_LEAST_BYTES, _MOST_BYTES, _SHARE = 64 << 10, 256 << 20, 0.05
"""What all answers may take together: a share of the store, within these bounds."""
_SAMPLED = 8
"""Folders of the store that are looked into to tell its size, of 256."""
_DIGEST_BYTES = 32


_KEPT_WRITTEN = 50
"""Manifests of files that a command wrote into the work tree; beyond so many the oldest go."""


class Memo:
    """Answers by key, below one folder. Failures to read or write are no errors: it is a cache."""

    def __init__(self, folder: Path) -> None:
        """Nothing is created before the first answer is kept."""
        self._folder = folder
        self.grew = False
        """Whether an answer was put into it, so that there is something to trim."""

    def get(self, *key: str) -> bytes | None:
        """The answer kept under a key, or None where there is none, or it is damaged."""
        path = self._path(key)
        try:
            with files.own(path) as file:
                kept = file.read()
        except OSError:
            return None
        answer = kept[_DIGEST_BYTES:]
        return answer if _digest(path, answer) == kept[:_DIGEST_BYTES] else None

    def put(self, answer: bytes, *key: str) -> None:
        """Keep an answer; readers see all of it or nothing."""
        path = self._path(key)
        self.grew = True
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_file(path, _digest(path, answer) + answer, mode=0o600)

    def get_chain(self, *key: str) -> Chain | None:
        """A block's chain kept under a key, or None."""
        answer = self.get("chain", *key)
        if answer is None:
            return None
        try:
            lines = answer.decode("ascii").split("\n")
            chain, end = read_chain(lines, 0, LATEST)
        except ValueError:
            return None
        return chain if lines[end:] == [""] else None

    def put_chain(self, block: Block, *key: str) -> None:
        """Keep the chain of a block."""
        lines = "\n".join([*chain_lines(block.chain, LATEST), ""])
        self.put(lines.encode("ascii"), "chain", *key)

    def trim(self, objects: Path, keep: int = _KEEP) -> None:
        """Remove the oldest answers beyond `keep`, and beyond a share of what the objects take.

        All answers are looked at, so it is for those who have put one in: see `grew`.

        Args:
            objects: the folder of the store's objects, in folders named by their first digits.
            keep: how many answers may stay.
        """
        found = [(status.st_mtime, status.st_size, path) for path, status in _files(self._folder)]
        if not found:
            return
        allowed = min(_MOST_BYTES, max(_LEAST_BYTES, int(_SHARE * _size_of(objects))))
        for number, (_, size, path) in enumerate(sorted(found, reverse=True)):
            if size <= allowed and number < keep:
                allowed -= size
                continue
            with suppress(OSError):
                os.unlink(path)

    def _path(self, key: tuple[str, ...]) -> Path:
        # The version is part of the key: a new release may encode better, and must not be
        # answered with what an older one found.
        text = "\0".join((VERSION, *key))
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / digest


def _digest(path: Path, answer: bytes) -> bytes:
    """Of an answer and its name: what another one was moved to is no answer."""
    return hashlib.sha256(path.name.encode("ascii") + answer).digest()


def _files(folder: str | Path) -> list[tuple[str, os.stat_result]]:
    """The files of a folder, none where it cannot be read; one that vanishes is left out."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    found.append((entry.path, entry.stat(follow_symlinks=False)))
    return found


def _size_of(objects: Path) -> int:
    """About what the objects take, in bytes: names are hashes, so any folders stand for all."""
    try:
        tops = sorted(entry.path for entry in os.scandir(objects) if entry.is_dir())
    except OSError:
        return 0
    chosen = tops[:: max(1, len(tops) // _SAMPLED)]
    total = 0
    for top in chosen:
        with suppress(OSError):
            below = [entry.path for entry in os.scandir(top) if entry.is_dir()]
            total += sum(status.st_size for path in below for _, status in _files(path))
    return total * len(tops) // max(1, len(chosen))


def note(repository: Repository, path: str, manifest: Manifest) -> None:
    """Keep the manifest of a file that a command just wrote into the work tree.

    A settled conflict is written there, and Git asks for its manifest when it is added. The one
    that it was made from says how it came about: a merge by a recipe, which the bytes do not show.
    Where it cannot be kept, nothing is lost but that.

    Args:
        repository: one with a work tree.
        path: of the checkpoint, from the top of the work tree.
        manifest: what it was made from.
    """
    place = _written(repository, path)
    with suppress(OSError, ManifestError):
        place.parent.mkdir(exist_ok=True)
        files.replace_file(place, manifest_bytes(manifest), mode=0o600)
        found = sorted(place.parent.iterdir(), key=lambda one: one.stat().st_mtime_ns)
        for old in found[:-_KEPT_WRITTEN]:
            old.unlink()


def noted(repository: Repository, path: str) -> Manifest | None:
    """The manifest that was kept for a path, if all of its objects are in the store.

    They are made young then, for a new manifest is about to name them.
    """
    try:
        with files.own(_written(repository, path)) as file:
            manifest = parse_manifest(file.read(MAX_BYTES))
    except (OSError, ManifestError):
        return None
    store = store_of(repository)
    needed = {ref.oid: ref.size for ref in manifest.objects()}
    return manifest if all(store.keep(*one) for one in needed.items()) else None


def _written(repository: Repository, path: str) -> Path:
    name = hashlib.sha256(os.fsencode(path)).hexdigest()
    return repository.git_dir / "theta-written" / name
