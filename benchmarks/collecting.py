"""What it costs a training to collect statistics for merges: `theta.collect`.

    python -m pip install git-theta-ext torch
    python benchmarks/collecting.py [--steps 96]

A transformer of six layers is trained on random tokens, with hooks and without, by turns, in one
process. Processor seconds of each step; the median over all rounds, with its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import git_theta_ext as theta


def trainer(width: int) -> tuple[nn.Module, Callable[[nn.Module, torch.optim.Optimizer], None]]:
    """A model, and what trains it for one step."""
    layer = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.0, batch_first=True)
    model = nn.Sequential(
        nn.Embedding(1000, width), nn.TransformerEncoder(layer, 6, enable_nested_tensor=False),
        nn.Linear(width, 1000),
    )  # fmt: skip

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        tokens = torch.randint(1000, (16, 65))
        output = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(output.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, step


def main() -> None:
    """Train with and without, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=32, help="steps of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, make in (("Adam", torch.optim.AdamW), ("SGD", torch.optim.SGD)):
        model, step = trainer(args.width)
        optimizer = make(model.parameters(), lr=1e-4)
        step(model, optimizer)
        ratios = []
        for _ in range(args.rounds):
            taken = []
            for hooked in (False, True):
                collector = theta.collect(model, optimizer=optimizer) if hooked else None
                start = time.process_time()
                for _ in range(args.steps):
                    step(model, optimizer)
                taken.append(time.process_time() - start)
                if collector is not None:
                    collector.close()
            ratios.append(100 * (taken[1] / taken[0] - 1))
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name}: {middle:+.1f} % of a step's time (quartiles {low:+.1f} to {high:+.1f})")


if __name__ == "__main__":
    main()
