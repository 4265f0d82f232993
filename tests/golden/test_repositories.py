"""Repositories that earlier versions wrote are checked out byte for byte, for ever."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from git_theta_ext import formats, updates
from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.repositories import Repo

FOLDER = Path(__file__).parent / "repositories"
NAMES = ("containers", "more", "updates")


def opened(name: str, tmp_path: Path) -> tuple[Repo, list[dict[str, str]]]:
    """A clone of a golden repository with the extension installed, and the hashes of its files."""
    with tarfile.open(FOLDER / f"{name}.tar") as archive:
        archive.extractall(tmp_path / "golden", filter="data")
    bare = tmp_path / "golden/bare.git"
    (bare / "refs").mkdir(exist_ok=True)
    (bare / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    repo = Repo(tmp_path)
    repo.git("clone", "-q", "--no-checkout", str(bare), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    return clone, json.loads((tmp_path / "golden/hashes.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_every_version_comes_back(name: str, tmp_path: Path, sealed: Path) -> None:
    repo, hashes = opened(name, tmp_path)
    for number, files in enumerate(hashes):
        repo.git("checkout", "-q", f"v{number}")
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in repo.path.iterdir()
            if path.is_file() and path.name != ".gitattributes"
        }
        assert found == files
        assert repo.status() == ""
    repo.theta("fsck")


def _manifests(repo: Repo, count: int) -> list[Manifest]:
    found = []
    for number in range(count):
        names = repo.git("ls-tree", "-r", "--name-only", f"v{number}").splitlines()
        texts = (repo.blob(f"v{number}:{name}") for name in names if name != ".gitattributes")
        found += [parse_manifest(text) for text in texts]
    return found


def test_they_hold_every_kind_of_update_and_container(tmp_path: Path, sealed: Path) -> None:
    kinds: set[str] = set()
    containers: set[str] = set()
    for name in NAMES:
        (tmp_path / name).mkdir()
        repo, hashes = opened(name, tmp_path / name)
        for manifest in _manifests(repo, len(hashes)):
            kinds |= {ref.kind for ref in manifest.objects()}
            containers.add(manifest.format)
    assert kinds == set(updates.kinds())
    assert containers == set(formats.names()) | {"tensorflow", "opaque"}


def test_none_is_lost_or_changed() -> None:
    """The archives are frozen; a new one is added here with its hash."""
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.tar")
    }
    assert found == json.loads((FOLDER / "hashes.json").read_text())
