"""The callbacks with the real frameworks: Trainer, Lightning, Keras, Accelerate, a plain loop.

Not part of the default run. In a virtual environment with torch, transformers, lightning, keras,
accelerate and h5py:

    KERAS_BACKEND=torch python -m pytest -p no:cacheprovider tests/optional/training_callbacks.py
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch
from torch import nn

import git_theta_ext as theta
from git_theta_ext.core.errors import UsageError
from tests.scenarios.repositories import Repo


@pytest.fixture
def run_repo(repo: Repo) -> Repo:
    """A repository that tracks what the frameworks write, and ignores where they do."""
    repo.write(
        ".gitattributes",
        b"".join(b"*.%s filter=theta diff=theta merge=theta -text\n" % one
                 for one in (b"safetensors", b"pt", b"ckpt", b"keras", b"h5", b"bin")),
    )  # fmt: skip
    repo.write(".gitignore", b"out/\nlightning_logs/\n")
    repo.commit("Track")
    return repo


def tip(repo: Repo, branch: str) -> list[str]:
    return repo.git("ls-tree", "-r", "--name-only", branch, "out").split()


def subjects(repo: Repo, branch: str) -> list[str]:
    return repo.git("log", "--format=%s", f"main..{branch}").splitlines()


def test_a_plain_loop(run_repo: Repo) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    expected: dict[int, Any] = {}
    out = run_repo.path / "out/plain"
    with (
        theta.collect(model, optimizer=optimizer, every=1) as found,
        theta.Run(out, keep="last:2", prefix="plain") as run,
    ):
        for step in range(1, 5):
            loss = model(torch.randn(32, 8)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            expected[step] = {n: t.clone() for n, t in model.state_dict().items()}
            state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            files = {"model.safetensors": model.state_dict(), "state.pt": state}
            run.save(step, files, {"loss": loss})
    assert found.statistics()["gram"]
    assert {one.split("/")[2] for one in tip(run_repo, "runs/plain")} == {
        "checkpoint-3", "checkpoint-4",
    }  # fmt: skip
    for step, wanted in expected.items():
        name = f"runs/plain~{4 - step}:out/plain/checkpoint-{step}/model.safetensors"
        with theta.safe_open(name, framework="pt", repository=run_repo.path) as file:
            assert all(torch.equal(file.get_tensor(n), t) for n, t in wanted.items())
    saved = torch.load(out / "checkpoint-4/state.pt", weights_only=True)
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(saved["optimizer"])
    moments = zip(again.state.values(), optimizer.state.values(), strict=True)
    assert all(torch.equal(one["exp_avg_sq"], other["exp_avg_sq"]) for one, other in moments)
    tied = nn.Linear(4, 4)
    with theta.Run(run_repo.path / "out/tied") as run:
        run.save(1, {"a.pt": {"a": tied.weight, "b": tied.weight}})
    loaded = torch.load(run_repo.path / "out/tied/checkpoint-1/a.pt", weights_only=True)
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr()


class Lines(torch.utils.data.Dataset[Any]):
    """Random rows."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(at)
        ids = torch.randint(0, 50, (12,))
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("branch", [None, "runs/{name}"])
def test_the_trainer(run_repo: Repo, branch: str | None) -> None:
    transformers = pytest.importorskip("transformers")
    run_repo.write(".gitignore", b"nothing/\n")
    run_repo.commit("Ignore nothing")
    config = transformers.LlamaConfig(
        vocab_size=50, max_position_embeddings=16, hidden_size=16, intermediate_size=16,
        num_hidden_layers=1, num_attention_heads=2,
    )  # fmt: skip
    arguments = transformers.TrainingArguments(
        str(run_repo.path / "out/hf"), max_steps=6, save_steps=2, logging_steps=1, eval_steps=2,
        eval_strategy="steps", save_total_limit=1, report_to=[], use_cpu=True,
        per_device_train_batch_size=8, disable_tqdm=True,
    )  # fmt: skip
    more: dict[str, Any] = {"keep": "best:1,last:1", "metric": "eval_loss"} if branch else {}
    callback = theta.CommitCallback(
        prefix="hf", statistics=("fisher", "gram"), branch=branch, strict=True, **more
    )
    model = transformers.LlamaForCausalLM(config)
    trainer = transformers.Trainer(
        model, arguments, train_dataset=Lines(), eval_dataset=Lines(), callbacks=[callback]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    name = "runs/hf" if branch else "main"
    found = run_repo.git("log", "--format=%s", "-3", name).splitlines()
    assert [one.split(",")[0] for one in found] == ["hf: step 6", "hf: step 4", "hf: step 2"]
    folders = {one.split("/")[2] for one in tip(run_repo, name)}
    assert folders == ({"checkpoint-6"} if branch is None else folders | {"checkpoint-6"})
    files = {one.split("/")[-1] for one in tip(run_repo, name)}
    assert files >= {"model.safetensors", "optimizer.pt", "model.fisher.safetensors"}
    for step, back in ((2, 2), (4, 1), (6, 0)):
        place = f"{name}~{back}:out/hf/checkpoint-{step}/model.safetensors"
        theta.load_into(transformers.LlamaForCausalLM(config), place, repository=run_repo.path)
    if branch is None:
        assert run_repo.status() == ""


def test_lightning(run_repo: Repo, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Net(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def training_step(self, batch: Any, number: int) -> Any:
            loss = self.layer(batch[0]).pow(2).mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    data = torch.utils.data.TensorDataset(torch.randn(64, 8))
    loader = torch.utils.data.DataLoader(data, 16)
    saver = ModelCheckpoint(
        run_repo.path / "out/light", every_n_train_steps=2, monitor="loss", save_top_k=2,
        save_last=True,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Net()
        trainer = Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
            callbacks=[saver, theta.LightningCallback(prefix="l", statistics=("fisher", "gram"))],
        )  # fmt: skip
        trainer.fit(net, loader)
    files = {one.split("/")[2] for one in tip(run_repo, "runs/light")}
    models = {one for one in files if one.endswith(".ckpt")}
    assert "last.ckpt" in models
    assert len(models) >= 3
    assert {
        f"{one[:-5]}.{kind}.safetensors" for one in models for kind in ("fisher", "gram")
    } <= files
    assert len(subjects(run_repo, "runs/light")) >= 4
    best = Path(saver.best_model_path)
    with theta.safe_open(
        f"runs/light:out/light/{best.name}", framework="pt", repository=run_repo.path
    ) as file:
        wanted = torch.load(best, weights_only=False)["state_dict"]
        assert torch.equal(file.get_tensor("state_dict.layer.weight"), wanted["layer.weight"])
    Net.load_from_checkpoint(best)
    assert run_repo.git("worktree", "list").count("\n") == 1


@pytest.mark.parametrize("file", ["e{epoch}.keras", "e{epoch}.weights.h5"])
def test_keras(run_repo: Repo, file: str) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.layers.Input((8,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    with pytest.raises(UsageError, match="no gram statistics of Keras"):
        theta.KerasCallback(run_repo.path / "out/k", statistics=("gram",))
    callback = theta.KerasCallback(
        run_repo.path / "out/k", file=file, keep="last:2", prefix="k", statistics=("fisher",)
    )
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("f4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, x.sum(1), epochs=3, verbose=0, callbacks=[callback])
    stem = [file.format(epoch=n) for n in (2, 3)]
    ending = file.removeprefix("e{epoch}")
    files = tip(run_repo, "runs/k")
    assert {one for one in files if one.endswith(ending)} == {f"out/k/{one}" for one in stem}
    assert sum(one.endswith("fisher.safetensors") for one in files) == 2
    assert [one.split(",")[0] for one in subjects(run_repo, "runs/k")] == [
        "k: step 6", "k: step 4", "k: step 2",
    ]  # fmt: skip
    statistics = next(one for one in files if "e3" in one and one.endswith("fisher.safetensors"))
    found = theta.open(f"runs/k:{statistics}", repository=run_repo.path)
    velocity = {
        one.shape: one for one in model.optimizer.variables if one.path.endswith("velocity")
    }
    assert len(found) == 4
    for name in found:
        wanted = velocity[found[name].shape].value.detach().numpy() / (1 - 0.999**6)
        assert np.allclose(found[name], wanted)


def test_accelerate(run_repo: Repo) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    out = run_repo.path / "out/acc"
    with theta.Run(out, active=accelerator.is_main_process) as run:
        for step in (1, 2):
            accelerator.backward(model(torch.randn(4, 8)).mean())
            optimizer.step()
            accelerator.save_state(str(out / f"checkpoint-{step}"))
            run.commit(out / f"checkpoint-{step}", step, {"loss": 1.0 / step})
    assert subjects(run_repo, "runs/acc") == ["step 2, loss 0.5", "step 1, loss 1"]
    assert "out/acc/checkpoint-2/model.safetensors" in tip(run_repo, "runs/acc")
