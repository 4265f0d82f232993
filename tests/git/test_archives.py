"""Archives of checkpoints through Git: split by the tensors in them, merged, or kept and said."""

from __future__ import annotations

import subprocess

import numpy as np

import git_theta_ext as theta
from tests.scenarios.containers import npz
from tests.scenarios.examples import stack, tarred, zipped
from tests.scenarios.repositories import Repo
from tests.scenarios.torchzip import Storage, save, state_dict, tensor


def _nemo(weight: float, bias: float, epoch: int, time: float) -> bytes:
    """A `.nemo` file of two layers, saved at a time."""
    layers = {"w": tensor(Storage("0", "FloatStorage", 6), (2, 3)),
              "b": tensor(Storage("1", "FloatStorage", 3), (3,)), "epoch": epoch}  # fmt: skip
    values = (np.full(6, weight, np.float32), np.full(3, bias, np.float32))
    archive = save(state_dict(layers), {str(n): one.tobytes() for n, one in enumerate(values)})
    return tarred({"./model_config.yaml": b"rate: 16000\n", "./model_weights.ckpt": archive}, time)


def test_archives_are_split_by_what_lies_in_them_and_merge(repo: Repo) -> None:
    repo.theta("track", "*.nemo", "*.mar", "*.ckpt", "*.caffemodel", "*.pdparams", "*.bin")
    repo.write("m.nemo", _nemo(1, 1, 3, 1.5))
    names = {"t.mar": "torchserve-{}.mar", "m.ckpt": "mindspore-{}.ckpt",
             "c.caffemodel": "caffe-{}.caffemodel", "p.pdparams": "paddle-{}.pdparams",
             "g.bin": "openvino-{}.bin", "g.xml": "openvino-{}.xml"}  # fmt: skip
    for path, name in names.items():
        repo.write(path, stack(name.format("first")))
    assert "opaque" not in repo.run("git", "add", "-A").stderr.decode()
    repo.git("commit", "-qm", "first")
    repo.git("checkout", "-q", "-b", "more")
    for path, name in names.items():
        repo.write(path, stack(name.format("second")))
    repo.write("m.nemo", _nemo(1, 2, 4, 2.5))
    repo.git("commit", "-qam", "second")
    said = repo.theta("diff", "HEAD~1", "HEAD")
    changed = ("model_weights.ckpt/b", "model.pt/dense.weight", "dense.weight.chunks", "fc1.0",
               "dense.weight", "epoch")  # fmt: skip
    assert not [name for name in changed if name not in said]
    assert "model_weights.ckpt/w" not in said

    repo.git("checkout", "-q", "-")
    assert (repo.path / "t.mar").read_bytes() == stack("torchserve-first.mar")
    repo.write("m.nemo", _nemo(5, 1, 3, 3.5))
    repo.git("commit", "-qam", "ours")
    repo.git("merge", "-q", "more")
    assert (repo.path / "m.nemo").read_bytes() in [_nemo(5, 2, 4, time) for time in (2.5, 3.5)]
    assert (repo.path / "t.mar").read_bytes() == stack("torchserve-second.mar")
    assert repo.status() == ""
    with theta.open("m.nemo", repository=repo.path) as file:
        assert file["model_weights.ckpt/w"].tolist() == [[5] * 3] * 2
    repo.theta("fsck")


def test_compressed_archives_are_kept_and_said(repo: Repo) -> None:
    repo.theta("track", "*.nemo", "*.mar", "*.npz", "*.zip")
    repo.write("old.nemo", stack("nemo-first.gz.nemo"))
    said = repo.run("git", "add", "old.nemo").stderr.decode()
    advice = "gzip -dc FILE"
    assert "compressed (gzip): every version costs as much again; track what is inside" in said
    assert said.rstrip().endswith(advice)
    command = advice.replace("FILE", "old.nemo")
    inside = subprocess.run(command.split(), cwd=repo.path, capture_output=True, check=True).stdout
    repo.write("new.nemo", inside)
    assert "new.nemo" not in repo.run("git", "add", "new.nemo").stderr.decode()
    repo.write("t.mar", stack("torchserve-deflated.mar"))
    said = repo.run("git", "add", "t.mar").stderr.decode()
    assert "its members are compressed" in said
    assert "(zip -0) it is split by tensor" in said
    repo.write("a.npz", npz({"w": np.arange(9000.0)}, compressed=True))
    assert "(numpy.savez) it is split" in repo.run("git", "add", "a.npz").stderr.decode()
    repo.write("b.zip", zipped({"a.npy": b"no array", "b.txt": b"text"}))
    assert "b.zip" not in repo.run("git", "add", "b.zip").stderr.decode()
    repo.git("commit", "-qm", "all")
    assert "model_weights.ckpt/dense.weight" in repo.theta("show", "HEAD:new.nemo")
    repo.git("rm", "-q", "--cached", "old.nemo")
    repo.git("checkout", "-q", "HEAD", "--", "old.nemo")
    assert (repo.path / "old.nemo").read_bytes() == stack("nemo-first.gz.nemo")
