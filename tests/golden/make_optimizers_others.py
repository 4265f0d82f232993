"""Make `tests/golden/optimizers/others`: states of Adam as other libraries save them.

Needs what it makes files with, which the tests do not (deepspeed 0.19.8, bitsandbytes 0.50.2 and
torch 2.13; keras 3.15.1, flax 0.12 and optax 0.2 with jax):

    torchrun --nproc-per-node 2 tests/golden/make_optimizers_others.py zero
    torchrun --nproc-per-node 2 tests/golden/make_optimizers_others.py fsdp
    python tests/golden/make_optimizers_others.py bitsandbytes|keras|optax
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parent / "optimizers" / "others"
BETA2 = 0.98
STEPS = 3


def expect(case: str, moments: dict[str, Any], model: dict[str, Any] | None = None) -> None:
    """Write what the library says, and the tensors of the model."""
    from safetensors.numpy import save_file

    OUT.mkdir(exist_ok=True, parents=True)
    wanted = {
        name: (np.asarray(one, np.float64) / (1 - BETA2**STEPS)).astype(np.float32)
        for name, one in moments.items()
    }
    save_file(wanted, OUT / f"{case}.expected.safetensors")
    if model is not None:
        save_file({k: np.asarray(v) for k, v in model.items()}, OUT / f"{case}.model.safetensors")


def net(small: bool = False) -> Any:
    import torch

    torch.manual_seed(0)
    inner = [] if small else [torch.nn.LayerNorm(7), torch.nn.Linear(7, 7)]
    return torch.nn.Sequential(torch.nn.Linear(5, 7), *inner, torch.nn.Linear(7, 3))


def train(model: Any, step: Any) -> None:
    import torch
    import torch.distributed as dist

    source = torch.Generator().manual_seed(dist.get_rank() if dist.is_initialized() else 0)
    for _ in range(STEPS):
        step(model(torch.randn(4, 5, generator=source)).float().pow(2).mean())


def zero() -> None:
    """Two ranks, stages 2 (1 is alike) and 3, which has a way to ask for moments."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import torch
    from deepspeed.utils import safe_get_full_optimizer_state

    for stage in (2, 3):
        model = net()
        decayed = [one for one in model.parameters() if one.ndim > 1]
        others = [one for one in model.parameters() if one.ndim == 1]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=torch.optim.AdamW(groups, betas=(0.9, BETA2)),
            config={
                "train_micro_batch_size_per_gpu": 4,
                "zero_optimization": {"stage": stage},
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
            },
        )

        def step(loss: Any, engine: Any = engine) -> None:
            engine.backward(loss)
            engine.step()

        train(engine, step)
        place = OUT / f"zero{stage}"
        engine.save_checkpoint(str(place), tag="last")
        if stage == 3:
            moments = {
                name: safe_get_full_optimizer_state(one, "exp_avg_sq").numpy()
                for name, one in engine.module.named_parameters()
            }
            if engine.global_rank == 0:
                expect("zero", moments, {k: np.zeros_like(v) for k, v in moments.items()})
        if engine.global_rank == 0:
            for one in place.glob("zero_to_*.py"):
                one.unlink()


def fsdp() -> None:
    """Two ranks, fully sharded: gathered by names, gathered flat, in shards, one rank's objects."""
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import state_dict as states
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    model = net(small=True)
    for one in [*model, model]:
        fully_shard(one, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, BETA2))

    def step(loss: Any) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    train(model, step)
    gathered = states.StateDictOptions(full_state_dict=True, cpu_offload=True)
    flat = states.StateDictOptions(
        full_state_dict=True, cpu_offload=True, flatten_optimizer_state_dict=True
    )
    full = states.get_optimizer_state_dict(model, optimizer, options=gathered)
    flattened = states.get_optimizer_state_dict(model, optimizer, options=flat)
    weights = states.get_model_state_dict(model, options=gathered)
    shards = states.get_optimizer_state_dict(model, optimizer)
    OUT.mkdir(exist_ok=True, parents=True)
    dcp.save({"optimizer": shards}, checkpoint_id=OUT / "fsdp-shards")
    if dist.get_rank() == 0:
        torch.save(full, OUT / "fsdp-full.pt")
        torch.save(flattened, OUT / "fsdp-flat.pt")
        torch.save(shards, OUT / "fsdp-rank.pt")
        found = {name: one["exp_avg_sq"].numpy() for name, one in full["state"].items()}
        expect("fsdp", found, {name: one.numpy() for name, one in weights.items()})


def bitsandbytes() -> None:
    """8-bit codes in blocks, and a vector that is too small for them."""
    import bitsandbytes as bnb
    import torch
    from bitsandbytes.functional import dequantize_blockwise

    torch.manual_seed(0)
    model = torch.nn.Linear(30, 10)
    optimizer = bnb.optim.AdamW8bit(model.parameters(), betas=(0.9, BETA2), min_8bit_size=100)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(8, 30)).pow(2).mean().backward()
        optimizer.step()
    OUT.mkdir(exist_ok=True, parents=True)
    torch.save(optimizer.state_dict(), OUT / "bitsandbytes.pt")
    found = {}
    for name, one in model.named_parameters():
        state = optimizer.state[one]
        codes = state["state2"]
        if codes.dtype == torch.uint8:
            codes = dequantize_blockwise(
                codes, absmax=state["absmax2"], code=state["qmap2"], blocksize=256
            )
        found[name] = codes.numpy()
    expect("bitsandbytes", found, {k: v.detach().numpy() for k, v in model.state_dict().items()})


def keras() -> None:
    """A model with moving statistics between two layers alike, in Keras' three kinds of file."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((4,)), layers.Dense(6, name="a"), layers.Dense(6, name="b"),
        layers.BatchNormalization(name="norm"), layers.Dense(2, name="c"),
    ])  # fmt: skip
    model.compile(optimizer=keras.optimizers.AdamW(1e-2, beta_2=BETA2), loss="mse")
    source = np.random.default_rng(0)
    x, y = source.normal(size=(24, 4)), source.normal(size=(24, 2))
    model.fit(x, y, epochs=1, batch_size=8, verbose=0)
    OUT.mkdir(exist_ok=True, parents=True)
    for name in ("keras.keras", "keras.weights.h5", "keras-old.h5"):
        (model.save_weights if "weights" in name else model.save)(str(OUT / name))
    assert int(model.optimizer.iterations.numpy()) == STEPS
    moments = {one.path.partition("/")[2]: one.numpy() for one in model.optimizer.variables}
    folders = {"a": "dense", "b": "dense_1", "norm": "batch_normalization", "c": "dense_2"}
    found: dict[str, Any] = {}
    for one in model.trainable_variables:
        _, layer, _ = one.path.split("/")
        number = sum(key.startswith(f"layers/{folders[layer]}/vars/") for key in found)
        value = moments[f"{one.path.replace('/', '_')}_velocity"]
        found[f"layers/{folders[layer]}/vars/{number}"] = value
    expect("keras", found)
    old = {
        f"model_weights/{one.path.split('/')[1]}/{one.path}": moments[
            f"{one.path.replace('/', '_')}_velocity"
        ]
        for one in model.trainable_variables
    }
    expect("keras-old", old)


def optax() -> None:
    """A chain with Adam in it, as Flax saves it, by itself and with the parameters."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax as library
    from flax import serialization
    from flax.training.train_state import TrainState

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(3)(nn.relu(nn.Dense(6)(x)))

    model = Net()
    chain = library.chain(library.clip_by_global_norm(1.0), library.adamw(1e-2, b2=BETA2))
    parameters = model.init(jax.random.key(0), jnp.ones((1, 5)))["params"]
    state = TrainState.create(apply_fn=model.apply, params=parameters, tx=chain)
    for number in range(STEPS):
        x = jax.random.normal(jax.random.key(number), (8, 5))
        grads = jax.grad(lambda p, x=x: (model.apply({"params": p}, x) ** 2).mean())(state.params)
        state = state.apply_gradients(grads=grads)
    OUT.mkdir(exist_ok=True, parents=True)
    (OUT / "optax.msgpack").write_bytes(serialization.to_bytes(state))
    (OUT / "optax-alone.msgpack").write_bytes(serialization.to_bytes(state.opt_state))
    adam = next(one for one in jax.tree.leaves(
        state.opt_state, is_leaf=lambda x: isinstance(x, library.ScaleByAdamState)
    ) if isinstance(one, library.ScaleByAdamState))  # fmt: skip
    found = {
        f"params.{layer}.{part}": np.asarray(one)
        for layer, parts in adam.nu.items()
        for part, one in parts.items()
    }
    expect("optax", found, {k: np.zeros_like(v) for k, v in found.items()})


if __name__ == "__main__":
    what = sys.argv[1]
    if int(os.environ.get("RANK", "0")) == 0:
        for old in OUT.glob(f"{what}*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    {"zero": zero, "fsdp": fsdp, "bitsandbytes": bitsandbytes, "keras": keras, "optax": optax}[
        what
    ]()
