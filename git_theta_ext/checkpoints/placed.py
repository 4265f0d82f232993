"""Checkpoints written where they are wanted: into a folder of ours, or into a work tree."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from git_theta_ext.checkpoints.memo import note
from git_theta_ext.checkpoints.smudge import Smudger
from git_theta_ext.core import files, limits
from git_theta_ext.core.errors import ManifestError, StoreError, ThetaError
from git_theta_ext.git.repository import Repository, skips_smudge
from git_theta_ext.git.work_tree import WorkTree
from git_theta_ext.manifest.model import Manifest, is_manifest
from git_theta_ext.manifest.text import manifest_bytes, parse_manifest
from git_theta_ext.objects.blocks import Blocks
from git_theta_ext.objects.bounds import check_together, claimed
from git_theta_ext.objects.executor import HERE, Executor


def write_file(path: Path, smudger: Smudger) -> None:
    """Write a checkpoint to a folder of our own: whole or not at all.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
        CorruptObjectError: an object is damaged; `path` is as it was.
    """
    try:
        with files.replacing(path) as file:
            smudger.write(file.write)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def write_version(repository: Repository, path: str, manifest: Manifest, blocks: Blocks) -> None:
    """Write the checkpoint that a manifest stands for into the work tree, whole or not at all.

    With `theta.skipSmudge`, or GIT_THETA_SKIP_SMUDGE, the manifest itself is written. A file that
    was there gives its permissions; a link is replaced.

    Args:
        repository: one with a work tree.
        path: of the checkpoint, from the top of the work tree.
        manifest: the version to write.
        blocks: where its objects are; missing ones are fetched.

    Raises:
        StoreError: the file cannot be written, or not there; see `WorkTree`.
        CorruptObjectError, MissingObjectError, TransferError: see `Smudger`.
    """
    tree = WorkTree(repository.top)
    if skips_smudge(repository, os.environ):
        tree.replace(path, manifest_bytes(manifest))
        return
    smudger = Smudger(manifest, blocks, path)
    smudger.check_room(path, (repository.top / path).parent)
    smudger.write_into(tree, path)
    note(repository, path, manifest)


def manifests_in_work_tree(repository: Repository, paths: Iterable[str]) -> dict[str, bytes]:
    """Those of some tracked paths where the work tree holds a manifest, not a checkpoint.

    Links are not followed. Returns the manifests' bytes by path.
    """
    found = {}
    tree = WorkTree(repository.top)
    for name in paths:
        try:
            if not tree.has_file(name):
                continue
            with files.plain(repository.top / name) as file:
                text = file.read(64)
                if is_manifest(text):
                    text += file.read(limits.MANIFEST_BYTES)
                    found[name] = text
        except OSError:
            continue
    return found


def write_checkpoints(
    repository: Repository,
    paths: Sequence[str],
    report: Callable[[str, int], object] | None = None,
    executor: Executor = HERE,
) -> list[str]:
    """Write the checkpoint wherever the work tree holds a manifest at one of `paths`.

    All objects are fetched in one batch first. The index is told, so that `git status` stays clean.

    Args:
        repository: with a work tree.
        paths: from the top of the work tree.
        report: called with each path, and its size in bytes, as it is done.
        executor: rebuilds the blocks.

    Returns:
        The paths written.

    Raises:
        ThetaError: of the first failure; the files written so far are whole.
    """
    found = manifests_in_work_tree(repository, paths)
    manifests = {}
    for name, data in found.items():
        try:
            manifests[name] = parse_manifest(data)
        except ManifestError as error:
            raise ManifestError(f"{name}: {error.message}", hint=error.hint) from error
    blocks = Blocks.open(repository, executor)
    blocks.ensure(ref for manifest in manifests.values() for ref in manifest.objects())
    check_together({name: claimed(one) for name, one in manifests.items()}, repository.top)
    done: list[str] = []
    tree = WorkTree(repository.top)
    try:
        for name, manifest in manifests.items():
            smudger = Smudger(manifest, blocks, name)
            smudger.check_room(name, (repository.top / name).parent)
            smudger.write_into(tree, name)
            done.append(name)
            if report is not None:
                report(name, smudger.size)
    except ThetaError as error:
        raise type(error)(f"{name}: {error.message}", hint=error.hint) from error
    finally:
        if done:
            _tell_index(repository, [name for name in done if name in found])
    return done


def _tell_index(repository: Repository, names: Sequence[str]) -> None:
    """Refresh the index entries of files that were just written.

    Git would clean a file again while its time lies in the same tick as the index; the files'
    times are set back a little so that this happens once, here.
    """
    moment = time.time_ns() - 3_000_000_000
    tree = WorkTree(repository.top)
    for name in names:
        tree.set_time(name, moment)
    repository.update_index(names)
