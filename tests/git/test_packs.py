"""Small tensors travel together: few objects, each tensor still by itself."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import NAME, safetensors
from tests.scenarios.merges import branches, content
from tests.scenarios.remotes import bare
from tests.scenarios.repositories import Repo

RANDOM = np.random.default_rng(5)
MANY = {
    f"layer.{number}.{part}": RANDOM.normal(0, 0.02, size).astype(np.float32)
    for number in range(400)
    for part, size in (("weight", (50, 64)), ("bias", 64))
}
"""800 tensors, 5 MB."""


def touched(*names: str, by: float = 1.0) -> dict[str, np.ndarray]:
    """The tensors, some of them with another first value."""
    found = dict(MANY)
    for name in names:
        found[name] = MANY[name].copy()
        found[name].flat[0] = by
    return found


def objects(repo: Repo) -> dict[str, int]:
    """The objects of the store, with their sizes."""
    top = repo.path / ".git/theta/objects"
    return {path.name: path.stat().st_size for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def many(repo: Repo) -> Repo:
    """One version of them."""

    def make() -> None:
        repo.write(NAME, safetensors(MANY))
        repo.commit("many")

    repo.once(make)
    return repo


def test_many_small_tensors_are_few_objects(many: Repo) -> None:
    found = objects(many)
    assert len(found) == 2
    assert max(found.values()) < 4 << 20 | 1 << 19
    before = set(found)
    many.write(NAME, safetensors(touched("layer.7.weight")))
    many.commit("one tensor")
    new = set(objects(many)) - before
    assert [objects(many)[oid] < 1000 for oid in new] == [True]
    (many.path / NAME).unlink()
    many.git("checkout", "-q", "--", NAME)
    assert content(many) == safetensors(touched("layer.7.weight"))
    many.theta("fsck")


def test_packs_are_safetensors_files_of_parameter_files(many: Repo) -> None:
    from safetensors.numpy import load

    manifest = parse_manifest(many.blob(f"HEAD:{NAME}"))
    block = manifest.by_name()["layer.3.weight"].blocks[0]
    (ref,) = block.objects()
    assert ref.part is not None
    path = many.path / ".git/theta/objects" / ref.oid[:2] / ref.oid[2:4] / ref.oid
    parts = [part.tobytes() for part in load(path.read_bytes()).values()]
    assert path.read_bytes()[slice(*ref.part)] in parts
    assert all(set(load(part)) for part in parts)


def test_whoever_adds_the_same_version_writes_the_same_packs(many: Repo) -> None:
    text, kept = many.blob(f"HEAD:{NAME}"), objects(many)
    many.git("rm", "-q", "--cached", NAME)
    many.git("commit", "-qm", "gone")
    many.git("reflog", "expire", "--expire=now", "--all")
    many.git("add", NAME)
    assert many.blob(f":{NAME}") == text
    assert objects(many) == kept


def test_different_tensors_of_a_pack_merge_as_text(repo: Repo) -> None:
    ours, theirs = touched("layer.2.weight", "layer.4.bias"), touched("layer.90.weight")
    branches(repo, safetensors(MANY), safetensors(ours), safetensors(theirs))
    (repo.path / ".gitattributes").write_text(f"{NAME} filter=theta\n")
    repo.commit("no driver")
    repo.git("merge", "-q", "--no-edit", "side")
    both = {**ours, "layer.90.weight": theirs["layer.90.weight"]}
    assert content(repo) == safetensors(both)


def test_reading_one_tensor_brings_its_pack_and_no_other(many: Repo) -> None:
    remote = bare(many)
    many.git("push", "-q", "origin", "main")
    clone = Repo(many.path.parent / "clone")
    many.git("clone", "-q", f"file://{remote}", str(clone.path))
    clone.git("config", "theta.skipSmudge", "true")
    clone.theta("install", "--local")
    found = clone.run("git", "theta", "cat", "--raw", NAME, "layer.3.weight").stdout
    assert found == MANY["layer.3.weight"].tobytes()
    assert len(objects(clone)) == 1
