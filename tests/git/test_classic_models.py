"""Models of scikit-learn through Git: stored by array, told apart, and never half merged."""

from __future__ import annotations

from pathlib import Path

from tests.scenarios.repositories import Repo

GOLDEN = Path(__file__).parents[1] / "golden" / "classic"


def test_two_forests_are_one_conflict_and_a_compressed_one_is_said(repo: Repo) -> None:
    first, second = (GOLDEN / f"forest-{name}.joblib" for name in ("first", "second"))
    repo.theta("track", "*.joblib")
    repo.write("m.joblib", first.read_bytes())
    said = repo.run("git", "add", "-A").stderr.decode()
    assert "compressed" not in said
    repo.git("commit", "-qm", "two trees")
    repo.git("checkout", "-q", "-b", "more")
    repo.write("m.joblib", second.read_bytes())
    repo.git("commit", "-qam", "three trees")
    assert "estimators_.2.tree_.nodes" in repo.theta("diff", "HEAD~1", "HEAD")

    repo.git("checkout", "-q", "-")
    assert (repo.path / "m.joblib").read_bytes() == first.read_bytes()
    other = bytearray(first.read_bytes())
    at = other.index(b"gini")
    other[at : at + 4] = b"GINI"
    repo.write("m.joblib", bytes(other))
    repo.git("commit", "-qam", "another criterion")
    merged = repo.run("git", "merge", "more", ok=(1,))
    assert "both sides changed the trees" in (merged.stderr + merged.stdout).decode()
    repo.theta("resolve", "m.joblib", "--strategy", "theirs")
    assert (repo.path / "m.joblib").read_bytes() == second.read_bytes()

    repo.write("z.joblib", (GOLDEN / "forest.joblib.zlib").read_bytes())
    said = repo.run("git", "add", "z.joblib").stderr.decode()
    assert "it is compressed (zlib); saved without" in said
