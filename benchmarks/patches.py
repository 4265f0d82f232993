#!/usr/bin/env python3
"""Updates that travel as files: how large a patch is, and what it takes, beside git-lfs.

    python benchmarks/patches.py [--megabytes 1000] [--folder DIR]

A model of `--megabytes` in fp32 matrices of 2048 × 2048 gets two updates: a LoRA of rank 8 of every
matrix, added with `--update`, and a sparse one, one entry in 200 moved. Each is written as a patch,
shown, taken by a copy of the base (`am`), added to another fine-tune of it (`apply`) and taken back
(`apply -R`). Beside it, in the same run, git-lfs: a bundle of the commit and a copy of its objects,
and what a receiver does with them. Seconds are the processor's, of all processes of a command;
megabytes are 10⁶ bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

NAME = "model.safetensors"
SIDE, RANK = 2048, 8
TENSOR_BYTES = 4 * SIDE * SIDE
SPARSE = 200
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "b"), ("EMAIL", "b@example.org"))
}

Update = Callable[[Path], int | None]
"""Changes the model of a work tree and stages it; the size of what was supplied, if it was."""


def run(folder: Path, *command: str) -> str:
    """What a command prints; raises CalledProcessError on failure."""
    environment = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(command, cwd=folder, capture_output=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.decode()}")
    return done.stdout.decode()


def seconds(work: Callable[[], object]) -> float:
    """The processor's, of this process and those that it started."""

    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in both)

    before = used()
    work()
    return used() - before


def model(count: int) -> dict[str, np.ndarray]:
    """Matrices as a trainer leaves them."""
    random = np.random.default_rng(0)
    return {
        f"layers.{number}.proj.weight": random.standard_normal((SIDE, SIDE), np.float32) * 0.02
        for number in range(count)
    }


def sparsely(folder: Path, seed: int) -> None:
    """Move one entry in 200 of each matrix."""
    random = np.random.default_rng(seed)
    tensors = load_file(folder / NAME)
    for value in tensors.values():
        places = np.unique(random.integers(0, value.size, value.size // SPARSE))
        value.reshape(-1)[places] += np.float32(0.01)
    save_file(tensors, folder / NAME)


def lora(folder: Path, adapter: Path) -> int:
    """Write an adapter of every matrix, and its size."""
    random = np.random.default_rng(1)
    adapter.mkdir()
    factors = {}
    for name in load_file(folder / NAME):
        module = f"base_model.model.{name.removesuffix('.weight')}"
        for part, shape in (("A", (RANK, SIDE)), ("B", (SIDE, RANK))):
            value = random.standard_normal(shape, np.float32) * 0.02
            factors[f"{module}.lora_{part}.weight"] = value
    save_file(factors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return (adapter / "adapter_model.safetensors").stat().st_size


def store_bytes(folder: Path) -> int:
    """What the store of a repository holds."""
    objects = folder / ".git" / "theta" / "objects"
    return sum(one.stat().st_size for one in objects.rglob("*") if one.is_file())


def begin(folder: Path, tensors: dict[str, np.ndarray], track: tuple[str, ...]) -> None:
    """A repository with the base."""
    folder.mkdir()
    run(folder, "git", "init", "-q", "-b", "main")
    for line in track:
        run(folder, *line.split())
    save_file(tensors, folder / NAME)
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", "base")


def theta(work: Path, base: Path, kind: str) -> dict[str, float]:
    """The figures of one kind of update with git-theta."""
    sender, receiver, other = (work / f"{kind}-{one}" for one in ("from", "to", "other"))
    for one in (sender, receiver, other):
        shutil.copytree(base, one, symlinks=True)
    before, factors = store_bytes(sender), 0
    if kind == "LoRA":
        factors = lora(sender, work / "adapter")
        run(sender, "git", "theta", "add", NAME, "--update", str(work / "adapter"))
    else:
        sparsely(sender, 2)
        run(sender, "git", "add", NAME)
    run(sender, "git", "commit", "-q", "-m", kind)
    sparsely(other, 3)
    run(other, "git", "commit", "-q", "-a", "-m", "another fine-tune")
    kept = (other / NAME).read_bytes()
    patch = str(work / f"{kind}.patch")
    said = {
        "format-patch": seconds(
            lambda: run(sender, "git", "theta", "format-patch", "HEAD~1", "-o", patch)
        ),
        "show": seconds(lambda: run(work, "git", "theta", "show", patch)),
        "am": seconds(lambda: run(receiver, "git", "theta", "am", patch)),
        "apply": seconds(lambda: run(other, "git", "theta", "apply", patch)),
        "apply -R": seconds(lambda: run(other, "git", "theta", "apply", "-R", patch)),
    }
    heads = [run(one, "git", "rev-parse", "HEAD") for one in (sender, receiver)]
    same = (sender / NAME).read_bytes() == (receiver / NAME).read_bytes()
    if not same or heads[0] != heads[1] or (other / NAME).read_bytes() != kept:
        sys.exit(f"{kind}: not the bytes that were sent")
    said |= {
        "bytes": Path(patch).stat().st_size,
        "beside": factors or store_bytes(sender) - before,
    }
    for one in (receiver, other):
        shutil.rmtree(one)
    return said


def lfs(work: Path, base: Path, changed: Path) -> dict[str, float]:
    """The same commit with git-lfs: a bundle, and the objects that it names."""
    sender, receiver = work / "lfs-from", work / "lfs-to"
    for one in (sender, receiver):
        shutil.copytree(base, one, symlinks=True)
    shutil.copyfile(changed, sender / NAME)
    run(sender, "git", "commit", "-q", "-a", "-m", "changed")
    sent = work / "sent"
    oid = run(sender, "git", "lfs", "ls-files", "-l").split()[0]
    place = Path(".git", "lfs", "objects", oid[:2], oid[2:4], oid)

    def write() -> None:
        sent.mkdir()
        run(sender, "git", "bundle", "create", str(sent / "bundle"), "HEAD~1..HEAD", "main")
        shutil.copyfile(sender / place, sent / oid)

    def take() -> None:
        (receiver / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sent / oid, receiver / place)
        run(receiver, "git", "pull", "-q", "--ff-only", str(sent / "bundle"), "main")

    found = {"format-patch": seconds(write), "am": seconds(take)}
    if (receiver / NAME).read_bytes() != (sender / NAME).read_bytes():
        sys.exit("git-lfs: not the bytes that were sent")
    found["bytes"] = sum(one.stat().st_size for one in sent.iterdir())
    for one in (sender, receiver, sent):
        shutil.rmtree(one)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000, metavar="N")
    parser.add_argument("--folder", metavar="DIR", help="where to work (default: of the system)")
    args = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    count = max(1, round(args.megabytes * 1e6 / TENSOR_BYTES))
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        work = Path(made)
        tensors = model(count)
        begin(work / "theta", tensors, ("git theta install --local", f"git theta track {NAME}"))
        begin(work / "lfs", tensors, ("git lfs install --local", f"git lfs track {NAME}"))
        del tensors
        print(f"{count} matrices of {SIDE} × {SIDE}, {count * TENSOR_BYTES / 1e6:.0f} MB")
        print("| update | | file | × | format-patch | show | am | apply | apply -R |")
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
        for kind, goal in (("LoRA", 1.05), ("sparse", 1.1)):
            ours = theta(work, work / "theta", kind)
            beside = lfs(work, work / "lfs", work / f"{kind}-from" / NAME)
            shutil.rmtree(work / f"{kind}-from")
            share = ours["bytes"] / ours["beside"]
            of = "its factors" if kind == "LoRA" else "what the store holds"
            times = (f"{ours[one]:.2f} s" for one in
                     ("format-patch", "show", "am", "apply", "apply -R"))  # fmt: skip
            print(f"| {kind} | git theta | {ours['bytes'] / 1e6:.1f} MB | {share:.2f} of {of} | "
                  f"{' | '.join(times)} |")  # fmt: skip
            print(f"| | git-lfs | {beside['bytes'] / 1e6:.1f} MB | | {beside['format-patch']:.2f} "
                  f"s | | {beside['am']:.2f} s | | |", flush=True)  # fmt: skip
            if share > goal:
                sys.exit(f"{kind}: the patch has {share:.2f} of {of}, more than {goal}")


if __name__ == "__main__":
    main()
