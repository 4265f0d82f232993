"""Files that a neighbour describes: the same bytes stay the same, whatever lies beside them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.manifest.model import Manifest
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.containers import tensorflow
from tests.scenarios.repositories import Repo

DATA, INDEX = "saved/variables.data-00000-of-00001", "saved/variables.index"
FIRST = {"kernel": np.arange(6000, dtype=np.float32).reshape(60, 100), "bias": np.ones(100)}


@pytest.fixture
def saved(repo: Repo) -> Repo:
    """A checkpoint of TensorFlow, not yet added."""
    repo.theta("track", "*.data-*-of-*")
    data, index = tensorflow(FIRST, b"graph")
    repo.write(DATA, data)
    repo.write(INDEX, index)
    return repo


def manifest(repo: Repo, spec: str = f"HEAD:{DATA}") -> Manifest:
    return parse_manifest(repo.blob(spec))


def touch(repo: Repo) -> None:
    """Make Git clean the file again."""
    path = repo.path / DATA
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))


def test_tensors_have_their_names(saved: Repo) -> None:
    saved.commit()
    found = manifest(saved)
    assert found.format == "tensorflow"
    assert [entry.tensor.name for entry in found.entries] == ["bias", "kernel"]


def test_a_later_neighbour_or_none_changes_nothing(saved: Repo) -> None:
    saved.commit()
    (saved.path / INDEX).write_bytes(tensorflow({"other": np.ones(3)})[1])
    touch(saved)
    assert saved.status() == f" M {INDEX}\n"
    (saved.path / INDEX).unlink()
    touch(saved)
    assert saved.status() == f" D {INDEX}\n"


def test_a_clone_without_the_neighbour_is_exact_and_clean(saved: Repo, tmp_path: Path) -> None:
    saved.git("add", DATA, ".gitattributes")
    saved.git("commit", "-q", "-m", "without its index")
    saved.git("init", "-q", "--bare", str(tmp_path / "host.git"))
    saved.git("push", "-q", str(tmp_path / "host.git"), "main")
    saved.git("clone", "-q", str(tmp_path / "host.git"), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.theta("install", "--local")
    clone.theta("pull")
    assert (clone.path / DATA).read_bytes() == (saved.path / DATA).read_bytes()
    touch(clone)
    assert clone.status() == ""


def test_an_update_with_its_index_is_one_of_its_tensors(saved: Repo) -> None:
    saved.commit()
    data, index = tensorflow({**FIRST, "bias": np.zeros(100)}, b"graph")
    saved.write(DATA, data)
    saved.write(INDEX, index)
    diff = saved.theta("diff", "--name-only", "--", DATA)
    assert "bias" in diff
    assert "kernel" not in diff
    saved.commit()
    before = {e.tensor.name: e.blocks for e in manifest(saved, f"HEAD~:{DATA}").entries}
    after = {e.tensor.name: e.blocks for e in manifest(saved).entries}
    assert before["kernel"] == after["kernel"]
    assert before["bias"] != after["bias"]


def test_what_was_opaque_stays_so(saved: Repo) -> None:
    (saved.path / INDEX).unlink()
    saved.commit()
    assert manifest(saved).format == "opaque"
    saved.write(INDEX, tensorflow(FIRST, b"graph")[1])
    touch(saved)
    assert saved.status() == f"?? {INDEX}\n"
    saved.git("checkout", "-q", "HEAD~")
    saved.git("checkout", "-q", "main")
    data, _ = tensorflow(FIRST, b"graph")
    assert (saved.path / DATA).read_bytes() == data
