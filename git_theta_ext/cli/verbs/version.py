"""`git theta version`: what is installed, for bug reports."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import RepositoryError, ThetaError
from git_theta_ext.core.text import plural, printable, to_json
from git_theta_ext.core.version import VERSION
from git_theta_ext.git.process import run_git
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from git_theta_ext.manifest.model import LATEST, VERSIONS, version_in
from git_theta_ext.objects.store import reachable

_LIBRARIES = (
    "numpy",
    "ml_dtypes",
    "safetensors",
    "zstandard",
    "pcodec",
    "pyfastcdc",
    "pygit2",
    "GitPython",
    "torch",
)


def add_parser(subparsers: Any) -> None:
    """Add the parser of `version`."""
    parser = subparsers.add_parser(
        "version",
        help="show the versions of git-theta-ext and of what it uses",
        description="Show versions, paths and the configuration in force; for bug reports.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the versions."""
    facts = collect(Path.cwd())
    if args.json:
        print(to_json(facts))
        return 0
    for name, value in facts.items():
        if isinstance(value, dict):
            for key, found in value.items():
                print(f"{key}: {_shown(found)}")
        else:
            print(f"{name}: {_shown(value)}")
    return 0


def collect(cwd: Path) -> dict[str, Any]:
    """Versions (None: not there), paths, and the settings in force in `cwd`."""
    return {
        "git-theta-ext": VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version_of(name) for name in _LIBRARIES},
        "libgit2": _libgit2(),
        "git": _answer(cwd, "version"),
        "git-lfs": _answer(cwd, "lfs", "version"),
        "manifest": {
            "manifests read": list(VERSIONS),
            "manifests written": [LATEST],
            "manifests here": _manifests(cwd),
        },
        "executable": sys.executable,
        "package": str(Path(__file__).parents[2]),
        "config": {
            name: _answer(cwd, "config", "--get", name)
            for name in [*installation.settings(installation.NOBODY), installation.SKIP_SMUDGE]
        },
    }


def _libgit2() -> str | None:
    """The version of the libgit2 that pygit2 brings, or None where it cannot be loaded."""
    try:
        from git_theta_ext.git.libgit2 import VERSION
    except ImportError:
        return None
    return VERSION


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _answer(cwd: Path, *arguments: str) -> str | None:
    try:
        return run_git(arguments, cwd).decode("utf-8", "surrogateescape").strip()
    except RepositoryError:
        return None


def _manifests(cwd: Path) -> dict[str, int]:
    """How many tracked checkpoints have a manifest of each version, of any known or not."""
    found: Counter[int] = Counter()
    with suppress(ThetaError):  # outside of a repository, or in a bare one
        repository = Repository.discover(cwd)
        paths = {entry.oid: entry.path for entry in repository.tracked()}
        for _, text in reachable.manifest_texts(repository, paths):
            found[version_in(text)] += 1
    return {str(version): found[version] for version in sorted(found)}


def _shown(value: str | list[int] | dict[str, int] | None) -> str:
    if isinstance(value, dict):
        counts = (f"version {one} ({plural(count, 'file')})" for one, count in value.items())
        return ", ".join(counts) or "(none)"
    if isinstance(value, list):
        return ", ".join(f"version {one}" for one in value)
    return "(none)" if value is None else printable(value)
