"""Make `tests/golden/optimizers`: states of Adam as PyTorch saves them, and what they say.

Needs torch (made with 2.13), which the tests do not:

    python tests/golden/make_optimizers.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parent / "optimizers"


class Net(torch.nn.Module):
    """Layers that the module lists in another order than their names', two of them alike."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Linear(5, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.b = torch.nn.Linear(6, 6)
        self.a = torch.nn.Linear(6, 6)
        self.stats = torch.nn.BatchNorm1d(6)
        self.head = torch.nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stats(self.a(self.b(self.norm(self.stem(x))))))


def trained(net: Net, optimizer: Any, steps: int) -> Any:
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(16, 5)).pow(2).mean().backward()
        optimizer.step()
    return optimizer


def fishers(net: Net, optimizer: Any, beta2: float) -> dict[str, torch.Tensor]:
    return {
        name: (state["exp_avg_sq"].double() / (1 - beta2 ** float(state["step"]))).float()
        for name, parameter in net.named_parameters()
        if (state := optimizer.state.get(parameter))
    }


def in_eight_bits(saved: dict[str, Any]) -> dict[str, Any]:
    """The state as bitsandbytes 0.48 lays it out, in blocks of 256, and what its codes mean."""
    table = torch.cat([torch.zeros(1), torch.logspace(-4, 0, 255)])
    state = {}
    for key, one in saved["state"].items():
        moment = one["exp_avg_sq"]
        scale = moment.max().reshape(1)
        codes = (moment.reshape(-1, 1) / scale - table).abs().argmin(1).to(torch.uint8)
        one["exp_avg_sq"] = (table[codes.long()] * scale).reshape(moment.shape)
        quantised = {"state2": codes.reshape(moment.shape), "absmax2": scale, "qmap2": table}
        state[key] = {"step": int(one["step"]), "__bnb_optimizer_quant_state__": quantised}
    return {"state": state, "param_groups": saved["param_groups"]}


def main() -> None:
    torch.manual_seed(7)
    OUT.mkdir(exist_ok=True)
    net = Net()
    listed = list(net.named_parameters())
    decayed = [one for name, one in listed if "bias" not in name and "norm" not in name]
    others = [one for name, one in listed if "bias" in name or "norm" in name]
    expected = {}

    plain = trained(net, torch.optim.AdamW(net.parameters()), 3)
    torch.save(plain.state_dict(), OUT / "plain.pt")
    expected["plain"] = fishers(net, plain, 0.999)

    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    trainer = trained(net, torch.optim.AdamW(groups, betas=(0.9, 0.98)), 5)
    torch.save(trainer.state_dict(), OUT / "trainer.pt")
    expected["trainer"] = fishers(net, trainer, 0.98)

    named = trained(net, torch.optim.Adam(net.named_parameters()), 2)
    torch.save(named.state_dict(), OUT / "named.pt")
    expected["named"] = fishers(net, named, 0.999)

    keys = dict(enumerate(name for name, _ in listed))
    saved = plain.state_dict()
    fsdp = {"state": {keys[number]: one for number, one in saved["state"].items()}}
    fsdp["param_groups"] = [{**saved["param_groups"][0], "params": list(keys.values())}]
    torch.save({"optimizer": fsdp}, OUT / "fsdp.pt")

    wrapped = {f"model.{name}": value for name, value in net.state_dict().items()}
    lightning = {"epoch": 1, "state_dict": wrapped, "optimizer_states": [trainer.state_dict()]}
    torch.save(lightning, OUT / "lightning.ckpt")

    frozen = trained(net, torch.optim.Adam(list(net.parameters())[2:8]), 1)
    torch.save(frozen.state_dict(), OUT / "frozen.pt")

    eight = in_eight_bits(plain.state_dict())
    torch.save(eight, OUT / "eight-bit.pt")
    expected["eight-bit"] = fishers(net, plain, 0.999)

    torch.save(torch.optim.SGD(net.parameters(), momentum=0.9).state_dict(), OUT / "sgd.pt")
    (OUT / "names.txt").write_text("".join(f"{name}\n" for name, _ in listed))
    save_file(net.state_dict(), OUT / "model.safetensors")
    torch.save(net.state_dict(), OUT / "model.pt")
    flat = {f"{case}/{name}": v for case, found in expected.items() for name, v in found.items()}
    save_file(flat, OUT / "expected.safetensors")


if __name__ == "__main__":
    main()
