"""Make `tests/golden/torch_files.tar.xz`: what PyTorch 2.13 writes besides `torch.save`.

It needs torch, and nothing of this package:

    python tests/golden/make_torch_files.py

`fsdp/{base,ours,theirs}` are distributed checkpoints of two processes: a model under
`fully_shard`, a tensor that is cut along its columns, one that both have, and a number. Ours has
another first layer, theirs another last one; each was saved anew. `single` is of one process.
`exported/{one,two}.pt2` are two versions of an exported model with tied weights, a transposed one,
buffers and a constant. `exported/old.pt2` is the first as PyTorch 2.5 writes it, if the Python of
such a version is named: python tests/golden/make_torch_files.py PYTHON
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp

TARGET = Path(__file__).with_name("torch_files.tar.xz")
VERSIONS = ("base", "ours", "theirs")


def ranks(rank: int, folder: str) -> None:
    """One of two processes: saves the three versions."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard, distribute_tensor

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for version in VERSIONS:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(12, 9), torch.nn.Linear(9, 4, bias=False))
        columns = torch.randn(6, 10)
        with torch.no_grad():
            if version == "ours":
                model[0].weight += 1e-3
            elif version == "theirs":
                model[1].weight += 1e-3
        fully_shard(model, mesh=mesh)
        state = {
            "model": get_model_state_dict(model),
            "columns": distribute_tensor(columns, mesh, [Shard(1)]),
            "both": torch.arange(25.0).reshape(5, 5),
            "epoch": 3,
        }
        dcp.save(state, checkpoint_id=f"{folder}/fsdp/{version}")
    dist.destroy_process_group()


def single(folder: Path) -> None:
    """A checkpoint of one process."""
    torch.manual_seed(0)
    state = {
        "model": {"emb": torch.randn(20, 8), "layer": {"w": torch.randn(8, 8)}},
        "optim": {"state": {"layer.w": {"exp_avg": torch.randn(8, 8)}}, "lr": 0.1},
    }
    dcp.save(state, checkpoint_id=str(folder / "single"), no_dist=True)


class Exported(torch.nn.Module):
    """A model with one of each kind of tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(16, 12)
        self.tied = torch.nn.Linear(16, 12, bias=False)
        self.tied.weight = self.a.weight
        self.register_buffer("table", torch.arange(48.0).reshape(6, 8))
        self.turned = torch.nn.Parameter(torch.randn(10, 4).t())
        self.constant = torch.ones(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rest = self.table.sum() + self.turned.sum() + self.constant.sum()
        return self.a(x) + self.tied(x) + rest


def exported(folder: Path, *names: str) -> None:
    """Versions of an exported model, each a little further."""
    torch.manual_seed(0)
    model = Exported().eval()
    for name in names:
        path = folder / f"exported/{name}.pt2"
        path.parent.mkdir(exist_ok=True)
        torch.export.save(torch.export.export(model, (torch.zeros(2, 16),)), path)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter) * 1e-3


def main() -> None:
    """Write the archive, nothing in it but names and bytes."""
    if sys.argv[1:2] == ["old"]:
        return exported(Path(sys.argv[2]), "old")
    with tempfile.TemporaryDirectory() as made:
        mp.spawn(ranks, args=(made,), nprocs=2)
        single(Path(made))
        exported(Path(made), "one", "two")
        for python in sys.argv[1:]:
            subprocess.run([python, __file__, "old", made], check=True)
        with tarfile.open(TARGET, "w:xz") as archive:
            for path in sorted(Path(made).rglob("*")):
                if path.is_file():
                    info = tarfile.TarInfo(path.relative_to(made).as_posix())
                    info.size = path.stat().st_size
                    archive.addfile(info, io.BytesIO(path.read_bytes()))


if __name__ == "__main__":
    sys.exit(main())
