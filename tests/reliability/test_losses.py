"""Where git-theta 0.2 was seen to lose data, or to fail: none of it may happen here.

One test for each failure, named after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta_ext.manifest.text import parse_manifest
from tests.scenarios.checkpoints import changed, model, safetensors
from tests.scenarios.repositories import Repo
from tests.scenarios.torchzip import Storage, save, state_dict, tensor

NAME = "model.safetensors"
BIG = np.random.default_rng(0).normal(0, 0.02, (256, 192)).astype(np.float32)


def both_come_back(repo: Repo, old: bytes, new: bytes, name: str = NAME) -> None:
    """Commit two versions; each is checked out as it was, into an empty work tree."""
    for data in (old, new):
        repo.write(name, data)
        repo.commit("version")
    assert repo.blob(f"HEAD~1:{name}") != repo.blob(f"HEAD:{name}")
    for revision, data in (("HEAD~1", old), ("HEAD", new)):
        (repo.path / name).unlink()
        repo.git("checkout", "-q", revision, "--", name)
        assert (repo.path / name).read_bytes() == data


def last_kind(repo: Repo, tensor_name: str) -> str:
    """The last update of a tensor in HEAD."""
    entries = parse_manifest(repo.blob(f"HEAD:{NAME}")).entries
    entry = next(entry for entry in entries if entry.tensor.name == tensor_name)
    return entry.blocks[0].chain[-1].kind


def with_entry(value: NDArray[np.generic], new: object) -> NDArray[np.generic]:
    """The array with its 77th entry replaced."""
    found = value.copy()
    found.reshape(-1)[77] = new
    return found


NEARLY_EQUAL: dict[str, tuple[NDArray[np.generic], NDArray[np.generic]]] = {
    "a tensor with a NaN": (with_entry(BIG, np.nan), with_entry(BIG + np.float32(1), np.nan)),
    "a NaN with another payload": (
        with_entry(BIG, np.nan),
        with_entry(BIG.view(np.uint32), 0x7FC00123).view(np.float32),
    ),
    "large int64 ids": (
        np.arange(2**62, 2**62 + 5000, dtype=np.int64),
        np.arange(2**62, 2**62 + 5000, dtype=np.int64) + 1,
    ),
    "values near 1e-9": (np.full(5000, 1e-9, np.float32), np.full(5000, 2e-9, np.float32)),
    "a change of one ulp": (BIG, with_entry(BIG, np.nextafter(BIG.reshape(-1)[77], np.inf))),
    "a zero that becomes negative": (with_entry(BIG, 0.0), with_entry(BIG, -0.0)),
}


@pytest.mark.parametrize("name", NEARLY_EQUAL)
def test_taken_for_unchanged(repo: Repo, name: str) -> None:
    old, new = NEARLY_EQUAL[name]
    both_come_back(repo, safetensors({"w": old}), safetensors({"w": new}))


def test_a_sparse_update_of_very_different_values_is_rounded(repo: Repo) -> None:
    old = with_entry(BIG, 1e4)
    new = with_entry(BIG, 1.2345e-3)
    both_come_back(repo, safetensors({"w": old}), safetensors({"w": new}))
    assert last_kind(repo, "w") == "sparse"


def test_an_inferred_low_rank_update_is_inexact_and_larger_than_dense(repo: Repo) -> None:
    random = np.random.default_rng(1)
    change = random.normal(0, 0.05, (256, 2)) @ random.normal(0, 0.05, (2, 192))
    new = (BIG + change).astype(np.float32)
    both_come_back(repo, safetensors({"w": BIG}), safetensors({"w": new}))
    entry = parse_manifest(repo.blob(f"HEAD:{NAME}")).entries[0]
    assert [ref.kind for ref in entry.blocks[0].chain] == ["dense", "low-rank"]
    assert entry.blocks[0].chain[1].size < entry.blocks[0].chain[0].size / 2


def test_an_object_with_a_flipped_bit_is_checked_out_without_a_word(repo: Repo) -> None:
    repo.write(NAME, safetensors({"w": BIG}))
    repo.commit()
    ref = parse_manifest(repo.blob(f"HEAD:{NAME}")).entries[0].blocks[0].chain[0]
    path = repo.path / ".git/theta/objects" / ref.oid[:2] / ref.oid[2:4] / ref.oid
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    (repo.path / NAME).unlink()
    done = repo.run("git", "checkout", "--", NAME, ok=(1, 128))
    assert ref.oid in done.stderr.decode()
    assert not (repo.path / NAME).exists()


def test_the_work_tree_keeps_old_values_after_a_supplied_update(repo: Repo, tmp_path: Path) -> None:
    tensors = model()
    repo.write(NAME, safetensors(tensors))
    repo.commit()
    target = "encoder.layer.0.attention.query.weight"
    update = {
        f"{target}.indices": np.array([3, 70], np.int64),
        f"{target}.values": np.array([1.5, -2.5], np.float32),
    }
    (tmp_path / "edit.safetensors").write_bytes(safetensors(update))
    repo.theta("add", NAME, "--update", str(tmp_path / "edit.safetensors"), "--type", "sparse")
    new = np.array(tensors[target])
    new.reshape(-1)[[3, 70]] = [1.5, -2.5]
    assert (repo.path / NAME).read_bytes() == safetensors({**tensors, target: new})
    assert repo.status() == f"M  {NAME}\n"


def test_metadata_and_the_order_of_keys_are_lost(repo: Repo) -> None:
    names = ["z", "a", "m.10", "m.9"]
    old = safetensors(dict.fromkeys(names, BIG[:5]), {"z": "1", "format": "pt", "a": "é"})
    new = safetensors(dict.fromkeys(names[::-1], BIG[:5]), {"a": "é", "z": "2"})
    both_come_back(repo, old, new)


def test_ties_and_types_of_dictionaries_are_lost(repo: Repo) -> None:
    storage = Storage("0", "FloatStorage", BIG.size)
    tied = tensor(storage, BIG.shape)
    value = {"state": state_dict({"embed": tied, "head": tied}), "plain": {"head": tied}}
    files = [save(value, {"0": data.tobytes()}) for data in (BIG, BIG + np.float32(1))]
    both_come_back(repo, files[0], files[1], "model.pt")
    manifest = parse_manifest(repo.blob("HEAD:model.pt"))
    assert len([e for e in manifest.entries if e.tensor.count == BIG.size]) == 1


@pytest.mark.parametrize(
    "dtype",
    [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2],
    ids=lambda dtype: np.dtype(dtype).name,
)
def test_small_floats_cannot_be_added(repo: Repo, dtype: type[np.generic]) -> None:
    files = [safetensors({"w": (BIG * factor).astype(dtype)}) for factor in (1, 1.5)]
    both_come_back(repo, files[0], files[1])
    assert parse_manifest(repo.blob(f"HEAD:{NAME}")).format == "safetensors"


def test_nested_optimizer_states_cannot_be_added(repo: Repo) -> None:
    def optimizer(step: int) -> bytes:
        moments = {
            key: tensor(Storage(str(number), "FloatStorage", BIG.size), BIG.shape)
            for number, key in enumerate(("exp_avg", "exp_avg_sq"))
        }
        groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0], "amsgrad": False}]
        value = {"optimizer": {"state": {0: {"step": step, **moments}}, "param_groups": groups}}
        return save(value, {str(n): (BIG * (step + n)).tobytes() for n in range(2)})

    both_come_back(repo, optimizer(1), optimizer(2), "optimizer.pt")
    names = [e.tensor.name for e in parse_manifest(repo.blob("HEAD:optimizer.pt")).entries]
    assert names == ["optimizer.state.0.exp_avg", "optimizer.state.0.exp_avg_sq"]


def remote(repo: Repo, path: Path) -> str:
    """A bare repository, known as the name of its folder."""
    repo.git("init", "-q", "--bare", str(path))
    repo.git("remote", "add", path.name, path.as_uri())
    return path.name


def test_the_pre_push_hook_replaces_that_of_git_lfs(
    new_repo: Callable[..., Repo], tmp_path: Path
) -> None:
    repo = new_repo("both", install=False)
    repo.git("lfs", "install", "--local")
    repo.theta("install", "--local")
    repo.theta("track", "*.safetensors")
    repo.git("lfs", "track", "*.mp4")
    video = np.random.default_rng(2).bytes(3000)
    repo.write("talk.mp4", video)
    repo.write(NAME, safetensors({"w": BIG}))
    repo.commit()
    repo.git("push", "-q", remote(repo, tmp_path / "first"), "main")
    kept = [path.read_bytes() for path in (tmp_path / "first/lfs/objects").glob("*/*/*")]
    assert video in kept
    assert len(kept) == 1 + len(
        {ref.oid for ref in parse_manifest(repo.blob(f":{NAME}")).objects()}
    )


def history_with_a_merge(repo: Repo) -> dict[str, bytes]:
    """Two branches that changed different tensors, merged; the truth by revision."""
    tensors = model()
    names = [f"encoder.layer.{layer}.attention.query.weight" for layer in (0, 1)]
    repo.write(NAME, safetensors(tensors))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    theirs = {**tensors, names[1]: changed(tensors[names[1]])}
    repo.write(NAME, safetensors(theirs))
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    ours = {**tensors, names[0]: changed(tensors[names[0]])}
    repo.write(NAME, safetensors(ours))
    repo.commit("ours")
    merged = {**ours, names[1]: theirs[names[1]]}
    return {
        "base": safetensors(tensors), "side": safetensors(theirs), "main": safetensors(ours),
        "merged": safetensors(merged),
    }  # fmt: skip


def cloned(repo: Repo, source: Path, path: Path, *options: str) -> Repo:
    """A clone that has nothing of the first one's store, checked out."""
    repo.git("clone", "-q", "--no-checkout", *options, source.as_uri(), str(path))
    clone = Repo(path)
    clone.theta("install", "--local")
    clone.git("checkout", "-q", "main")
    return clone


def test_push_fails_after_a_merge_and_from_a_fresh_clone_to_a_second_remote(
    repo: Repo, tmp_path: Path
) -> None:
    truth = history_with_a_merge(repo)
    repo.git("merge", "-q", "-m", "both", "side")
    assert (repo.path / NAME).read_bytes() == truth["merged"]
    repo.git("push", "-q", remote(repo, tmp_path / "first"), "main")
    clone = cloned(repo, tmp_path / "first", tmp_path / "clone")
    clone.git("push", "-q", remote(clone, tmp_path / "second"), "main")
    last = cloned(repo, tmp_path / "second", tmp_path / "last")
    assert (last.path / NAME).read_bytes() == truth["merged"]
    for revision, key in (("HEAD^1", "main"), ("HEAD^2", "side"), ("HEAD~2", "base")):
        last.git("checkout", "-q", revision, "--", NAME)
        assert (last.path / NAME).read_bytes() == truth[key]
    last.theta("fsck")


def test_push_fails_for_history_older_than_track(
    new_repo: Callable[..., Repo], tmp_path: Path
) -> None:
    repo = new_repo("late", install=False)
    first, second = safetensors({"w": BIG}), safetensors({"w": BIG + np.float32(1)})
    repo.write(NAME, first)
    repo.commit("before track")
    repo.theta("install", "--local")
    repo.theta("track", "*.safetensors")
    repo.write(NAME, second)
    repo.commit("after track")
    repo.git("push", "-q", remote(repo, tmp_path / "first"), "main")
    clone = cloned(repo, tmp_path / "first", tmp_path / "clone")
    assert (clone.path / NAME).read_bytes() == second
    clone.git("checkout", "-q", "HEAD~1")
    assert (clone.path / NAME).read_bytes() == first


@pytest.mark.parametrize("command", ["rebase", "cherry-pick"])
def test_it_fails_with_changes_on_both_sides(repo: Repo, command: str) -> None:
    truth = history_with_a_merge(repo)
    if command == "rebase":
        repo.git("checkout", "-q", "side")
        repo.git("rebase", "-q", "main")
    else:
        repo.git("cherry-pick", "side")
    assert (repo.path / NAME).read_bytes() == truth["merged"]
    assert repo.status() == ""


def test_a_clone_of_depth_1_cannot_rebuild_an_update(repo: Repo, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    value = BIG
    for _ in range(4):
        repo.write(NAME, safetensors({"w": value}))
        repo.commit()
        last = value
        value = (value + random.normal(0, 1e-5, BIG.shape)).astype(np.float32)
    repo.git("push", "-q", remote(repo, tmp_path / "first"), "main")
    assert last_kind(repo, "w") != "dense"
    clone = cloned(repo, tmp_path / "first", tmp_path / "clone", "--depth=1")
    assert (clone.path / NAME).read_bytes() == safetensors({"w": last})


def test_the_average_merge_crashes_and_deletes_the_file(repo: Repo) -> None:
    """On tensors that both changed, integers and one that a side removed."""
    base = {"w": BIG, "ids": np.arange(9), "gone": BIG[:3]}
    repo.write(NAME, safetensors(base))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "side")
    repo.write(NAME, safetensors({"w": BIG + np.float32(1), "ids": base["ids"]}))
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    repo.write(NAME, safetensors({**base, "w": BIG + np.float32(3)}))
    repo.commit("ours")
    repo.git("merge", "-q", "-m", "both", "side", env={"GIT_THETA_MERGE": "average"})
    ours, theirs = BIG + np.float32(3), BIG + np.float32(1)
    data = (repo.path / NAME).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    assert list(header) == ["w", "ids"]
    first, last = header["w"]["data_offsets"]
    found = np.frombuffer(data[start + first : start + last], np.float32).reshape(BIG.shape)
    np.testing.assert_allclose(found, (ours + theirs) / 2, rtol=1e-6)
    assert repo.status() == ""


def test_a_torch_zip_is_written_into_a_safetensors_file(repo: Repo) -> None:
    """What a file is does not depend on a variable, nor on its name."""
    archive = save(
        state_dict({"w": tensor(Storage("0", "FloatStorage", BIG.size), BIG.shape)}),
        {"0": BIG.tobytes()},
    )
    both_come_back(repo, safetensors({"w": BIG}), archive)
    assert parse_manifest(repo.blob(f"HEAD~1:{NAME}")).format == "safetensors"
    assert parse_manifest(repo.blob(f"HEAD:{NAME}")).format == "torch-zip"


def test_logs_flood_the_terminal(repo: Repo) -> None:
    repo.write(NAME, safetensors(model()))
    added = repo.run("git", "add", NAME)
    committed = repo.run("git", "commit", "-q", "-m", "quiet")
    (repo.path / NAME).unlink()
    restored = repo.run("git", "checkout", "-q", "--", NAME)
    for done in (added, committed, restored, repo.run("git", "status", "--short")):
        assert (done.stdout, done.stderr) == (b"", b"")
