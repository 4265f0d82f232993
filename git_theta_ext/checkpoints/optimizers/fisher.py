"""The diagonal of the Fisher information from an optimizer's file, by a checkpoint's names.

Li, Dangel, Tam and Raffel 2025, "Fishers for Free?" (arXiv 2507.18807): Adam's second moment is a
running mean of squared gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from git_theta_ext.checkpoints.optimizers import keras, opening, pairing
from git_theta_ext.checkpoints.optimizers.file import Shape
from git_theta_ext.checkpoints.optimizers.moments import Moment, Moments, values
from git_theta_ext.checkpoints.optimizers.order import Listed, Names, find_order
from git_theta_ext.core import advice
from git_theta_ext.core.text import plural, printable
from git_theta_ext.formats.tensors_file import TensorsFile

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Fisher:
    """What was found: a moment for each tensor, not read yet."""

    moments: dict[str, Moment]
    unmeasured: tuple[str, ...]
    """Tensors of the checkpoint that the optimizer did not train, or made no step with."""

    def shape(self, name: str) -> Shape:
        """The shape of a tensor."""
        return self.moments[name].shape or ()

    def read(self, name: str) -> NDArray[np.float32]:
        """The Fisher diagonal of a tensor, in its shape.

        Raises:
            UsageError: the file has no such numbers.
        """
        return values(self.moments[name]).reshape(self.shape(name))


@contextmanager
def opened(
    model: Path, optimizer: Sequence[Path], order: Path | None, beta2: float | None
) -> Iterator[Fisher]:
    """Find the second moment of each of a checkpoint's tensors; nothing is executed.

    Args:
        model: the checkpoint.
        optimizer: of PyTorch (also in a training checkpoint, also the checkpoint itself), Keras or
            Optax: a file, the parts of DeepSpeed's ZeRO, or the folder of these or of a distributed
            checkpoint.
        order: what tells the order of the model's parameters, where the user says so.
        beta2: Adam's, for files that do not have it.

    Raises:
        UsageError: a file cannot be read, or a parameter cannot be told with certainty.
    """
    with ExitStack() as stack:
        target = stack.enter_context(TensorsFile(model))
        found, file = opening.optimizer(stack, optimizer, beta2)
        same = file is not None and model.resolve() == file.path.resolve()
        inside = keras.INSIDE if keras.looks_like(target) else found.inside if same else ""
        names = Names(target, inside)
        if not names.shapes:
            raise target.refused("has no tensors of floats that can be read")
        if any(one.name is not None for one in found.found):
            pairs = _named(found, names)
        elif file is None:
            raise found.refused("does not name its parameters")
        else:
            listed = find_order(names, file, found.inside, target, order)
            pairs = _paired(found, names, listed, target)
        moments = dict(sorted(pairs.items()))
        _check_shapes(found, moments, names)
        yield Fisher(moments, tuple(n for n in names.shapes if n not in moments))


def _named(found: Moments, names: Names) -> dict[str, Moment]:
    """The moments by the names that the file gives them."""
    if any(one.name is None for one in found.found):
        raise found.refused("names some parameters and numbers others")
    trained = [one for one in found.found if one.shape is not None]
    mapped = names.mapped([one.name or "" for one in trained])
    pairs: dict[str, Moment] = {}
    missing = [one.name or "" for one in trained] if not mapped else []
    for one, (_, here) in zip(trained, mapped, strict=False):
        if here is None or here in pairs:
            missing.append(one.name or "")
        else:
            pairs[here] = one
    _refuse_missing(found, missing)
    return pairs


def _paired(
    found: Moments,
    names: Names,
    listed: Sequence[Listed],
    model: TensorsFile,
) -> dict[str, Moment]:
    """The moments by the names that order and shapes prove, or that shapes alone do."""
    last = max(one.group for one in found.found)
    groups: list[list[Moment]] = [[] for _ in range(last + 1)]
    for one in found.found:
        groups[one.group].append(one)
    shapes = [[one.shape for one in group] for group in groups]
    known = listed or [Listed(name, name, shape) for name, shape in names.shapes.items()]
    if listed:
        ways = pairing.by_order(shapes, [one.shape for one in listed])
        if ways is None or any(len(ways[slot]) > 1 for slot in pairing.undecided(ways)):
            labels, sizes = [one.label for one in listed], [one.shape for one in listed]
            ways = pairing.by_decay(shapes, labels, sizes, found.no_decay) or ways
    else:
        ways = pairing.by_shape(shapes, [one.shape for one in known if one.shape is not None])
    if ways is None:
        raise found.refused("has groups of parameters that fit the model in too many ways")
    pairs: dict[str, Moment] = {}
    missing = []
    open_slots = [slot for slot in pairing.undecided(ways) if shapes[slot[0]][slot[1]] is not None]
    if open_slots:
        if listed and not any(ways.values()):
            count = plural(len(found.found), "parameter")
            raise found.refused(
                f"is of another model: the shapes of its {count} do not follow each other here"
            )
        raise found.refused(_said(groups, ways, known, open_slots), _how_to_tell(found, model))
    for (group, place), choice in ways.items():
        moment = groups[group][place]
        if moment.shape is None:
            continue
        (at,) = choice
        name = known[at].name
        if name is None:
            missing.append(known[at].label)
        else:
            pairs[name] = moment
    _refuse_missing(found, missing)
    return pairs


def _said(
    groups: Sequence[Sequence[Moment]],
    ways: dict[pairing.Slot, set[int]],
    known: Sequence[Listed],
    slots: Sequence[pairing.Slot],
) -> str:
    """The first parameters that cannot be told, and which tensors each may be."""
    what = plural(len(slots), "parameter")
    lines = [f"has {what} whose {'tensor is' if len(slots) == 1 else 'tensors are'} not certain"]
    for group, place in slots[:_SHOWN]:
        shape = list(groups[group][place].shape or ())
        can = [printable(known[at].label) for at in sorted(ways[group, place])]
        more = " and others" if len(can) > 3 else ""
        fits = f"may be {', '.join(can[:3])}{more}" if can else "fits no tensor of the model"
        lines.append(f"  number {place} of group {group}, {shape}: {fits}")
    if len(slots) > _SHOWN:
        lines.append(f"  and {len(slots) - _SHOWN} more")
    return "\n".join(lines)


def _how_to_tell(found: Moments, model: TensorsFile) -> str:
    told = "git theta stats FILE --from OPTIMIZER --order NAMES"
    told = advice.with_name(advice.with_name(told, str(model.path)), str(found.path), "OPTIMIZER")
    return f"{told}   NAMES is a text of the names of model.named_parameters(), one on each line"


def _refuse_missing(found: Moments, missing: Sequence[str]) -> None:
    if missing:
        shown = ", ".join(printable(name) for name in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise found.refused(f"trained tensors that the checkpoint does not have: {shown}{more}")


def _check_shapes(found: Moments, moments: dict[str, Moment], names: Names) -> None:
    for name, one in moments.items():
        if one.shape != names.shapes[name]:
            shape, wanted = list(one.shape or ()), list(names.shapes[name])
            raise found.refused(
                f"has a second moment of {shape} for {printable(name)!r}, which is {wanted}"
            )
