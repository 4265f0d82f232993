"""The order in which a model lists its parameters, from the files that know it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta_ext.checkpoints.optimizers import keras
from git_theta_ext.checkpoints.optimizers.file import Shape, floats_of, in_order, text_of
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.text import printable
from git_theta_ext.formats.tensors_file import TensorsFile
from git_theta_ext.formats.torch import zipped

_WRAPPERS = re.compile(r"(?:_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
_ADAPTER = re.compile(r"(\.lora_(?:embedding_)?[AB])\.default(?=\.|$)")
_BUFFERS = re.compile(r"(?:^|\.)(?:running_mean|running_var|num_batches_tracked|inv_freq)$")
_BESIDE = "pytorch_model.bin"


@dataclass(frozen=True, slots=True)
class Listed:
    """A tensor in the module's order; `name` is the checkpoint's, None if it has none of that."""

    label: str
    name: str | None
    shape: Shape | None


class Names:
    """The tensors of a checkpoint that can be parameters, found by other spellings too."""

    def __init__(self, model: TensorsFile, without: str) -> None:
        """`without` is where an optimizer's tensors are, if they are in the same file."""
        self.shapes = {
            name: shape
            for name, shape in floats_of(model)
            if not (without and name.startswith(without)) and not _BUFFERS.search(name)
        }
        self._by_clean = {clean(name): name for name in self.shapes}
        for other, name in model.aliases.items():
            if name in self.shapes:
                self._by_clean.setdefault(clean(other), name)

    def mapped(self, theirs: Sequence[str]) -> list[tuple[str, str | None]]:
        """Other spellings of names: what is left of each, and the checkpoint's name, if it has one.

        A prefix that all of them have, or all of the checkpoint's, is left out; names of another
        part of the file are too.

        Raises:
            UsageError: two parts of the file have the checkpoint's names, in different orders.
        """
        cleaned = [clean(name) for name in theirs]
        known = set(cleaned)
        hits: Counter[tuple[str, str]] = Counter()
        for name in known:
            hits.update((before, "") for before, rest in _splits(name) if rest in self._by_clean)
        for name in self._by_clean:
            hits.update(("", before) for before, rest in _splits(name) if before and rest in known)
        most = max(hits.values(), default=0)
        found = [
            [
                (name.removeprefix(before), self._by_clean.get(ours + name.removeprefix(before)))
                if name.startswith(before)
                else ("", None)
                for name in cleaned
            ]
            for (before, ours), count in hits.items()
            if count == most
        ]
        orders = [[one for one in way if one[0]] for way in found]
        if any(one != orders[0] for one in orders):
            raise UsageError("a file has the tensors of the checkpoint twice, in different orders")
        return found[0] if found else []

    def listed(self, order: Sequence[tuple[str, Shape | None]]) -> list[Listed]:
        """The module's tensors, as a file lists them; each of the checkpoint's once.

        Raises:
            UsageError: two parts of the file have the checkpoint's names, in different orders.
        """
        order = [one for one in order if not _BUFFERS.search(one[0])]
        found: dict[str, Listed] = {}
        mapped = self.mapped([name for name, _ in order])
        for (label, here), (_, shape) in zip(mapped, order, strict=False):
            if label:
                shape = shape if here is None else self.shapes[here]
                found.setdefault(here or f"\0{label}", Listed(label, here, shape))
        return list(found.values())


def clean(name: str) -> str:
    """A name without what FSDP, torch.compile and checkpointing put into it, and as PEFT saves."""
    return _ADAPTER.sub(r"\1", _WRAPPERS.sub("", name))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    yield "", name
    at = name.find(".")
    while at >= 0:
        yield name[: at + 1], name[at + 1 :]
        at = name.find(".", at + 1)


def find_order(
    names: Names, optimizer: TensorsFile, inside: str, model: TensorsFile, told: Path | None
) -> list[Listed]:
    """The module's tensors in its order; empty where no file tells it.

    Args:
        names: of the checkpoint.
        optimizer: the optimizer's file, which may have a model beside it.
        inside: what the names of the optimizer's own tensors begin with.
        model: the checkpoint.
        told: a PyTorch file, or a text of names, that the user says has the order.

    Raises:
        UsageError: what the user said has no names of the checkpoint.
    """
    if told is not None:
        with TensorsFile(told) as file:
            text = None if file.format == zipped.NAME else text_of(file)
            if file.format != zipped.NAME and text is None:
                raise file.refused("is neither a PyTorch file nor a text of names")
            order = [(line.strip(), None) for line in (text or "").splitlines() if line.strip()]
            found = names.listed(order if text is not None else in_order(file))
            if not found:
                raise file.refused(f"has no names of {printable(str(model.path))}")
            return found
    beside = [one for one in in_order(optimizer) if not one[0].startswith(inside)]
    found = names.listed(beside) if optimizer.format == zipped.NAME else []
    if not found and model.format == zipped.NAME:
        found = names.listed(in_order(model))
    if not found:
        found = names.listed(keras.in_order(model))
    if not found:
        for folder in (model.path.parent, optimizer.path.parent):
            if (folder / _BESIDE).is_file():
                with TensorsFile(folder / _BESIDE) as file:
                    found = names.listed(in_order(file)) if file.format == zipped.NAME else []
                if found:
                    break
    return found
