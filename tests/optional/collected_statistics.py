"""Statistics of a real training: `theta.collect`, and the file of its optimizer afterwards.

Not part of the default run, for it needs torch: `.ci/optional` runs it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import git_theta_ext as theta
from git_theta_ext.checkpoints.optimizers.fisher import opened


def check(make: type[torch.optim.Optimizer], half: bool, folder: Path) -> None:
    """Train for one looked-at batch after the first step, and compare."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 2))
    optimizer = make(model.parameters(), lr=1e-2)
    squares: dict[str, torch.Tensor] = {}
    with theta.collect(model, optimizer=optimizer, every=1) as found:
        for _ in range(3):
            x = torch.randn(7, 6)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = model(x).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name, parameter in model.named_parameters():
                seen = parameter.grad.detach() ** 2
                squares[name] = seen if name not in squares else 0.95 * squares[name] + seen
    save_file(model.state_dict(), folder / "m.safetensors")
    fisher, gram = (load_file(one) for one in found.write(folder / "m.safetensors"))
    assert set(gram) == {"0.weight", "2.weight", "3.weight"}
    assert all(one.shape[0] == one.shape[1] for one in gram.values())
    assert all(torch.linalg.eigvalsh(one).min() > -1e-4 for one in gram.values())
    assert len(fisher) == 6
    torch.save(optimizer.state_dict(), folder / "o.pt")
    (folder / "names.txt").write_text("\n".join(name for name, _ in model.named_parameters()))
    if make is torch.optim.SGD:
        # Before the first step it is not known whether the optimizer keeps them.
        assert all(fisher[n].shape == one.shape for n, one in squares.items())
        return
    with opened(folder / "m.safetensors", [folder / "o.pt"], folder / "names.txt", None) as file:
        assert set(file.moments) == set(fisher)
        assert all((torch.from_numpy(file.read(n)) == fisher[n]).all() for n in fisher)


def main() -> None:
    """Every optimizer, with autocast and without."""
    for make in (torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.SGD):
        for half in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                check(make, half, Path(folder))
            print(f"{make.__name__}{' in bf16' if half else ''}: alike")


if __name__ == "__main__":
    main()
