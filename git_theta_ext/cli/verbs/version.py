"""`git theta version`: what is installed, for bug reports."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any

from git_theta_ext.core.errors import RepositoryError
from git_theta_ext.core.text import printable, to_json
from git_theta_ext.core.version import VERSION
from git_theta_ext.git import installation
from git_theta_ext.git.process import run_git

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
            for key, text in value.items():
                print(f"{key}: {_shown(text)}")
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


def _shown(value: str | None) -> str:
    return "(none)" if value is None else printable(value)
