"""What is fuzzed of optimizers' files: which moment is of which tensor, and its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from git_theta_ext.checkpoints.optimizers.fisher import opened
from git_theta_ext.core.errors import UsageError

_FILES = Path(__file__).parents[1] / "golden" / "optimizers"
_SEEDS = ("trainer.pt", "named.pt", "fsdp.pt", "eight-bit.pt")


def targets(
    scratch: Callable[[], Path],
) -> Iterator[tuple[str, Callable[[], list[bytes]], Callable[[bytes], None]]]:
    """Name, seeds and target; `scratch` gives a folder."""

    def run(data: bytes) -> None:
        path = scratch() / "optimizer.pt"
        path.write_bytes(data)
        try:
            with opened(_FILES / "model.safetensors", path, _FILES / "names.txt", None) as found:
                for name in found.moments:
                    if found.read(name).shape != found.shape(name):
                        raise AssertionError(f"{name} has another shape")
        except UsageError as error:
            if len(str(error)) > 20_000:
                raise AssertionError("a message that floods the terminal") from error

    yield "optimizer", lambda: [(_FILES / name).read_bytes() for name in _SEEDS], run
