"""Signatures on versions: made of a commit without a checkout, and verified by who gets it.

Two files stand beside what was signed, and are committed with it: `theta_tensors.json` and
`model.sig`, which covers it too. In a checkout, `model_signing verify` accepts them as well.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import patterns
from git_theta_ext.core.errors import ManifestError, SignatureError, UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.git.repository import Repository, TreeEntry
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.store import reachable
from git_theta_ext.objects.transfer.pointer_files import POINTER_BYTES, read_pointer
from git_theta_ext.packages.fetched import Package, fetch_blobs
from git_theta_ext.packages.files import PackageFile
from git_theta_ext.packages.release import signing
from git_theta_ext.packages.release.chosen import SIGNATURE, TENSORS
from git_theta_ext.packages.release.folder import Sink
from git_theta_ext.packages.release.signing import Signer, Trust
from git_theta_ext.packages.release.tensors_file import FileHashes, to_bytes
from git_theta_ext.packages.release.verify import GITS, Signed, hashes_of, read_beside, verified


class _Nowhere:
    """Takes bytes and keeps none."""

    def write(self, data: bytes | memoryview) -> int:
        return len(data)


@dataclass(frozen=True, slots=True)
class Statement:
    """What is to be signed of a folder of a version: files by their hashes, and the two files."""

    hashes: dict[str, str]
    tensors: bytes
    signature: bytes


def sign_version(repository: Repository, commit: str, folder: str, signer: Signer) -> Statement:
    """Sign a folder of a commit; checkpoints are rebuilt once, to be hashed, and not written.

    Args:
        repository: any.
        commit: an object id.
        folder: from the top; empty is all of it.
        signer: with what.

    Raises:
        UsageError: there is no such folder, it has links, or the key cannot sign.
        CorruptObjectError, MissingObjectError, TransferError: an object cannot be had.
    """
    signing.check(signer)
    entries = _entries(repository, commit, folder)
    manifests = _manifests(repository, list(entries.values()))
    table = {
        path: FileHashes(hashes_of(manifests[one.oid]), manifests[one.oid].skeleton.sha256)
        for path, one in entries.items()
        if one.oid in manifests
    }
    tensors = to_bytes(table)
    hashes = {
        path: _hash(repository, one.oid, manifests.get(one.oid), path)
        for path, one in entries.items()
    }
    sink = Sink(_Nowhere())
    sink.write(tensors)
    hashes[TENSORS] = sink.sha256
    name = posixpath.basename(folder) or commit
    return Statement(hashes, tensors, signing.sign(hashes, name, signer, SIGNATURE))


def _entries(repository: Repository, commit: str, folder: str) -> dict[str, TreeEntry]:
    """The files of a folder by their paths from it, without what is not signed."""
    found: dict[str, TreeEntry] = {}
    for entry in repository.tree(commit, recursive=True):
        if folder and not entry.path.startswith(f"{folder}/"):
            continue
        path = entry.path.removeprefix(f"{folder}/") if folder else entry.path
        if path in (SIGNATURE, TENSORS) or path.split("/")[0] in GITS:
            continue
        if not entry.mode.startswith("100"):
            raise UsageError(
                f"{printable(entry.path)} is no file, but a link or a submodule: no signature "
                "covers it",
                hint="sign a folder without it: --path FOLDER",
            )
        found[path] = entry
    if not found:
        raise UsageError(f"there is no folder {folder!r} in {commit[:9]}")
    return found


def _manifests(repository: Repository, entries: Sequence[TreeEntry]) -> dict[str, Manifest]:
    found: dict[str, Manifest] = {}
    for oid, manifest in reachable.manifests(repository, [one.oid for one in entries]):
        if isinstance(manifest, ManifestError):
            raise manifest
        found[oid] = manifest
    return found


def _hash(repository: Repository, oid: str, manifest: Manifest | None, path: str) -> str:
    """The SHA-256 of a file as a checkout writes it."""
    sink = Sink(_Nowhere())
    if manifest is not None:
        Smudger(manifest, Blocks.open(repository), path).write(sink.write)
        return sink.sha256
    if repository.blob_size(oid) <= POINTER_BYTES:
        pointer = read_pointer(repository.blob(oid))
        if pointer is not None:
            return pointer.oid
    repository.write_blob(oid, sink)
    return sink.sha256


def verify_version(repository: Repository, commit: str, folder: str, trust: Trust) -> Signed:
    """Verify a folder of a commit against the signature that was committed in it.

    Checkpoints are compared by their manifests, where the signature lists their tensors.

    Args:
        repository: any.
        commit: an object id.
        folder: from the top; empty is all of it.
        trust: whose signature is believed.

    Raises:
        SignatureError: there is no signature, or something is not what was signed.
        UsageError: see `verified`.
    """
    signature = _blob(repository, commit, folder, SIGNATURE)
    shown = posixpath.join(folder, SIGNATURE)
    if signature is None:
        raise SignatureError(f"there is no {printable(shown)} in {commit[:9]}")
    found = verified(signature, _blob(repository, commit, folder, TENSORS), trust, shown)
    entries = _entries(repository, commit, folder)
    for path, one in entries.items():
        _check(repository, found, path, one.oid)
    lacking = [path for path in found.hashes if path not in entries and path != TENSORS]
    if lacking:
        raise SignatureError(f"{printable(lacking[0])}: signed, by {shown}, and not there")
    return found


def _blob(repository: Repository, commit: str, folder: str, name: str) -> bytes | None:
    oid = repository.blob_at(commit, posixpath.join(folder, name))
    return None if oid is None else repository.blob(oid)


def _check(
    repository: Repository,
    found: Signed,
    path: str,
    oid: str,
    wanted: Sequence[str] = (),
) -> None:
    """Compare a file of a version with what was signed, before anything of it is used."""
    head = list(reachable.manifests(repository, [oid]))
    if not head:
        found.check_files({path: _hash(repository, oid, None, path)})
        return
    manifest = head[0][1]
    if isinstance(manifest, ManifestError):
        raise manifest
    if path in found.tensors or wanted:
        names = patterns.select(manifest.by_name(), wanted) if wanted else None
        found.check_manifest(path, manifest, names)
    else:
        found.check_files({path: _hash(repository, oid, manifest, path)})


def verify_package(
    package: Package,
    files: Sequence[PackageFile],
    trust: Trust,
    *,
    tensors: Sequence[str] = (),
    signature: Path | None = None,
) -> Signed:
    """Verify files of a package before they are placed; of checkpoints, only what is wanted.

    The signature is the one that was committed in the folder of the files, or in one above it.

    Args:
        package: where they are from.
        files: those that are wanted; see `files_of`.
        trust: whose signature is believed.
        tensors: patterns; of checkpoints only these are wanted.
        signature: a file of this machine instead, with its `theta_tensors.json` beside it, made of
            the whole version.

    Raises:
        SignatureError: there is no signature, or something is not what was signed.
        UsageError: see `verified`.
        TransferError: the remote does not give what is needed to tell.
    """
    repository, commit = package.repository, package.commit
    if signature is not None:
        folder, text, listed = "", *read_beside(signature)
        shown = str(signature)
    else:
        folder = _signed_folder(package, files)
        shown = posixpath.join(folder, SIGNATURE)
        blobs = [
            repository.blob_at(commit, posixpath.join(folder, n)) for n in (SIGNATURE, TENSORS)
        ]
        fetch_blobs(repository, package.url, [one for one in blobs if one], [commit])
        text = _blob(repository, commit, folder, SIGNATURE) or b""
        listed = _blob(repository, commit, folder, TENSORS)
    found = verified(text, listed, trust, shown)
    fetch_blobs(repository, package.url, [one.blob for one in files], [commit])
    for file in files:
        path = file.path.removeprefix(f"{folder}/") if folder else file.path
        if path != SIGNATURE:
            _check(repository, found, path, file.blob, tensors)
    return found


def _signed_folder(package: Package, files: Sequence[PackageFile]) -> str:
    """The nearest folder with a signature that all files are in."""
    folders = [posixpath.dirname(one.path) for one in files]
    here = posixpath.commonpath(folders) if folders and all(folders) else ""
    while True:
        place = posixpath.join(here, SIGNATURE)
        if package.repository.blob_at(package.commit, place) is not None:
            return here
        if not here:
            raise SignatureError(
                f"{package} is not signed: there is no {SIGNATURE} beside the files, nor above",
                hint="whoever publishes it signs it by git theta sign",
            )
        here = posixpath.dirname(here)
