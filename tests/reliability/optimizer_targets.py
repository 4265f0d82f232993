"""What is fuzzed of optimizers' files: which moment is of which tensor, and its values."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from git_theta_ext.checkpoints.optimizers.fisher import opened
from git_theta_ext.core.errors import UsageError

_FILES = Path(__file__).parents[1] / "golden" / "optimizers"
_OTHERS = _FILES / "others"
_SEEDS = ("trainer.pt", "named.pt", "fsdp.pt", "eight-bit.pt", "others/fsdp-flat.pt")
_PARTS = {
    "zero-2": ("zero", "zero2/last", "zero_pp_rank_1_mp_rank_00_optim_states.pt"),
    "zero-3": ("zero", "zero3/last", "zero_pp_rank_0_mp_rank_00_model_states.pt"),
    "fsdp": ("fsdp", "fsdp-shards", ".metadata"),
    "fsdp-item": ("fsdp", "fsdp-shards", "__1_0.distcp"),
}
"""A model, a folder with its optimizer, and the file of it that is changed."""

Target = tuple[str, Callable[[], list[bytes]], Callable[[bytes], None]]


def targets(scratch: Callable[[], Path]) -> Iterator[Target]:
    """Name, seeds and target; `scratch` gives a folder."""

    def run(data: bytes) -> None:
        path = scratch() / "optimizer.pt"
        path.write_bytes(data)
        _look(_FILES / "model.safetensors", path, _FILES / "names.txt", None)

    def keras(data: bytes) -> None:
        path = scratch() / "model.keras"
        path.write_bytes(data)
        _look(path, path, None, 0.98)

    yield "optimizer", lambda: [(_FILES / name).read_bytes() for name in _SEEDS], run
    names = ("keras.keras", "keras.weights.h5", "keras-old.h5", "optax.msgpack")
    yield "optimizer-keras", lambda: [(_OTHERS / name).read_bytes() for name in names], keras
    for name in _PARTS:
        yield _of_folder(name, scratch)


def _of_folder(name: str, scratch: Callable[[], Path]) -> Target:
    model, folder, part = _PARTS[name]

    def run(data: bytes) -> None:
        place = scratch() / name
        shutil.copytree(_OTHERS / folder, place, dirs_exist_ok=True)
        (place / part).write_bytes(data)
        _look(_OTHERS / f"{model}.model.safetensors", place, None, None)

    return f"optimizer-{name}", lambda: [(_OTHERS / folder / part).read_bytes()], run


def _look(model: Path, optimizer: Path, order: Path | None, beta2: float | None) -> None:
    try:
        with opened(model, [optimizer], order, beta2) as found:
            for name in found.moments:
                if found.read(name).shape != found.shape(name):
                    raise AssertionError(f"{name} has another shape")
    except UsageError as error:
        if len(str(error)) > 20_000:
            raise AssertionError("a message that floods the terminal") from error
