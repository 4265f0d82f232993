"""What an optimizer's file, or a model's, says beside its tensors: its pickle as inert records."""

from __future__ import annotations

import math
from typing import Any

from git_theta_ext.core import limits
from git_theta_ext.core.errors import BoundError, FormatError
from git_theta_ext.formats.pickles.machine import Call, Dict
from git_theta_ext.formats.tensors_file import TensorsFile
from git_theta_ext.formats.torch import zipped
from git_theta_ext.formats.torch.names import find_views

Shape = tuple[int, ...]
Tree = Any
"""A value of the pickle machine: plain, a list, a tuple, or a record of `pickles.machine`."""


def text_of(file: TensorsFile) -> str | None:
    """A file as text, where it is a short one."""
    if file.source.size > limits.STRUCTURE_BYTES:
        return None
    try:
        return file.source.read(0, file.source.size).decode("utf-8")
    except UnicodeDecodeError:
        return None


def pickle_of(file: TensorsFile) -> Tree | None:
    """What `torch.save` wrote, as inert records; None of a file of another kind.

    Raises:
        UsageError: it is past the limits of what is read, or damaged.
    """
    if file.format != zipped.NAME:
        return None
    try:
        return zipped.pickle(file.source)
    except (BoundError, FormatError) as error:
        raise file.refused(f"cannot be read: {error.message}") from error


def floats_of(file: TensorsFile) -> list[tuple[str, Shape]]:
    """Names and shapes of all tensors of floats, in the order of their bytes."""
    infos = ((name, file.info(name)) for name in file)
    return [(name, info.shape) for name, info in infos if info.dtype.kind == "float"]


def in_order(file: TensorsFile) -> list[tuple[str, Shape]]:
    """Tensors of floats in the order in which the file's writer listed them, each once.

    Of a PyTorch file that is the order of its dictionary; of any other, of its bytes.
    """
    top = pickle_of(file)
    if top is None:
        return floats_of(file)
    seen: set[tuple[str, int, Shape | None]] = set()
    found = []
    for view in find_views(top):
        place = (view.key, view.offset, view.size)
        if place in seen:
            continue  # a tied tensor: the module's parameters name it once
        seen.add(place)
        info = file.find(view.name)
        shape = view.size if view.size is not None else info.shape if info else None
        kind = view.dtype or (info.dtype if info else None)
        if shape is not None and (kind is None or kind.kind == "float"):
            found.append((view.name, shape))
    return found


def pairs_of(tree: Tree) -> list[tuple[Any, Tree]]:
    """The items of a dictionary, or of an OrderedDict; none of anything else."""
    return tree.pairs if isinstance(tree, Dict | Call) else []


def get(tree: Tree, key: str) -> Tree | None:
    """The value of a key in a dictionary; the last, as Python has it."""
    found = None
    for name, value in pairs_of(tree):
        if isinstance(name, str) and name == key:
            found = value
    return found


def number(value: Tree) -> float | None:
    """A finite number of a pickle, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def attributes(tree: Tree) -> Tree | None:
    """What was put into an object: a dictionary of its attributes, if it is one."""
    return tree.states[-1] if isinstance(tree, Call) and tree.states else None


def whole(value: Tree) -> int | None:
    """A whole number of a pickle from 0, if it is one."""
    is_one = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    return value if is_one else None


def shape_of(tree: Tree) -> Shape | None:
    """A `torch.Size`, or another sequence of whole numbers, if it is one."""
    if isinstance(tree, Call) and isinstance(tree.args, tuple) and len(tree.args) == 1:
        tree = tree.args[0]
    if not isinstance(tree, tuple | list) or len(tree) > limits.AXES:
        return None
    sizes = [whole(one) for one in tree]
    known = tuple(one for one in sizes if one is not None)
    return known if len(known) == len(sizes) else None
