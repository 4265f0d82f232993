"""Bare repositories as remotes, histories to push to them, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path

from git_theta_ext.git.launch import shell_word
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.transfer import folders
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.repositories import Repo


def bare(repo: Repo, name: str = "remote.git") -> Path:
    """A new bare repository, the remote `origin` of `repo`."""
    path = repo.path.parent / name
    repo.git("init", "-q", "--bare", str(path))
    repo.git("remote", "add", "origin", str(path))
    return path


def objects_of(repo: Repo, spec: str) -> list[UpdateRef]:
    """The objects of the checkpoint at a revision."""
    return list(parse_manifest(repo.blob(spec)).objects())


def are_at(remote: Path, refs: list[UpdateRef]) -> bool:
    """Whether a path remote has all these objects."""
    paths = [folders.object_path(remote / "lfs", ref.oid) for ref in refs]
    return bool(paths) and all(path.exists() for path in paths)


def history(repo: Repo, versions: int = 3, start: int = 0) -> list[bytes]:
    """Commit some versions of a checkpoint; their bytes."""
    tensors = model()
    name = next(iter(tensors))
    contents = []
    for number in range(start, start + versions):
        tensors = {**tensors, name: changed(tensors[name])}
        contents.append(safetensors(tensors, {"version": str(number)}))
        repo.write(NAME, contents[-1])
        repo.commit(f"version {number}")
    return contents


def guard(remote: Path, *options: str) -> None:
    """Put the hook into a bare repository."""
    hook = remote / "hooks/pre-receive"
    words = [sys.executable, "-I", "-m", "git_theta_ext.cli.main", "receive-check", *options]
    hook.write_text(f"#!/bin/sh\nexec {' '.join(map(shell_word, words))}\n")
    hook.chmod(0o755)


def push(repo: Repo, *arguments: str, ok: int = 0) -> str:
    """Push past the hook on this side; what was said on stderr."""
    words = arguments or ("origin", "main")
    return repo.run("git", "push", "--no-verify", *words, ok=(ok,)).stderr.decode()
