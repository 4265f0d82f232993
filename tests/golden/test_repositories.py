"""Repositories that earlier versions wrote are checked out byte for byte, for ever."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from git_theta_ext import formats, updates
from git_theta_ext.manifest.model import Manifest, Recipe
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.updates.recipes import KNOWN
from tests.scenarios.golden import FOLDER, opened, unpacked
from tests.scenarios.repositories import Repo

_SECOND = (
    "adapters",
    "arrays",
    "classic",
    "packs",
    "quantised",
    "recipes",
    "stack",
    "structured",
    "torch",
)
"""Of the second version of the manifest alone."""
NAMES = (*_SECOND, "containers", "mixed", "more", "updates")


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
        texts = (repo.blob(f"v{number}:{name}") for name in names if not name.startswith("."))
        found += [parse_manifest(text) for text in texts]
    return found


def test_they_hold_every_kind_of_update_container_and_recipe(tmp_path: Path, sealed: Path) -> None:
    kinds: set[str] = set()
    containers: set[str] = set()
    recipes: set[tuple[str, int, int]] = set()
    versions: dict[str, set[int]] = {}
    parts: set[str] = set()
    for name in NAMES:
        bare, hashes = unpacked(name, tmp_path / name)
        for manifest in _manifests(Repo(bare), len(hashes)):
            kinds |= {ref.kind for ref in manifest.objects()}
            containers.add(manifest.format)
            links = (
                link for entry in manifest.entries for one in entry.blocks for link in one.chain
            )
            recipes |= {(link.strategy, link.number, len(link.sides))
                        for link in links if isinstance(link, Recipe)}  # fmt: skip
            versions.setdefault(name, set()).add(manifest.version)
            parts |= {name for ref in manifest.objects() if ref.part is not None}
    assert kinds == set(updates.kinds())
    assert containers == set(formats.names()) | {"tensorflow", "opaque"}
    assert recipes == {(*one, sides) for one in KNOWN for sides in (2, 3)}
    first = {"containers": {1}, "more": {1}, "updates": {1}, "mixed": {1, 2}}
    assert versions == first | {name: {2} for name in _SECOND}
    # (Those of Orbax are too small for tensors of their own.)
    assert parts == {"mixed", *_SECOND} - {"arrays"}


def test_none_is_lost_or_changed() -> None:
    """The archives are frozen; a new one is added here with its hash."""
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.tar")
    }
    assert found == json.loads((FOLDER / "hashes.json").read_text())
