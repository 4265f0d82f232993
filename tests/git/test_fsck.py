"""`git theta fsck` against damage made on purpose, wherever a manifest may be named from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from git_theta_ext.checkpoints import fsck as integrity
from git_theta_ext.checkpoints.fsck import Finding
from git_theta_ext.cli.verbs.fsck import _lines as shown_lines
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.objects.blocks import Blocks
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
WEIGHT = "encoder.layer.1.attention.query.weight"


def version(seed: int) -> bytes:
    """A model with one tensor moved."""
    tensors = model()
    return safetensors({**tensors, WEIGHT: changed(tensors[WEIGHT], seed=seed)})


def fsck(repo: Repo, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The report; fails the test on another exit status."""
    command = [sys.executable, "-m", "git_theta_ext.cli.main", "fsck", "--json", *arguments]
    found: dict[str, Any] = json.loads(repo.run(*command, ok=(code,)).stdout)
    assert found["exit_code"] == code
    return found


def last_object(repo: Repo, spec: str = f"HEAD:{NAME}") -> Path:
    """The file of the update that a version of the tensor ends with."""
    manifest = parse_manifest(repo.blob(spec))
    entry = next(entry for entry in manifest.entries if entry.tensor.name == WEIGHT)
    oid = entry.blocks[0].chain[-1].oid
    return repo.path / ".git/theta/objects" / oid[:2] / oid[2:4] / oid


def flip(path: Path) -> None:
    """Damage the last byte of a file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_all_is_right(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit()
    found = fsck(repo)
    assert found["findings"] == []
    assert found["manifests"] == 1
    assert found["objects"] == sum(1 for _ in (repo.path / ".git/theta/objects").glob("??/??/*"))
    assert not (repo.path / ".git/theta/fsck/checked").exists()


def test_damaged_and_missing_objects_are_told_apart(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit()
    path = last_object(repo)
    flip(path)
    assert [item["kind"] for item in fsck(repo, code=5)["findings"]] == ["damaged"]
    path.write_bytes(b"short")
    assert [item["kind"] for item in fsck(repo, code=5)["findings"]] == ["damaged"]
    path.unlink()
    found = fsck(repo, code=6)["findings"]
    assert [(item["kind"], item["oid"]) for item in found] == [("missing", path.name)]


def test_many_missing_objects_are_counted() -> None:
    """A clone that has fetched nothing lacks thousands."""
    lacking = [Finding("missing", f"{number:064x}", "not here") for number in range(2000)]
    lines = list(shown_lines([*lacking, Finding("manifest", "ab", "is cut short")]))
    assert lines[0] == f"missing {0:064x}"
    assert lines[10:] == [
        "manifest ab: is cut short",
        "missing: 1990 more, of 2000 (--json names them all)",
    ]


@pytest.mark.parametrize("place", ["stash", "older stash", "index", "reflog", "worktree", "tag"])
def test_every_place_that_names_a_manifest_counts(repo: Repo, place: str) -> None:
    repo.write(NAME, safetensors(model()))
    repo.commit("base")
    repo.write(NAME, version(2))
    repo.git("add", NAME)
    path = last_object(repo, f":{NAME}")
    if place in ("stash", "older stash"):
        repo.git("stash")
    if place == "older stash":
        repo.write(NAME, version(3))
        repo.git("stash")
    if place in ("reflog", "tag"):
        repo.git("commit", "-q", "-m", "gone")
        if place == "tag":
            repo.git("tag", "-a", "-m", "kept", "kept")
        repo.git("reset", "-q", "--hard", "HEAD~1")
    if place == "tag":
        repo.git("reflog", "expire", "--expire=all", "--all")
    if place == "worktree":
        repo.git("reset", "-q", "--hard")
        repo.git("worktree", "add", "-q", "--detach", "../other")
        (repo.path.parent / "other" / NAME).write_bytes(version(2))
        subprocess.run(["git", "add", NAME], cwd=repo.path.parent / "other", check=True)
    path.unlink()
    assert [item["oid"] for item in fsck(repo, code=6)["findings"]] == [path.name]


def test_repair_fetches_from_the_remote(repo: Repo, tmp_path: Path) -> None:
    repo.write(NAME, version(1))
    repo.commit()
    repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    assert fsck(repo, "--remote", "origin", code=6)["remote_lacks"] != []
    repo.git("push", "-q", "origin", "main")
    assert fsck(repo, "--remote", "origin")["remote_lacks"] == []
    path = last_object(repo)
    whole = path.read_bytes()
    flip(path)
    assert fsck(repo, "--repair")["repaired"] == [path.name]
    assert path.read_bytes() == whole
    path.unlink()
    assert fsck(repo, "--repair")["repaired"] == [path.name]


def test_what_cannot_be_repaired_is_put_back(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit()
    path = last_object(repo)
    flip(path)
    damaged = path.read_bytes()
    assert fsck(repo, "--repair", code=5)["repaired"] == []
    assert path.read_bytes() == damaged


def test_a_manifest_that_lies_is_found(repo: Repo) -> None:
    repo.write(NAME, version(1))
    repo.commit()
    manifest = parse_manifest(repo.blob(f"HEAD:{NAME}"))
    sha256 = next(e for e in manifest.entries if e.tensor.name == WEIGHT).blocks[0].sha256
    forged = repo.blob(f"HEAD:{NAME}").replace(sha256.encode(), b"0" * 64)
    oid = repo.run("git", "hash-object", "-w", "--stdin", stdin=forged).stdout.decode().strip()
    found = fsck(repo, oid, code=5)["findings"]
    assert [(item["kind"], item["oid"], item["tensor"]) for item in found] == [
        ("block", oid, WEIGHT)
    ]
    broken = repo.run("git", "hash-object", "-w", "--stdin", stdin=forged[:-40]).stdout.decode()
    assert [item["kind"] for item in fsck(repo, broken.strip(), code=4)["findings"]] == ["manifest"]


def test_an_interrupted_check_goes_on(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write(NAME, version(1))
    repo.commit()
    read, calls = Blocks.read, []

    def stops(self: Blocks, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return read(self, *args)

    monkeypatch.setattr(Blocks, "read", stops)
    with pytest.raises(KeyboardInterrupt):
        integrity.check(Repository.discover(repo.path))
    monkeypatch.undo()
    kept = (repo.path / ".git/theta/fsck/checked").read_text().split()
    assert 0 < len(kept) < 5
    report = integrity.check(Repository.discover(repo.path), resume=True)
    assert (report.resumed, report.findings) == (len(kept), [])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full device")
def test_a_full_disk_keeps_nothing_from_being_checked(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the next run need not look at again is not noted."""
    full = Path("/dev/full")
    repo.write(NAME, version(1))
    repo.commit()
    monkeypatch.setattr(integrity.files, "appending", lambda *_, **__: full.open("ab"))
    report = integrity.check(Repository.discover(repo.path))
    assert report.blocks > 1
    assert report.findings == []


def test_a_bare_clone_without_objects(new_repo: Callable[..., Repo], tmp_path: Path) -> None:
    repo = new_repo("source")
    repo.write(NAME, version(1))
    repo.commit()
    bare = Repo(tmp_path / "bare.git")
    repo.git("clone", "-q", "--bare", ".", str(bare.path))
    found = fsck(bare, code=6)
    assert len(found["findings"]) == found["objects"] > 0
    shutil.copytree(repo.path / ".git/theta", bare.path / "theta", dirs_exist_ok=True)
    assert fsck(bare)["findings"] == []


def test_a_bare_repository_that_is_a_remote_by_its_path(repo: Repo, tmp_path: Path) -> None:
    """Its objects are where git-lfs keeps them, and reading finds them there."""
    repo.git("config", "theta.packBelow", "0")
    repo.write(NAME, version(1))
    repo.commit()
    host = Repo(tmp_path / "host.git")
    repo.git("init", "-q", "--bare", str(host.path))
    repo.git("push", "-q", str(host.path), "main")
    assert host.theta("show", f"main:{NAME}")
    found = fsck(host)
    assert found["findings"] == []
    assert found["objects"] > 0
    objects = [one for one in (host.path / "lfs/objects").rglob("*") if one.is_file()]
    flip(objects[0])
    objects[1].unlink()
    for one in (host.path / "theta/objects").rglob("*"):
        if one.name in (objects[0].name, objects[1].name):
            one.unlink()
    kinds = {one["oid"]: one["kind"] for one in fsck(host, code=5)["findings"]}
    assert kinds == {objects[0].name: "damaged", objects[1].name: "missing"}
    host.git("remote", "add", "origin", str(repo.path))
    assert sorted(fsck(host, "--repair")["repaired"]) == sorted(kinds)
