"""Objects that were damaged, or planted by others, are not believed when a file is added."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"
NewRepo = Callable[..., Repo]


def objects(repo: Repo) -> list[Path]:
    return [p for p in (repo.path / ".git/theta/objects").rglob("*") if p.is_file()]


def poison(paths: list[Path]) -> None:
    """Zeros instead of the bytes, of the same length, under an old time."""
    for path in paths:
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
        os.utime(path, (1_600_000_000, 1_600_000_000))


def checked_out(repo: Repo, name: str = NAME) -> bytes:
    (repo.path / name).unlink()
    repo.git("checkout", "-q", "-f", "--", name)
    return (repo.path / name).read_bytes()


def chained(repo: Repo) -> bytes:
    """Two versions whose blocks are chains; the newer one, and what was stored for it."""
    first = model(layers=2, width=128)
    repo.write(NAME, safetensors(first))
    repo.commit("one")
    second = {name: changed(value) if value.ndim == 2 else value for name, value in first.items()}
    data = safetensors(second)
    repo.write(NAME, data)
    repo.commit("two")
    manifest = parse_manifest(repo.blob(f"HEAD:{NAME}"))
    assert any(len(b.chain) > 1 for entry in manifest.entries for b in entry.blocks)
    return data


@pytest.mark.parametrize("memo", ["with", "without"])
@pytest.mark.parametrize("which", ["all", "the last of each chain", "the first of each chain"])
def test_adding_the_file_again_mends_the_store(repo: Repo, memo: str, which: str) -> None:
    data = chained(repo)
    manifest = parse_manifest(repo.blob(f"HEAD:{NAME}"))
    chains = [b.chain for entry in manifest.entries for b in entry.blocks if b.chain]
    some = {"all": slice(None), "the last of each chain": slice(-1, None)}.get(which, slice(1))
    names = {ref.oid for chain in chains for ref in chain[some]}
    poison([path for path in objects(repo) if path.name in names])
    if memo == "without":
        shutil.rmtree(repo.path / ".git/theta/memo", ignore_errors=True)
    os.utime(repo.path / NAME, (1_700_000_000, 1_700_000_000))
    done = repo.run("git", "add", "--renormalize", NAME)
    assert b"was damaged" in done.stderr
    repo.git("commit", "-q", "--allow-empty", "-m", "mended")
    assert checked_out(repo) == data
    # And once more, by a process that did not find the damage.
    os.utime(repo.path / NAME, (1_700_000_001, 1_700_000_001))
    assert repo.run("git", "add", "--renormalize", NAME).stderr == b""
    assert checked_out(repo) == data


def test_status_and_then_add(repo: Repo) -> None:
    """What moved the damaged object away was another process."""
    data = chained(repo)
    poison(objects(repo))
    os.utime(repo.path / NAME, (1_700_000_000, 1_700_000_000))
    repo.git("status")
    repo.git("add", NAME)
    repo.git("commit", "-q", "--allow-empty", "-m", "mended")
    assert checked_out(repo) == data


def test_another_file_with_the_same_tensors(repo: Repo) -> None:
    data = safetensors(model())
    repo.write(NAME, data)
    repo.commit("one")
    poison(objects(repo))
    repo.write("copy.safetensors", data)
    repo.commit("copy")
    assert checked_out(repo, "copy.safetensors") == data


def test_a_new_version_is_not_made_upon_a_damaged_one(repo: Repo) -> None:
    chained(repo)
    poison(objects(repo))
    after = model(seed=0, layers=2, width=128)
    after = {name: changed(value, seed=9) for name, value in after.items()}
    repo.write(NAME, safetensors(after))
    done = repo.run("git", "add", NAME, ok=(0, 1, 128))
    if done.returncode == 0:
        repo.git("commit", "-q", "-m", "three")
        assert checked_out(repo) == safetensors(after)
    else:
        assert b"damaged" in done.stderr


@pytest.mark.parametrize("how", ["storage", "alternates", "read-only storage"])
def test_what_another_repository_planted(new_repo: NewRepo, how: str) -> None:
    planter, victim = new_repo("planter"), new_repo("victim")
    data = safetensors(model(width=128))
    planter.write(NAME, data)
    planter.commit("planted")
    poison(objects(planter))
    if how == "alternates":
        (victim.path / ".git/objects/info").mkdir(exist_ok=True)
        (victim.path / ".git/objects/info/alternates").write_text(
            f"{planter.path / '.git/objects'}\n"
        )
    else:
        victim.git("config", "theta.storage", str(planter.path / ".git/theta"))
    victim.write(NAME, data)
    done = victim.run("git", "add", NAME)
    assert b"damaged" in done.stderr
    victim.git("commit", "-q", "-m", "mine")
    assert checked_out(victim) == data


def test_a_remote_folder_that_has_only_the_name(new_repo: NewRepo, tmp_path: Path) -> None:
    """An object in git-lfs's storage of a remote by path, planted before the push."""
    repo = new_repo("mine")
    data = safetensors({"w": np.arange(4096, dtype=np.float32)})
    repo.write(NAME, data)
    repo.commit("one")
    remote = tmp_path / "remote.git"
    repo.git("init", "-q", "--bare", str(remote))
    for path in objects(repo):
        planted = remote / "lfs/objects" / path.name[:2] / path.name[2:4] / path.name
        planted.parent.mkdir(parents=True)
        planted.write_bytes(bytes(path.stat().st_size))
    repo.git("remote", "add", "origin", str(remote))
    done = repo.run("git", "push", "-q", "origin", "main", ok=(0, 1))
    if done.returncode == 0:
        repo.git("clone", "-q", str(remote), str(tmp_path / "clone"))
        clone = Repo(tmp_path / "clone")
        clone.theta("install", "--local")
        clone.git("checkout", "-q", "-f", "HEAD", "--", ".")
        assert (clone.path / NAME).read_bytes() == data
    else:
        assert b"damaged" in done.stderr


def test_status_hashes_nothing_twice(repo: Repo) -> None:
    """A memory of what was hashed outlives the process: objects are read by their times only."""
    repo.write(NAME, safetensors(model()))
    repo.commit("one")
    memory = repo.path / ".git/theta/verified"
    if not memory.exists():  # others may write here by their group: known when it is older
        pytest.skip("the folder is writable by others")
    before = memory.read_text().splitlines()
    assert {path.name for path in objects(repo)} == {line.split()[0] for line in before}
    os.utime(repo.path / NAME)
    repo.git("status")
    assert memory.read_text().splitlines() == before
