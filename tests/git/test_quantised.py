"""Weights that were quantised: stored as what they were made of, and named for what they are."""

from __future__ import annotations

from pathlib import Path

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.repositories import Repo

GOLDEN = Path(__file__).parents[1] / "golden" / "quantised"


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_a_gguf_file_is_stored_as_a_quantisation_of_another(repo: Repo) -> None:
    """Of the one beside it, and of what its path held before; both come back, and travel alone."""
    repo.git("theta", "track", "*.gguf")
    repo.write("floats.gguf", golden("floats.gguf"))
    repo.write("model.gguf", golden("floats.gguf"))
    repo.commit("floats")
    for path in ("codes.gguf", "model.gguf"):
        repo.write(path, golden("codes.gguf"))
    repo.commit("codes")
    for path in ("codes.gguf", "model.gguf"):
        manifest = parse_manifest(repo.blob(f"HEAD:{path}"))
        kinds = [[link.kind for link in entry.blocks[0].chain] for entry in manifest.entries]
        assert kinds == [["dense", "quantise"]] * 5
    assert repo.status() == ""
    repo.git("rm", "-q", "codes.gguf", "model.gguf")
    repo.git("checkout", "-q", "HEAD", "--", ".")
    assert (repo.path / "codes.gguf").read_bytes() == golden("codes.gguf")
    assert (repo.path / "model.gguf").read_bytes() == golden("codes.gguf")
    repo.theta("fsck")
