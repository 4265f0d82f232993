"""Make `tests/golden/zero.tar.xz`: what DeepSpeed 0.19 saves of two processes, by ZeRO 2.

It needs torch and deepspeed, and nothing of this package:

    python tests/golden/make_zero.py

Operators that would be compiled are replaced by the functions of PyTorch that they stand for.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
import types
from pathlib import Path

import torch
import torch.multiprocessing as mp

TARGET = Path(__file__).with_name("zero.tar.xz")


def train(rank: int, folder: str) -> None:
    """One of two processes: a step, then a checkpoint."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29533", WORLD_SIZE="2")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), DS_ACCELERATOR="cpu")
    import deepspeed
    from deepspeed.ops.op_builder.builder import OpBuilder
    from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    OpBuilder.load = lambda self, *_: types.SimpleNamespace(
        flatten=_flatten_dense_tensors, unflatten=_unflatten_dense_tensors
    )
    deepspeed.init_distributed(dist_backend="gloo")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Linear(9, 4))
    named = list(model.named_parameters())
    groups = [
        {"params": [one for name, one in named if "weight" in name], "weight_decay": 0.1},
        {"params": [one for name, one in named if "bias" in name], "weight_decay": 0.0},
    ]
    config = {
        "train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 2},
        "bf16": {"enabled": True}, "zero_allow_untested_optimizer": True,
    }  # fmt: skip
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=torch.optim.AdamW(groups, lr=1e-3), config=config
    )
    loss = engine(torch.randn(2, 6).bfloat16()).float().sum()
    engine.backward(loss)
    engine.step()
    engine.save_checkpoint(folder, tag="zero")


def main() -> None:
    """Write the archive, nothing in it but names and bytes."""
    with tempfile.TemporaryDirectory() as made:
        mp.spawn(train, args=(made,), nprocs=2)
        with tarfile.open(TARGET, "w:xz") as archive:
            for path in sorted(Path(made).rglob("*.pt")):
                info = tarfile.TarInfo(path.relative_to(made).as_posix())
                info.size = path.stat().st_size
                archive.addfile(info, io.BytesIO(path.read_bytes()))


if __name__ == "__main__":
    sys.exit(main())
