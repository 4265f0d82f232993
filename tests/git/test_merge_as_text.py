"""A merge by a Git that does not use the driver: the markers are kept, and settled afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from git_theta_ext.manifest.model import HEADS
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
QUERY = "encoder.layer.1.attention.query.weight"


def test_a_text_conflict_is_left_to_be_resolved(repo: Repo) -> None:
    repo.write(NAME, safetensors(model()))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    theirs = {**model(), QUERY: changed(model()[QUERY], seed=2)}
    repo.write(NAME, safetensors(theirs))
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    ours = {**model(), QUERY: changed(model()[QUERY], seed=3)}
    repo.write(NAME, safetensors(ours))
    repo.commit("ours")
    (repo.path / ".git/info").mkdir(exist_ok=True)
    (repo.path / ".git/info/attributes").write_text("*.safetensors merge=text\n")
    done = repo.run("git", "merge", "side", ok=(1,))
    assert b"merged as text and holds conflict markers" in done.stderr
    assert b"<<<<<<<" in (repo.path / NAME).read_bytes()
    # Staged as it is it would be a manifest that nobody can read.
    assert b"conflict markers" in repo.run("git", "add", NAME, ok=(128, 1)).stderr
    repo.theta("resolve", NAME, "--strategy", "theirs")
    assert (repo.path / NAME).read_bytes() == safetensors(theirs)
    repo.commit("merged")
    assert repo.status() == ""
    assert not np.array_equal(ours[QUERY], theirs[QUERY])


def _as_version_1(repo: Repo, revision: str) -> bytes:
    """The text that an earlier version of the program would have written there."""
    text = repo.blob(f"{revision}:{NAME}")
    assert text.startswith(HEADS[2])
    old = HEADS[1] + text.removeprefix(HEADS[2])
    assert parse_manifest(old).version == 1  # it names no parts of packs
    return old


def test_old_and_new_manifests_merge_as_text(repo: Repo, tmp_path: Path) -> None:
    """One side still has version 1, the other wrote version 2, and no merge driver is there."""
    random = np.random.default_rng(4)
    base = {name: random.normal(0, 1, 100_000).astype(np.float32) for name in ("a", "b", "c")}
    ours, theirs = {**base, "a": base["a"] + 1}, {**base, "c": base["c"] * 2}
    texts = {}
    for name, tensors in (("base", base), ("ours", ours), ("theirs", theirs)):
        if name != "base":
            repo.git("checkout", "-q", "-b", name, "base")
        repo.write(NAME, safetensors(tensors))
        repo.commit(name)
        if name != "theirs":  # as if an earlier version had made it
            texts[name] = _as_version_1(repo, "HEAD")
            repo.write(NAME, texts[name])
            repo.git("add", NAME)
            repo.git("commit", "-q", "--amend", "--no-edit")
        if name == "base":
            repo.git("branch", "base")
    texts["theirs"] = repo.blob(f"theirs:{NAME}")
    assert texts["base"].startswith(HEADS[1])
    assert texts["theirs"].startswith(HEADS[2])
    files = {name: tmp_path / name for name in texts}
    for name, path in files.items():
        path.write_bytes(texts[name])
    sides = [str(files[name]) for name in ("ours", "base", "theirs")]
    done = repo.run("git", "merge-file", "-p", *sides)
    merged = parse_manifest(done.stdout)
    assert merged.version == 2
    entries = [parse_manifest(texts[name]).by_name() for name in ("ours", "base", "theirs")]
    assert list(merged.entries) == [side[name] for side, name in zip(entries, "abc", strict=True)]

    repo.git("checkout", "-q", "-f", "-b", "by-text", "ours")
    (repo.path / ".git/info").mkdir(exist_ok=True)
    (repo.path / ".git/info/attributes").write_text("*.safetensors merge=text\n")
    repo.git("merge", "-q", "theirs", "-m", "as text")
    assert repo.blob(f"HEAD:{NAME}") == done.stdout
    assert (repo.path / NAME).read_bytes() == safetensors({**ours, "c": theirs["c"]})
    assert repo.status() == ""
    # The driver gives the same text, in either direction.
    (repo.path / ".git/info/attributes").unlink()
    repo.git("checkout", "-q", "-b", "by-driver", "theirs")
    repo.git("merge", "-q", "ours", "-m", "by the driver")
    assert repo.blob(f"HEAD:{NAME}") == done.stdout
