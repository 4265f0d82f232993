"""What can be measured: the checkpoints of a commit, each with its identity, or a file."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from git_theta_ext.checkpoints import shards
from git_theta_ext.checkpoints.versions import FileSide
from git_theta_ext.core import advice, files
from git_theta_ext.core.errors import ManifestError, RepositoryError, UsageError
from git_theta_ext.core.globs import Globs
from git_theta_ext.evaluation.config import Evaluation
from git_theta_ext.evaluation.content import content_of
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.revisions import commit_of
from git_theta_ext.git.trees import blobs_of
from git_theta_ext.manifest.model import HEAD_BYTES, Manifest, is_manifest
from git_theta_ext.objects.store import reachable

_WORDS_ABOUT = ("*.md", ".git*", "license*", "LICENSE*", "notice*", "NOTICE*")
"""Files of a model's folder that say something about it and are no part of it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checkpoint to measure: `rev` is a full commit id, or empty for a file of the disk.

    `files` are its manifests by path (of all shards), and `beside` the blobs of the other files of
    its folder, by path; both empty for a file of the disk, which lies at `place`.
    """

    path: str
    rev: str
    content: str
    files: tuple[tuple[str, Manifest], ...] = ()
    beside: tuple[tuple[str, str], ...] = ()
    place: Path | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.path} at {self.rev[:9]}" if self.rev else self.path


class Targets:
    """The checkpoints of commits; each manifest is read once, whatever commits have it."""

    def __init__(self, repository: Repository) -> None:
        """Nothing is read yet; `damaged` will say which blobs are manifests that are not right."""
        self._repository = repository
        self.damaged: list[str] = []
        self._manifests: dict[str, Manifest | None] = {}

    def of(self, commit: str, within: str | None = None) -> list[Target]:
        """Every checkpoint of a commit that is stored tensor by tensor; shards make one.

        Args:
            commit: its id.
            within: only those at this path or below it, from the top.
        """
        blobs = dict(blobs_of(self._repository, commit))
        if within is not None:
            below = f"{within}/"
            blobs = {p: oid for p, oid in blobs.items() if p == within or p.startswith(below)}
        self._read(oid for oid in blobs.values() if oid not in self._manifests)
        models: dict[str, list[tuple[str, Manifest]]] = {}
        for path, oid in blobs.items():
            manifest = self._manifests[oid]
            if manifest is not None:
                models.setdefault(shards.model_of(path) or path, []).append((path, manifest))
        held = {path for parts in models.values() for path, _ in parts}
        found = []
        for name, parts in models.items():
            folder = posixpath.dirname(name)
            beside = tuple(
                (path, oid)
                for path, oid in sorted(blobs.items())
                if posixpath.dirname(path) == folder and path not in held and _belongs(path)
            )
            content = content_of(manifest for _, manifest in parts)
            found.append(Target(_name(name, blobs), commit, content, tuple(parts), beside))
        return found

    def _read(self, oids: Iterator[str]) -> None:
        wanted = list(dict.fromkeys(oids))
        self._manifests.update(dict.fromkeys(wanted))
        for oid, manifest in reachable.manifests(self._repository, wanted):
            if isinstance(manifest, ManifestError):
                self.damaged.append(f"blob {oid} is no checkpoint: {manifest.message}")
            else:
                self._manifests[oid] = manifest


def _name(name: str, blobs: Mapping[str, str]) -> str:
    """A model of several files is called as its index is, if it has one."""
    index = name.replace("-*-of-*", "") + ".index.json"
    return index if index != f"{name}.index.json" and index in blobs else name


def _belongs(path: str) -> bool:
    return not Globs(_WORDS_ABOUT, "names").matches(PurePosixPath(path).name)


def file_target(path: Path, name: str) -> Target:
    """A checkpoint file of the disk, which is read once to identify it.

    Raises:
        UsageError: it cannot be read, or is a manifest in the place of a checkpoint.
    """
    try:
        with files.plain(path, follow=True) as file:
            if is_manifest(file.read(HEAD_BYTES)):
                raise UsageError(f"{name} is a manifest, not the checkpoint",
                                 hint=advice.with_name("git theta pull FILE", name))  # fmt: skip
        with closing(FileSide(path)) as side:
            return Target(name, "", content_of([side.manifest]), place=path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def commits_of(repository: Repository, words: str) -> list[str]:
    """The commits that a revision or a range names, the newest first.

    Raises:
        UsageError: it names none.
    """
    if ".." in words:
        try:
            answer = repository.git("rev-list", "--topo-order", "--end-of-options", words, "--")
        except RepositoryError as error:
            raise UsageError(f"{words!r} is no range of commits here") from error
        if not answer:
            raise UsageError(f"{words!r} has no commits: its end is reached from its beginning")
        return answer.decode().split()
    return [commit_of(repository, words)]


def hash_of_beside(repository: Repository, target: Target) -> str:
    """What the other files of a model's folder are: their names and bytes."""
    digest = hashlib.sha256()
    for path, oid in target.beside:
        data = hashlib.sha256(repository.blob(oid)).hexdigest()
        digest.update(f"{PurePosixPath(path).name}\0{data}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def hash_of_examples(top: Path, evaluation: Evaluation) -> str | None:
    """What the files are that an evaluation depends on, as they stand in the work tree.

    Args:
        top: of the work tree.
        evaluation: its `examples` are files or patterns, from the top.

    Returns:
        A SHA-256 in hexadecimal; None if it names none.

    Raises:
        UsageError: a file is not there, or outside of the work tree.
    """
    if not evaluation.examples:
        return None
    digest = hashlib.sha256()
    for pattern in evaluation.examples:
        for path in _matching(top, pattern, evaluation.name):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def _matching(top: Path, pattern: str, name: str) -> Sequence[Path]:
    """The files that a pattern stands for, in order of their names."""
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise UsageError(f"examples of {name!r}: {pattern!r} leads out of the work tree")
    inside = (path for path in top.glob(pattern) if path.is_file())
    found = sorted(path for path in inside if ".git" not in path.relative_to(top).parts)
    if not found:
        raise UsageError(f"examples of {name!r}: there is no file {pattern!r} in the work tree")
    return found
