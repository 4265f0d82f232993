"""What it costs a training to save: how long it stands still, and what fifty checkpoints take.

    python -m pip install git-theta-ext torch
    python benchmarks/training_runs.py stall [--width 512] [--saves 8]
    python benchmarks/training_runs.py stored [--checkpoints 50]

`stall` trains a transformer and saves weights and AdamW's moments every few steps: with
`torch.save`, with torch's asynchronous distributed checkpoint (`async_save` without process
groups), and with `theta.Run`. Shown are the seconds for which the call keeps the training, those
that all steps of the interval took more than steps without any save (with what the background work
takes from them), each as the median over the saves with the largest, and the CPU seconds of this
process and of those that it started. Where the training itself uses every core, as here, what is
written beside it has to take from it.

`stored` trains on the bytes of this project's documents. Every checkpoint is kept by git-lfs, by
`theta.Run`, and as blobs of Git, packed by `git repack -adf` with a large window.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as distributed
from safetensors.torch import save_file
from torch import nn

import git_theta_ext as theta

Save = Callable[[int, dict[str, Any], dict[str, Any]], object]
DOCS = Path(__file__).resolve().parents[1] / "docs"


def trainer(width: int, layers: int) -> tuple[nn.Module, Any, Callable[[], float]]:
    """A model, its optimizer, and what trains it for one step; the loss of that step."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.0, batch_first=True)
    model = nn.Sequential(
        nn.Embedding(256, width), nn.TransformerEncoder(layer, layers, enable_nested_tensor=False),
        nn.Linear(width, 256),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    text = b"".join(one.read_bytes() for one in sorted(DOCS.glob("*.md")))
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    mask = nn.Transformer.generate_square_subsequent_mask(64)

    def step() -> float:
        at = torch.randint(len(data) - 65, (8,))
        rows = torch.stack([data[one : one + 65] for one in at.tolist()])
        found = model[2](model[1](model[0](rows[:, :-1]), mask, is_causal=True))
        loss = nn.functional.cross_entropy(found.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    step()
    return model, optimizer, step


def git(folder: Path, *arguments: str) -> None:
    """Run git, and say what it said if it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {arguments}: {done.stderr.decode()}")


def repository(folder: Path, tool: str) -> Path:
    """A repository that tracks checkpoints with a tool: theta, lfs, or git alone."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for name, value in (("user.name", "Bench"), ("user.email", "bench@example.org")):
        git(folder, "config", name, value)
    patterns = ("*.safetensors", "*.pt")
    if tool == "theta":
        git(folder, "theta", "install", "--local")
        git(folder, "theta", "track", *patterns)
    elif tool == "lfs":
        git(folder, "lfs", "install", "--local")
        git(folder, "lfs", "track", *patterns)
    (folder / ".gitignore").write_text("out/\n" if tool == "theta" else "")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, each once."""
    found = {one.stat().st_ino: one.stat().st_size for one in folder.rglob("*") if one.is_file()}
    return sum(found.values())


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# -- how long the training stands still ------------------------------------------------------------


def timed(step: Callable[[], float], steps: int) -> list[float]:
    """Seconds of each of some steps."""
    found = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return found


def stall(name: str, save: Save, finish: Callable[[], object], args: Any) -> None:
    """Train with one way of saving, and print what it takes."""
    model, optimizer, step = trainer(args.width, args.layers)
    timed(step, 3)
    plain = statistics.median(timed(step, args.every))
    began, calls, more = cpu_seconds(), [], []
    for number in range(args.saves + 1):
        start = time.perf_counter()
        save(number, model.state_dict(), optimizer.state_dict())
        call = time.perf_counter() - start
        rest = sum(timed(step, args.every)) - args.every * plain
        if number:  # the first save makes memory and files that later ones have
            calls.append(call)
            more.append(call + rest)
    start = time.perf_counter()
    finish()
    end, cpu = time.perf_counter() - start, cpu_seconds() - began
    print(
        f"{name:24} {statistics.median(calls):8.3f} {max(calls):8.3f} "
        f"{statistics.median(more):8.3f} {max(more):8.3f} {end:8.2f} {cpu:8.1f}",
        flush=True,
    )


def stalls(args: Any) -> None:
    """All ways of saving, one after the other."""
    model, _, step = trainer(args.width, args.layers)
    nbytes = 3 * sum(one.nbytes for one in model.parameters())
    plain = statistics.median(timed(step, args.every))
    print(f"{nbytes / 1e6:.0f} MB of weights and moments, {plain:.3f} s a step, "
          f"a save every {args.every} steps")  # fmt: skip
    print(f"{'':24} {'call':>8} {'most':>8} {'in all':>8} {'most':>8} {'end':>8} {'CPU':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stall("no save", lambda *_: None, lambda: None, args)

        def plainly(number: int, model: Any, optimizer: Any) -> None:
            torch.save({"model": model, "optimizer": optimizer}, folder / f"{number % 2}.pt")

        stall("torch.save", plainly, lambda: None, args)
        pending: list[Any] = []

        def beside(number: int, model: Any, optimizer: Any) -> None:
            wait()
            place = folder / f"dcp-{number % 2}"
            shutil.rmtree(place, ignore_errors=True)
            state = {"model": model, "optimizer": optimizer}
            writer = distributed.FileSystemWriter(place)
            pending.append(distributed.async_save(state, storage_writer=writer, no_dist=True))

        def wait() -> None:
            while pending:
                pending.pop().result()

        stall("async_save of torch", beside, wait, args)
        for busy in ("wait", "skip"):
            top = repository(folder / f"theta-{busy}", "theta")
            run = theta.Run(top / "out", keep="last:2", busy=busy)

            def ours(number: int, model: Any, optimizer: Any, run: Any = run) -> None:
                run.save(number, {"model.safetensors": model, "optimizer.pt": optimizer})

            stall(f"theta.Run, busy={busy}", ours, run.finish, args)


# -- what fifty checkpoints take -------------------------------------------------------------------


def stored(args: Any) -> None:
    """Keep the same checkpoints in three ways."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tops = {tool: repository(folder / tool, tool) for tool in ("theta", "lfs", "git")}
        spent = dict.fromkeys(tops, 0.0)
        model, optimizer, step = trainer(args.width, args.layers)
        raw = 0
        with theta.Run(tops["theta"] / "out", keep="last:2") as run:
            for number in range(1, args.checkpoints + 1):
                losses = [step() for _ in range(args.every)]
                files = {"model.safetensors": model.state_dict(),
                         "optimizer.pt": optimizer.state_dict()}  # fmt: skip
                began = cpu_seconds()
                run.save(number * args.every, files, {"loss": statistics.mean(losses)})
                run.wait()
                spent["theta"] += cpu_seconds() - began
                for tool in ("lfs", "git"):
                    began = cpu_seconds()
                    save_file(model.state_dict(), tops[tool] / "model.safetensors")
                    torch.save(optimizer.state_dict(), tops[tool] / "optimizer.pt")
                    git(tops[tool], "add", "model.safetensors", "optimizer.pt")
                    git(tops[tool], "commit", "-q", "-m", f"step {number * args.every}")
                    spent[tool] += cpu_seconds() - began
                raw += sum((tops["git"] / one).stat().st_size
                           for one in ("model.safetensors", "optimizer.pt"))  # fmt: skip
        began = cpu_seconds()
        window = str(args.window)
        git(tops["git"], "-c", "core.bigFileThreshold=1g", "repack", "-q", "-a", "-d", "-f",
            f"--window={window}", "--depth=50")  # fmt: skip
        packed = cpu_seconds() - began
        git(tops["theta"], "gc", "-q")
        print(f"{args.checkpoints} checkpoints, {raw / 1e6:.1f} MB of files, "
              f"last loss {statistics.mean(losses):.3f}")  # fmt: skip
        for tool, place in (("theta", ".git"), ("lfs", ".git"), ("git", ".git")):
            nbytes = size_of(tops[tool] / place)
            more = f" and {packed:.1f} to repack" if tool == "git" else ""
            print(f"{tool:6} {nbytes / 1e6:8.1f} MB  {nbytes / raw:6.3f} of the files, "
                  f"{spent[tool]:.1f} s of CPU{more}")  # fmt: skip


def main() -> None:
    """Choose what is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["stall", "stored"])
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--every", type=int, default=20, help="steps between two saves")
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--checkpoints", type=int, default=50)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as it chooses")
    parser.add_argument("--window", type=int, default=20, help="of git repack")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.width is None:
        args.width = 512 if args.what == "stall" else 64
    (stalls if args.what == "stall" else stored)(args)


if __name__ == "__main__":
    main()
