#!/usr/bin/env python3
"""The same change of a checkpoint, as `git diff` shows it with git-lfs, git-theta and this package.

    python benchmarks/side_by_side.py [--peer BIN] [--no-resize]

Makes two versions of a small BERT-like model: queries and values of all layers tuned by a merged
LoRA, eight rows added to the embeddings, a classifier added, a bias removed, three NaN, a step
counter. `--peer` is the folder of programs of an environment in which git-theta is installed
(`pip install git-theta safetensors colorama`); `--no-resize` leaves the embeddings as they are, for
git-theta 0.2 cannot compare tensors of two shapes. The output in docs/comparison.md is from here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAME = "model.safetensors"
LAYERS, WIDTH, WORDS = 6, 192, 2000
Tensors = dict[str, NDArray[np.float32]]


def versions(resize: bool = True) -> tuple[Tensors, Tensors]:
    """The model before and after."""
    random = np.random.default_rng(0)

    def normal(*shape: int, size: float = 0.05) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * size).astype(np.float32)

    old = {"embeddings.word_embeddings.weight": normal(WORDS, WIDTH)}
    for layer in range(LAYERS):
        for kind in ("query", "key", "value"):
            old[f"encoder.layer.{layer}.attention.self.{kind}.weight"] = normal(WIDTH, WIDTH)
            old[f"encoder.layer.{layer}.attention.self.{kind}.bias"] = normal(WIDTH)
        old[f"encoder.layer.{layer}.intermediate.dense.weight"] = normal(4 * WIDTH, WIDTH)
        old[f"encoder.layer.{layer}.output.dense.weight"] = normal(WIDTH, 4 * WIDTH)
    old |= {"pooler.dense.bias": normal(WIDTH), "lm_head.bias": normal(WORDS)}
    new = dict(old)
    for layer in range(LAYERS):
        for kind in ("query", "value"):
            name = f"encoder.layer.{layer}.attention.self.{kind}.weight"
            step = normal(WIDTH, 8, size=0.02) @ normal(8, WIDTH, size=0.005 + 0.001 * layer)
            new[name] = old[name] + step
    if resize:
        name = "embeddings.word_embeddings.weight"
        new[name] = np.concatenate([old[name], normal(8, WIDTH)])
    new["classifier.weight"] = normal(2, WIDTH, size=0.02)
    del new["pooler.dense.bias"]
    new["lm_head.bias"] = old["lm_head.bias"].copy()
    new["lm_head.bias"][[117, 200, 1300]] = np.nan
    return old, new


def write(path: Path, tensors: Tensors, step: int) -> None:
    """Write a safetensors file with a step counter in its metadata."""
    header: dict[str, object] = {"__metadata__": {"step": str(step)}}
    offset = 0
    for name, array in tensors.items():
        ends = [offset, offset + array.nbytes]
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": ends}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def shown(folder: Path, setup: list[list[str]], extra: Mapping[str, str], resize: bool) -> str:
    """What `git diff HEAD~1 HEAD` prints in a new repository, errors included."""
    folder.mkdir()
    identity = {
        f"GIT_{who}_{what}": f"benchmark{mail}"
        for who in ("AUTHOR", "COMMITTER")
        for what, mail in (("NAME", ""), ("EMAIL", "@localhost"))
    }
    environment = {**os.environ, **identity, **extra, "HOME": str(folder.parent)}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        if done.returncode and "diff" not in command:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
        return done.stdout

    run("git", "init", "-q")
    for command in setup:
        run(*command)
    for tensors, step in zip(versions(resize), (1200, 1800), strict=True):
        write(folder / NAME, tensors, step)
        run("git", "add", "-A")
        run("git", "commit", "-q", "-m", f"step {step}")
    return run("git", "--no-pager", "diff", "HEAD~1", "HEAD", "--", NAME)


def main() -> None:
    """Show the change in every way that is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", type=Path, help="folder of git-theta's programs")
    parser.add_argument("--no-resize", action="store_true", help="keep the embeddings' shape")
    args = parser.parse_args()
    theta = [sys.executable, "-m", "git_theta_ext.cli.main"]
    ways: dict[str, tuple[list[list[str]], dict[str, str]]] = {
        "git-lfs": ([["git", "lfs", "install", "--local"], ["git", "lfs", "track", NAME]], {}),
        "git-theta-ext": ([[*theta, "install", "--local"], [*theta, "track", NAME]], {}),
    }
    if args.peer:
        program = str(args.peer / "git-theta")
        ways["git-theta"] = (
            [["git", "lfs", "install"], [program, "install"], [program, "track", NAME]],
            {
                "PATH": os.pathsep.join([str(args.peer), os.environ["PATH"]]),
                "GIT_THETA_CHECKPOINT_TYPE": "safetensors",
            },
        )
    with tempfile.TemporaryDirectory() as top:
        for label, (setup, extra) in ways.items():
            print(f"===== {label}")
            print(shown(Path(top) / label, setup, extra, not args.no_resize))


if __name__ == "__main__":
    main()
