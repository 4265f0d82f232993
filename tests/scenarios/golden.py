"""Repositories that earlier versions wrote, as `tests/golden/make_repositories.py` kept them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tests.scenarios.repositories import Repo

FOLDER = Path(__file__).parents[1] / "golden/repositories"


def unpacked(name: str, folder: Path) -> tuple[Path, list[dict[str, str]]]:
    """A golden repository, bare, and the hashes of the files of each of its tags, v0 first."""
    with tarfile.open(FOLDER / f"{name}.tar") as archive:
        archive.extractall(folder / "golden", filter="data")
    bare = folder / "golden/bare.git"
    (bare / "refs").mkdir(exist_ok=True)
    (bare / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    return bare, json.loads((folder / "golden/hashes.json").read_text())


def opened(name: str, folder: Path) -> tuple[Repo, list[dict[str, str]]]:
    """A clone of a golden repository with the extension installed, and the hashes of its files."""
    bare, hashes = unpacked(name, folder)
    Repo(folder).git("clone", "-q", "--no-checkout", str(bare), str(folder / "clone"))
    clone = Repo(folder / "clone")
    clone.theta("install", "--local")
    return clone, hashes
