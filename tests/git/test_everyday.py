"""Ordinary Git commands on checkpoints: whatever comes back is bit for bit what went in."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from git_theta_ext.manifest.model import is_manifest
from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import awkward, changed, model, safetensors
from tests.scenarios.repositories import Repo

NAME = "model.safetensors"


def two_versions(repo: Repo) -> tuple[bytes, bytes]:
    """Commit a model and a fine-tune of one tensor; the bytes of both."""
    tensors = model()
    first = safetensors(tensors)
    repo.write(NAME, first)
    repo.commit("first")
    name = "encoder.layer.1.attention.query.weight"
    second = safetensors({**tensors, name: changed(tensors[name])})
    repo.write(NAME, second)
    repo.commit("second")
    return first, second


def test_git_stores_a_manifest_and_objects(repo: Repo) -> None:
    repo.write(NAME, safetensors(model()))
    repo.commit()
    manifest = parse_manifest(repo.blob(f"HEAD:{NAME}"))
    assert {entry.tensor.name for entry in manifest.entries} == set(model())
    for ref in manifest.objects():
        path = repo.path / ".git/theta/objects" / ref.oid[:2] / ref.oid[2:4] / ref.oid
        assert path.stat().st_size == ref.size


def test_negative_control_without_the_filter_git_stores_the_checkpoint(
    new_repo: Callable[..., Repo],
) -> None:
    repo = new_repo(install=False)
    data = safetensors(model())
    repo.write(NAME, data)
    repo.commit()
    assert repo.blob(f"HEAD:{NAME}") == data


def test_checkout_of_each_version_gives_its_bytes(repo: Repo) -> None:
    first, second = two_versions(repo)
    repo.git("checkout", "-q", "HEAD~1")
    assert (repo.path / NAME).read_bytes() == first
    assert repo.status() == ""
    repo.git("checkout", "-q", "main")
    assert (repo.path / NAME).read_bytes() == second
    assert repo.status() == ""


@pytest.mark.parametrize(
    "data",
    [
        safetensors(awkward(), {"format": "pt", "ünïcode": "✓"}),
        safetensors({}),
        b"\x00",
        b"not a checkpoint at all\n",
        b"\r\n".join([b"line"] * 1000),
        os.urandom(3_000_000),
        b"",
    ],
    ids=["awkward", "no-tensors", "zero-byte", "text", "crlf", "random", "empty"],
)
def test_any_bytes_come_back(repo: Repo, data: bytes) -> None:
    path = repo.write("x.bin", data)
    repo.commit()
    path.unlink()
    repo.git("checkout", "--", "x.bin")
    assert path.read_bytes() == data
    assert repo.status() == ""


def test_an_unchanged_tensor_costs_nothing(repo: Repo) -> None:
    two_versions(repo)
    old = {ref.oid for ref in parse_manifest(repo.blob(f"HEAD~1:{NAME}")).objects()}
    new = {ref.oid for ref in parse_manifest(repo.blob(f"HEAD:{NAME}")).objects()}
    assert len(new - old) == 1
    assert old <= new


def test_stash_rebase_cherry_pick_worktree_and_archive(repo: Repo, tmp_path: Path) -> None:
    first, second = two_versions(repo)
    third = safetensors({**model(), "num_batches_tracked": np.array(9, np.int64)})
    path = repo.write(NAME, third)
    repo.git("stash")
    assert path.read_bytes() == second
    repo.git("stash", "pop")
    assert path.read_bytes() == third
    repo.git("checkout", "--", NAME)

    repo.git("checkout", "-q", "-b", "side", "HEAD~1")
    repo.write("notes.txt", b"unrelated\n")
    repo.commit("notes")
    repo.git("rebase", "-q", "main")
    assert path.read_bytes() == second
    repo.git("checkout", "-q", "-b", "pick", "main~1")
    repo.git("cherry-pick", "main")
    assert path.read_bytes() == second

    repo.git("worktree", "add", "-q", str(tmp_path / "tree"), "main~1")
    assert (tmp_path / "tree" / NAME).read_bytes() == first
    repo.git("archive", "-o", str(tmp_path / "a.tar"), "main")
    with tarfile.open(tmp_path / "a.tar") as archive:
        member = archive.extractfile(NAME)
        assert member is not None
        assert member.read() == second


def test_the_same_bytes_give_the_same_manifest(repo: Repo) -> None:
    two_versions(repo)
    manifest = repo.blob(f"HEAD:{NAME}")
    repo.git("rm", "-q", "--cached", NAME)
    repo.git("reset", "-q", "HEAD", "--", NAME)
    os.utime(repo.path / NAME)
    repo.git("add", NAME)
    assert repo.blob(f":{NAME}") == manifest
    assert repo.status() == ""


def test_content_that_is_not_the_work_tree_file(repo: Repo) -> None:
    first, second = two_versions(repo)
    oid = repo.run("git", "hash-object", "-w", "--stdin", "--path", NAME, stdin=first)
    assert is_manifest(repo.blob(oid.stdout.decode().strip())[:64])
    assert (repo.path / NAME).read_bytes() == second
    blob = oid.stdout.decode().strip()
    repo.git("update-index", "--cacheinfo", f"100644,{blob},{NAME}")
    repo.git("checkout", "--", NAME)
    assert (repo.path / NAME).read_bytes() == first


def test_renaming_and_copying_store_nothing(repo: Repo) -> None:
    two_versions(repo)
    before = set((repo.path / ".git/theta/objects").glob("??/??/*"))
    repo.git("mv", NAME, "renamed.safetensors")
    (repo.path / "copy.pt").write_bytes((repo.path / "renamed.safetensors").read_bytes())
    repo.commit("rename")
    assert set((repo.path / ".git/theta/objects").glob("??/??/*")) == before


def test_a_manifest_in_the_work_tree_passes_through(repo: Repo) -> None:
    two_versions(repo)
    manifest = repo.blob(f"HEAD:{NAME}")
    repo.write(NAME, manifest)
    done = repo.run("git", "add", NAME)
    assert b"a manifest, not a checkpoint" in done.stderr
    assert repo.blob(f":{NAME}") == manifest


def test_a_manifest_with_conflict_markers_is_refused(repo: Repo) -> None:
    two_versions(repo)
    before = repo.blob(f":{NAME}")
    lines = repo.blob(f"HEAD:{NAME}").split(b"\n")
    lines[3:3] = [b"<<<<<<< HEAD"]
    repo.write(NAME, b"\n".join(lines))
    done = repo.run("git", "add", NAME, ok=(128,))
    assert b"conflict" in done.stderr
    assert repo.blob(f":{NAME}") == before


def test_a_raw_checkpoint_committed_by_someone_else_is_left_alone(repo: Repo) -> None:
    data = safetensors(model())
    repo.write(NAME, data)
    repo.git("-c", "filter.theta.process=", "-c", "filter.theta.required=false", "add", NAME)
    repo.git("commit", "-q", "-m", "raw")
    assert repo.blob(f"HEAD:{NAME}") == data
    os.utime(repo.path / NAME)
    assert repo.status() == ""
    repo.write(NAME, safetensors(model(seed=1)))
    repo.commit("changed")
    assert is_manifest(repo.blob(f"HEAD:{NAME}")[:64])


def test_skip_smudge_leaves_manifests_and_pull_writes_checkpoints(repo: Repo) -> None:
    _, second = two_versions(repo)
    path = repo.path / NAME
    path.unlink()
    repo.git("checkout", "--", NAME, env={"GIT_THETA_SKIP_SMUDGE": "1"})
    assert is_manifest(path.read_bytes()[:64])
    repo.theta("pull")
    assert path.read_bytes() == second
    assert repo.status() == ""


def test_a_damaged_object_is_never_checked_out(repo: Repo) -> None:
    two_versions(repo)
    manifest = parse_manifest(repo.blob(f"HEAD:{NAME}"))
    ref = max(manifest.objects(), key=lambda ref: ref.size)
    path = repo.path / ".git/theta/objects" / ref.oid[:2] / ref.oid[2:4] / ref.oid
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)
    (repo.path / NAME).unlink()
    done = repo.run("git", "checkout", "--", NAME, ok=(128,))
    assert ref.oid.encode() in done.stderr
    assert b"git restore" in done.stderr
    assert not (repo.path / NAME).exists()


def test_what_git_sends_is_what_is_stored(repo: Repo) -> None:
    """The pipe carries one version and the work-tree file another that differs by one bit."""
    _, second = two_versions(repo)
    tampered = bytearray(second)
    tampered[-3] ^= 1
    oid = repo.run("git", "hash-object", "-w", "--stdin", "--path", NAME, stdin=bytes(tampered))
    (repo.path / NAME).unlink()
    blob = oid.stdout.decode().strip()
    repo.git("update-index", "--cacheinfo", f"100644,{blob},{NAME}")
    repo.git("checkout", "--", NAME)
    assert (repo.path / NAME).read_bytes() == bytes(tampered)


def test_names_with_spaces_quotes_newlines_and_unicode(repo: Repo) -> None:
    data = safetensors(model())
    names = ["a b.pt", 'it\'s "q".pt', "new\nline.pt", "ünï✓.pt", "dir/:(top)x.pt", "-dash.pt"]
    for name in names:
        repo.write(name, data)
    repo.commit()
    for name in names:
        assert is_manifest(repo.blob(f"HEAD:{name}")[:64])
        (repo.path / name).unlink()
    repo.git("checkout", "--", ".")
    for name in names:
        assert (repo.path / name).read_bytes() == data
    assert repo.status() == ""


def test_commands_in_a_subfolder_and_with_C(repo: Repo, tmp_path: Path) -> None:
    data = safetensors(model())
    repo.write("deep/er/model.pt", data)
    sub = Repo(repo.path / "deep/er")
    sub.git("add", "model.pt")
    Repo(tmp_path).git("-C", str(sub.path), "commit", "-q", "-m", "sub")
    (sub.path / "model.pt").unlink()
    sub.git("checkout", "model.pt")
    assert (sub.path / "model.pt").read_bytes() == data


def test_the_index_of_another_file_is_respected(repo: Repo, tmp_path: Path) -> None:
    two_versions(repo)
    other = {"GIT_INDEX_FILE": str(tmp_path / "index")}
    repo.git("read-tree", "HEAD~1", env=other)
    repo.git("add", NAME, env=other)
    tree = repo.git("write-tree", env=other).strip()
    assert tree == repo.git("rev-parse", "HEAD^{tree}").strip()


def test_a_checkpoint_under_a_new_name_is_an_update_of_the_last(repo: Repo) -> None:
    tensors = model()
    repo.write("step-9.safetensors", safetensors(tensors))
    repo.write("unrelated.safetensors", safetensors({"other": np.arange(2000.0)}))
    repo.commit("step 9")
    moved = {
        name: changed(value, 1e-6) if value.dtype == np.float32 else value
        for name, value in tensors.items()
    }
    data = safetensors(moved)
    path = repo.write("step-10.safetensors", data)
    repo.commit("step 10")
    first = parse_manifest(repo.blob("HEAD:step-9.safetensors"))
    bases = {block.chain[0].oid for entry in first.entries for block in entry.blocks if block.chain}
    chains = {
        entry.tensor.name: entry.blocks[0].chain
        for entry in parse_manifest(repo.blob("HEAD:step-10.safetensors")).entries
    }
    chain = chains["encoder.layer.0.attention.query.weight"]
    assert len(chain) == 2
    assert chain[0].oid in bases
    path.unlink()
    repo.git("checkout", "--", path.name)
    assert path.read_bytes() == data
