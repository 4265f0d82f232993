"""`git theta migrate` and `git theta repack`: other manifests of the same checkpoints."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.advised import do, only, take
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.golden import opened
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
HEAD = re.compile(rb"\Agit-theta manifest v\d\n(?:#[^\n]*\n)*")


def _objects(repo: Repo, spec: str = f":{NAME}") -> set[str]:
    return {ref.oid for ref in parse_manifest(repo.blob(spec)).objects()}


def test_the_tip_of_a_branch_moves_to_version_2(tmp_path: Path, sealed: Path) -> None:
    """From a repository that an earlier version wrote: the text changes, and nothing else does."""
    repo, hashes = opened("more", tmp_path)
    repo.git("checkout", "-q", "v1")
    old = {name: repo.blob(f"HEAD:{name}") for name in hashes[1]}
    assert all(text.startswith(b"git-theta manifest v1\n") for text in old.values())
    before = {name: (repo.path / name).stat().st_mtime_ns for name in hashes[1]}
    objects = sorted(repo.path.glob(".git/theta/objects/*/*/*"))

    migrate = only(repo.theta("status"), "migrate")
    assert migrate == "git theta migrate --to-manifest 2"
    assert "manifests here: version 1 (6 files)" in repo.theta("version")
    dry = repo.theta("migrate", "--to-manifest", "2", "-n")
    assert "a.safetensors" in dry
    assert repo.status() == ""
    (repo.path / "c.pkl").write_bytes(b"modified, and not added")
    said = do(repo, migrate)
    assert said.count("version 1 -> 2") == len(old)

    for name, text in old.items():
        new = repo.blob(f":{name}")
        assert new.startswith(b"git-theta manifest v2\n# ")
        assert HEAD.sub(b"", new) == HEAD.sub(b"", text)
    del before["c.pkl"]
    assert before == {name: (repo.path / name).stat().st_mtime_ns for name in before}
    assert sorted(repo.path.glob(".git/theta/objects/*/*/*")) == objects
    wanted = {f"M  {name}" for name in before} | {"MM c.pkl"}
    assert set(repo.status().splitlines()) == wanted
    # Dirty against HEAD now: a second time it says so, and which way out.
    restore = take(repo, *migrate.split())
    assert restore == "git restore --staged a.safetensors"
    do(repo, restore)
    assert repo.blob(":a.safetensors") == old["a.safetensors"]
    repo.theta("migrate", "--to-manifest", "2", "a.safetensors")
    do(repo, only(said))
    assert json.loads(repo.theta("status", "--json"))["manifests"] == {"2": len(old)}
    assert json.loads(repo.theta("version", "--json"))["manifest"] == {
        "manifests read": [1, 2], "manifests written": [2], "manifests here": {"2": len(old)},
    }  # fmt: skip
    assert "Nothing to do" in repo.theta("migrate", "--to-manifest", "2")
    assert json.loads(repo.theta("migrate", "--to-manifest", "2", "--json"))["files"] == []

    # Added again as they are, they are no change; and the older version comes back.
    for name in before:
        (repo.path / name).touch()
    repo.git("add", *before)
    assert repo.status() == " M c.pkl\n"
    repo.git("checkout", "-q", "-f", "v0")
    found = hashlib.sha256((repo.path / "a.safetensors").read_bytes()).hexdigest()
    assert found == hashes[0]["a.safetensors"]
    assert repo.status() == ""


def test_outside_of_a_sparse_checkout_and_without_smudge(tmp_path: Path, sealed: Path) -> None:
    """Where the work tree holds a manifest, it becomes the new one; what is absent stays so."""
    repo, _ = opened("more", tmp_path)
    repo.git("config", "theta.skipSmudge", "true")
    repo.git("sparse-checkout", "set", "--no-cone", "/*", "!/e.bin")
    repo.git("checkout", "-q", "v1")
    repo.git("update-index", "--assume-unchanged", "c.pkl")
    repo.theta("migrate", "--to-manifest", "2", "a.safetensors", "c.pkl", "e.bin")
    assert repo.status().splitlines() == ["M  a.safetensors", "M  c.pkl", "M  e.bin"]
    assert (repo.path / "a.safetensors").read_bytes() == repo.blob(":a.safetensors")
    assert (repo.path / "b.distcp").read_bytes().startswith(b"git-theta manifest v1\n")
    assert not (repo.path / "e.bin").exists()
    assert repo.git("ls-files", "-v", "c.pkl", "e.bin") == "h c.pkl\nS e.bin\n"


def test_scattered_tensors_are_packed_again(repo: Repo) -> None:
    tensors = model(layers=2)
    repo.write(NAME, safetensors(tensors))
    repo.commit("first")
    for number in range(3):
        random = np.random.default_rng(number)
        for name in list(tensors)[number::3]:
            tensors[name] = random.normal(0, 1, tensors[name].shape).astype(tensors[name].dtype)
        repo.write(NAME, safetensors(tensors))
        repo.commit(f"change {number}")
    stored = sorted(repo.path.glob(".git/theta/objects/*/*/*"))
    scattered = _objects(repo)
    assert len(scattered) > 2

    assert "of its packs, " in repo.theta("du", f"HEAD:{NAME}")
    dead = json.loads(repo.theta("du", "--json", f"HEAD:{NAME}"))["dead"]
    assert 0 < dead < sum(path.stat().st_size for path in stored)
    assert json.loads(repo.theta("prune", "-d", "--keep-days", "0", "--json"))["dead"] == dead
    said = repo.theta("repack")
    assert f"{len(scattered)} objects  ->  1" in said
    assert repo.status() == ""
    assert sorted(repo.path.glob(".git/theta/objects/*/*/*")) == stored
    plan = json.loads(repo.theta("repack", "--json"))["files"][NAME]
    done = do(repo, only(said))
    assert repo.status() == f"M  {NAME}\n"
    (made,) = _objects(repo)
    path = repo.path / ".git/theta/objects" / made[:2] / made[2:4] / made
    assert plan["written_bytes"] == path.stat().st_size
    do(repo, only(done))
    assert repo.status() == ""
    assert "Nothing to do" in repo.theta("repack")
    assert json.loads(repo.theta("du", "--json", f"HEAD:{NAME}"))["dead"] == 0

    # A clone of the tip alone needs nothing but the new object.
    repo.theta("fsck")
    clone = Repo(repo.path.parent / "clone")
    repo.git("init", "-q", "--bare", "../remote.git")
    repo.git("push", "-q", "../remote.git", "main")
    repo.git("clone", "-q", "--depth", "1", "--no-checkout", f"file://{repo.path.parent}/remote.git",
             str(clone.path))  # fmt: skip
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "main")
    assert (clone.path / NAME).read_bytes() == safetensors(tensors)
    assert len(list(clone.path.glob(".git/theta/objects/*/*/*"))) == 1


def test_a_merge_is_packed_with_what_it_was_merged_from(tmp_path: Path, sealed: Path) -> None:
    """The parents of recipes move too: nothing else is left of the store, and all comes back."""
    repo, hashes = opened("recipes", tmp_path)
    repo.git("checkout", "-q", "-b", "here", "v6")
    before = _objects(repo)
    repo.theta("repack", "--yes")
    after = _objects(repo)
    assert len(after) == 1 < len(before)
    assert repo.blob(f":{NAME}").count(b"  merge ") == 18
    repo.git("commit", "-q", "-m", "repacked")
    repo.git("remote", "remove", "origin")
    for path in repo.path.glob(".git/theta/objects/*/*/*"):
        if path.name not in after:
            path.unlink()
    (repo.path / NAME).unlink()
    repo.git("checkout", "--", NAME)
    found = hashlib.sha256((repo.path / NAME).read_bytes()).hexdigest()
    assert found == hashes[6][NAME]


def test_what_cannot_be_moved_is_refused(repo: Repo) -> None:
    """Nothing is staged where an object is damaged, a file is in conflict, or none is meant."""
    for seed in range(3):
        repo.write(NAME, safetensors({**model(), "head.weight": model(seed)["head.weight"]}))
        repo.commit(f"version {seed}")
    repo.git("init", "-q", "--bare", "../remote.git")
    repo.git("remote", "add", "origin", "../remote.git")
    repo.git("push", "-q", "origin", "main")
    for path in repo.path.glob(".git/theta/objects/*/*/*"):
        path.chmod(0o644)
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    text = repo.blob(f":{NAME}")
    repair = take(repo, "git", "theta", "repack", "--yes")
    assert repo.blob(f":{NAME}") == text
    do(repo, repair)
    assert NAME in do(repo, take(repo, "git", "theta", "repack", "elsewhere"))
    assert "git-theta  3 versions of 1 file" in do(repo, take(repo, "git", "theta", "migrate"))
    assert "2 objects" in repo.theta("repack", "--yes")
    blob = repo.git("rev-parse", f":{NAME}").strip()
    rows = "".join(f"100644 {blob} {stage}\t{NAME}\n" for stage in (1, 2, 3))
    repo.git("update-index", "--index-info", stdin=f"0 {'0' * 40}\t{NAME}\n{rows}".encode())
    assert "conflict" in do(repo, take(repo, "git", "theta", "migrate", "--to-manifest", "2"))
