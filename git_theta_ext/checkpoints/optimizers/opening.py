"""An optimizer on disk, of whatever library: its file, its files, or its folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from git_theta_ext.checkpoints.optimizers import distributed, keras, moments, optax, zero
from git_theta_ext.checkpoints.optimizers.moments import Moments
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.tensors_file import TensorsFile
from git_theta_ext.formats.torch import zipped

_LATEST = "latest"
_TAG_BYTES = 4096


def optimizer(
    stack: ExitStack, given: Sequence[Path], beta2: float | None
) -> tuple[Moments, TensorsFile | None]:
    """The second moments of an optimizer, and its file where it is one.

    Args:
        stack: closes what is opened.
        given: a file, several, or a folder.
        beta2: Adam's, for files that do not have it.

    Raises:
        UsageError: there is no Adam, or it cannot be read.
    """
    first = given[0]
    if len(given) == 1 and first.is_dir():
        folder = _latest(first)
        if (folder / distributed.METADATA).is_file():
            return distributed.moments_of(folder), None
        parts = zero.parts_in(folder)
        if not parts:
            raise UsageError(
                f"{printable(str(first))} is a folder without an optimizer: neither .metadata, as "
                "torch.distributed.checkpoint writes it, nor zero_pp_rank_*_optim_states.pt"
            )
        return _parts(stack, parts)
    if len(given) > 1 or zero.is_part(first):
        alone = len(given) == 1 and first.is_file()
        return _parts(stack, zero.parts_in(first.parent) if alone else sorted(given, key=zero.rank))
    file = stack.enter_context(TensorsFile(first))
    if file.format == zipped.NAME:
        return moments.moments_of(file), file
    if keras.looks_like(file):
        return keras.moments_of(file, beta2), file
    return optax.moments_of(file, beta2), file


def _parts(stack: ExitStack, parts: Sequence[Path]) -> tuple[Moments, None]:
    zero.check(parts)
    model = stack.enter_context(TensorsFile(zero.model_file(parts[0])))
    return zero.moments_of([stack.enter_context(TensorsFile(one)) for one in parts], model), None


def _latest(folder: Path) -> Path:
    """The folder of the last save, which DeepSpeed names in a file beside it."""
    try:
        with (folder / _LATEST).open("rb") as file:
            tag = file.read(_TAG_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return folder
    return folder / tag if tag and Path(tag).name == tag and tag != ".." else folder
