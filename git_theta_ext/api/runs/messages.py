"""Messages of a run's commits: the metrics for people, and read again when a run goes on. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from git_theta_ext.api.runs.policy import Saved

_SHOWN = ("eval_loss", "val_loss", "loss", "train_loss")
_CHECKPOINT, _STEP = "Checkpoint", "Step"


def compose(
    step: int,
    metrics: Mapping[str, float],
    *,
    prefix: str = "",
    epoch: float | None = None,
    path: str | None = None,
) -> str:
    """The message of the commit of a checkpoint.

    Args:
        step: that it is of.
        metrics: numbers by name.
        prefix: what the first line begins with, such as the run's name.
        epoch: that it is of, where that is known.
        path: of the checkpoint, from the top; named in a run's own branch, so that `read` finds it.
    """
    shown = [f"{_plain(n)} {metrics[n]:.4g}" for n in _SHOWN if n in metrics][:2]
    first = f"{prefix}{': ' if prefix else ''}step {step}"
    lines = [first + (f", {', '.join(shown)}" if shown else ""), ""]
    if epoch is not None:
        lines.append(f"epoch: {epoch:g}")
    lines += [f"{_plain(name)}: {value:.9g}" for name, value in sorted(metrics.items())]
    if path is not None:
        lines += ["", f"{_STEP}: {step}", f"{_CHECKPOINT}: {json.dumps(path)}"]
    return "\n".join(lines) + "\n"


def read(message: str) -> Saved | None:
    """What the commit of a message has saved; None where it is not of a run."""
    metrics: dict[str, float] = {}
    step, path = None, None
    for line in message.splitlines()[1:]:
        name, colon, text = line.rpartition(": ")
        if not colon:
            continue
        try:
            if name == _CHECKPOINT:
                path = json.loads(text)
            elif name == _STEP:
                step = int(text)
            else:
                metrics[name] = float(text)
        except (ValueError, RecursionError):
            continue
    if step is None or not isinstance(path, str) or not path:
        return None
    return Saved(step, path, metrics)


def numbers(metrics: Mapping[str, object] | None) -> dict[str, float]:
    """Metrics as numbers: those of NumPy and of tensors with one element, too; no texts.

    What cannot be a number is left out: a trainer logs texts and figures.
    """
    found: dict[str, float] = {}
    for name, value in (metrics or {}).items():
        if isinstance(value, str | bytes | bool):
            continue
        item = getattr(value, "item", None)
        try:
            found[str(name)] = float(value if item is None else item())  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError):
            continue
    return found


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that are numbers one can compare."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _plain(name: str) -> str:
    """A name on one line."""
    return " ".join(name.split()) or "metric"
